"""Ours, through the engine that serves."""

import time

from cerebras_gpt.generate.engine import Engine
from cerebras_gpt.generate.precision import prepared
from cerebras_gpt.generate.request import Request
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.parametrization import Parametrization
from sides import ids_of

SHAPE = {"d_model": 768, "n_layers": 10, "n_heads": 12}


def random_model():
    import torch

    architecture = Architecture(**SHAPE)
    model = GPT(architecture, Parametrization(architecture.n_layers, architecture.d_head)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0, 0.02, generator=generator)
    return model


def side(kind, _folder):
    network = prepared(random_model(), kind).make_network()
    counter = iter(range(10**9))

    def run(n, n_prompt, n_new):
        engine, greedy = Engine(network, n, n_prompt + n_new), Sampling(temperature=0)
        began = time.perf_counter()
        going = [engine.submit(Request(tuple(ids_of(n_prompt, next(counter))), n_new, greedy)) for _ in range(n)]
        while any(not one.n_new for one in going):
            engine.step()
        first, before = time.perf_counter(), sum(one.n_new for one in going)
        while not engine.is_idle:
            engine.step()
        return first - began, sum(one.n_new for one in going) - before, time.perf_counter() - first

    return run
