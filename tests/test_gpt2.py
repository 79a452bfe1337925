from dataclasses import replace

import torch

from cerebras_gpt.interop.gpt2 import gpt2_name, gpt2_tensors, our_name, turned
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import standard

SHAPE = Architecture(d_model=24, n_layers=11, n_heads=4, vocab_size=50, seq_len=16, tied=False)


def weights() -> dict[str, torch.Tensor]:
    model = initialize(GPT(SHAPE, standard(SHAPE)), torch.Generator().manual_seed(0))
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def test_names_lead_there_and_back():
    for name in weights():
        assert our_name(gpt2_name(name)) == name
        assert our_name(gpt2_name(name).removeprefix("transformer.")) == name


def test_names_are_those_of_the_release():
    names = {gpt2_name(name) for name in weights()}
    assert {"transformer.wte.weight", "transformer.h.10.attn.c_attn.weight", "lm_head.weight"} <= names
    assert len(names) == len(weights())


def test_what_is_no_parameter_of_gpt2_has_no_name():
    for name in ("h.0.attn.bias", "h.0.attn.masked_bias", "wte", "h.x.ln_1.weight", "score.weight", "h.0.wte.weight"):
        assert our_name(name) is None


def test_tensors_lead_there_and_back():
    ours = weights()
    back = {our_name(name): turned(name, tensor) for name, tensor in gpt2_tensors(ours).items()}
    assert ours.keys() == back.keys()
    assert all(torch.equal(ours[name], back[name]) for name in ours)


def test_projections_are_turned():
    theirs = gpt2_tensors(weights())
    assert theirs["transformer.h.0.attn.c_attn.weight"].shape == (24, 72)
    assert theirs["transformer.h.0.mlp.c_proj.weight"].shape == (96, 24)
    assert replace(SHAPE, ffn_multiple=2.0).d_ffn == 48
