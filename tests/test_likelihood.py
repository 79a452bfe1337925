import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cerebras_gpt.generate.likelihood import token_nats, windows
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization

SEQ_LEN = 16


@pytest.fixture(scope="module")
def model() -> GPT:
    architecture = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=61, seq_len=SEQ_LEN)
    parametrization = Parametrization(architecture.n_layers, architecture.d_head, base_init_std=0.3)
    return initialize(GPT(architecture, parametrization), torch.Generator().manual_seed(0))


def random_ids(n: int) -> list[int]:
    return torch.randint(61, (n,), generator=torch.Generator().manual_seed(n)).tolist()


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 20))
def test_windows_score_each_id_once_with_at_least_half_a_context(n_ids, first, seq_len):
    scored = []
    for start, a, end in windows(n_ids, first, seq_len):
        scored += range(a, end)
        assert 0 <= start < a < end <= start + seq_len + 1
        assert start == 0 or a - start >= seq_len - seq_len // 2
    assert scored == list(range(first, n_ids))


@torch.inference_mode()
@pytest.mark.parametrize("n", [2, 9, SEQ_LEN, SEQ_LEN + 1])
def test_ids_that_fit_the_context_get_their_plain_log_probabilities(model, n):
    ids = random_ids(n)
    log_probabilities = model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
    expected = -log_probabilities[range(n - 1), ids[1:]]
    torch.testing.assert_close(token_nats(model, ids), expected.double(), rtol=1e-6, atol=1e-6)


@torch.inference_mode()
def test_long_ids_get_the_log_probabilities_of_their_windows(model):
    ids, first = random_ids(75), 5
    got, expected = token_nats(model, ids, first), []
    for start, a, end in windows(len(ids), first, SEQ_LEN):
        for target in range(a, end):
            log_probabilities = model(torch.tensor([ids[start:target]]))[0, -1].log_softmax(-1)
            expected.append(-log_probabilities[ids[target]])
    torch.testing.assert_close(got, torch.stack(expected).double(), rtol=1e-6, atol=1e-6)


def test_nothing_to_score_gives_nothing(model):
    assert token_nats(model, [3]).shape == (0,)
