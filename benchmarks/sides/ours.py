"""Ours, through the engine that serves."""

import time
from functools import lru_cache

from cerebras_gpt.generate.engine import Engine
from cerebras_gpt.generate.precision import prepared
from cerebras_gpt.generate.request import Request
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.parametrization import Parametrization
from sides import ids_of

SHAPE = {"d_model": 768, "n_layers": 10, "n_heads": 12}


def random_model(shape=SHAPE):
    import torch

    architecture = Architecture(**shape)
    model = GPT(architecture, Parametrization(architecture.n_layers, architecture.d_head)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0, 0.02, generator=generator)
    return model


def side(kind, _folder):
    network = prepared(random_model(), kind).make_network()
    engine = lru_cache(lambda n: Engine(network, n))  # as a server keeps it: its memory is the system's no more
    counter, greedy = iter(range(10**9)), Sampling(temperature=0)

    def run(n, n_prompt, n_new):
        engine_of_n = engine(n)
        began = time.perf_counter()
        going = [engine_of_n.submit(Request(tuple(ids_of(n_prompt, next(counter))), n_new, greedy)) for _ in range(n)]
        while any(not one.n_new for one in going):
            engine_of_n.step()
        first, before = time.perf_counter(), sum(one.n_new for one in going)
        while not engine_of_n.is_idle:
            engine_of_n.step()
        return first - began, sum(one.n_new for one in going) - before, time.perf_counter() - first

    return run
