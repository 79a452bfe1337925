"""The score of a text is the direct computation, in its three units."""

import math

import pytest
import torch

from cerebras_gpt.data.shards import Shards
from cerebras_gpt.evaluate.perplexity import perplexity
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.model.gpt import GPT, initialize


@pytest.fixture
def lm(tiny, data):
    model = initialize(GPT(tiny.architecture, tiny.parametrization), torch.Generator().manual_seed(1))
    return LM(model.eval(), Shards.open(data, "train").tokenizer)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cät sees milk.", "utf-8")
    return path


def test_it_equals_the_direct_computation(lm, file):
    text = file.read_text("utf-8")
    ids = [lm.tokenizer.end_of_text, *lm.tokenizer.encode(text)]
    assert len(ids) <= lm.model.architecture.seq_len + 1
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids[:-1]]))[0]  # (T, V)
    nats = torch.nn.functional.cross_entropy(logits.double(), torch.tensor(ids[1:]), reduction="sum").item()
    found = perplexity(lm, file)
    assert (found.n_tokens, found.n_bytes) == (len(ids) - 1, len(text.encode()))
    assert found.loss == pytest.approx(nats / found.n_tokens, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / found.n_tokens), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / found.n_bytes, rel=1e-5)


def test_a_model_that_knows_nothing_is_as_surprised_as_a_die(lm, file):
    with torch.no_grad():
        lm.model.token_embedding.weight.zero_()
    found = perplexity(lm, file)
    assert found.loss == pytest.approx(math.log(288), rel=1e-6)
    assert found.perplexity == pytest.approx(288, rel=1e-5)


def test_a_text_longer_than_the_context_is_scored_whole(lm, file):
    file.write_text("the cat sees milk. " * 50)
    assert perplexity(lm, file).n_tokens == len(lm.tokenizer.encode(file.read_text()))


def test_what_is_no_text_is_refused(lm, file):
    file.write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match=r"text\.txt is not UTF-8 text \(byte 3\)"):
        perplexity(lm, file)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        perplexity(lm, file)
