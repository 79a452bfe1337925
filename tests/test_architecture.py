import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.parametrization import Parametrization

PUBLISHED = json.loads((Path(__file__).parent / "golden" / "published.json").read_text("utf-8"))

shapes = st.builds(
    lambda d_head, n_heads, **rest: Architecture(d_model=d_head * n_heads, n_heads=n_heads, **rest),
    d_head=st.integers(1, 9),
    n_heads=st.integers(1, 5),
    n_layers=st.integers(1, 4),
    vocab_size=st.integers(1, 300),
    seq_len=st.integers(1, 70),
    ffn_multiple=st.sampled_from([1.0, 2.5, 4.0, 5.0]),
)


def count(shape: Architecture) -> int:
    with torch.device("meta"):
        model = GPT(shape, Parametrization(shape.n_layers, shape.d_head))
    return sum(parameter.numel() for parameter in model.parameters())


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_the_count_is_that_of_the_network(shape):
    assert shape.n_parameters == count(shape)
    assert shape.n_embedding_parameters == (shape.vocab_size + shape.seq_len) * shape.table_width


@pytest.mark.parametrize("name", PUBLISHED["sizes"])
def test_published_networks_have_the_published_count(name):
    row = PUBLISHED["sizes"][name]
    shape = Architecture(row["d_model"], row["n_layers"], row["n_heads"])
    assert shape.n_parameters == count(shape) == row["n_parameters"]


@given(shapes)
def test_the_padded_vocabulary_is_the_next_multiple_of_64(shape):
    assert shape.padded_vocab_size % 64 == 0
    assert 0 <= shape.padded_vocab_size - shape.vocab_size < 64


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="d_model 64 is not a multiple of n_heads 3; change one of them"):
        Architecture(64, 2, 3)


@pytest.mark.parametrize("field", ["d_model", "n_layers", "n_heads", "vocab_size", "seq_len"])
def test_nothing_may_be_zero(field):
    with pytest.raises(ValueError, match=f"{field} is 0; it must be at least 1"):
        Architecture(**{"d_model": 64, "n_layers": 2, "n_heads": 2, field: 0})


@pytest.mark.parametrize("d_embedding", [None, 6, 48])
def test_an_untied_head_and_another_table_width_are_counted(d_embedding):
    shape = Architecture(24, 2, 2, vocab_size=50, seq_len=8, ffn_multiple=2.5, tied=False, d_embedding=d_embedding)
    assert shape.d_ffn == 60
    assert shape.n_parameters == count(shape)


def test_a_table_of_another_width_cannot_be_the_head():
    with pytest.raises(ValueError, match="a table of width 6 cannot be the head of a width of 24; set tied=False"):
        Architecture(24, 2, 2, d_embedding=6)
