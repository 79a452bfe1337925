from dataclasses import replace

import pytest
import torch

from cerebras_gpt.interop.fold import fold_changes, folded, is_plain
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize, roles
from cerebras_gpt.plan.families import Base, completep, mup, standard

SHAPE = Architecture(d_model=24, n_layers=3, n_heads=4, vocab_size=50, seq_len=16)
UNTIED = replace(SHAPE, tied=False, ffn_multiple=2.5, activation="gelu_new")
NARROW = replace(UNTIED, d_embedding=10)
BASE = Base(d_model=8, n_layers=1, init_std=0.3, embedding_scale=7.0, output_alpha=2.0)


def network(shape: Architecture, parametrize=mup) -> GPT:
    """A model in which nothing is at its neutral value, biases and norms included."""
    generator = torch.Generator().manual_seed(0)
    model = initialize(GPT(shape, parametrize(shape, BASE)), generator)
    for _, parameter, role in roles(model):
        if role in ("bias", "norm"):
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.double().eval()


@pytest.mark.parametrize("parametrize", [standard, mup, completep])
@pytest.mark.parametrize("shape", [SHAPE, UNTIED, NARROW], ids=["tied", "untied", "narrow"])
@torch.no_grad()
def test_a_folded_model_gives_the_same_logits(shape, parametrize):
    model = network(shape, parametrize)
    plain = folded(model)
    ids = torch.randint(50, (2, 16), generator=torch.Generator().manual_seed(1))
    assert is_plain(plain)
    assert not is_plain(model)
    assert torch.allclose(plain(ids), model(ids), rtol=1e-12, atol=1e-12)


def test_folding_leaves_the_model_as_it_was():
    model = network(SHAPE)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    folded(model)
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


@torch.no_grad()
def test_folding_a_plain_model_changes_no_bit():
    shape = replace(SHAPE, d_model=64)
    model = initialize(GPT(shape, standard(shape)), torch.Generator().manual_seed(0))
    assert is_plain(model)
    for (name, before), after in zip(model.named_parameters(), folded(model).parameters(), strict=True):
        assert torch.equal(before, after), name


def test_the_changes_are_named():
    changes = {"embeddings": "x 7", "final norm": "x 0.0952381", "query": "x 0.408248"}
    assert fold_changes(network(SHAPE)) == changes
    assert fold_changes(network(SHAPE, completep)) == changes | {"residual branches": "x 0.333333"}
    assert fold_changes(network(NARROW)) == {"tables": "x their projection"} | changes | {"final norm": "x 0.666667"}
    shape = replace(SHAPE, d_model=64)
    assert fold_changes(GPT(shape, standard(shape))) == {}
