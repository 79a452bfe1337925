import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from cerebras_gpt.generate.sampling import (
    Sampling,
    draw,
    keep_top_k,
    keep_top_p,
    next_token,
    next_tokens,
    penalize_repetition,
    temper,
)

LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, -4.0]])


def n_kept(logits: Tensor) -> int:
    return int(logits.isfinite().sum())


def frequencies(sampling: Sampling, n: int = 4000) -> Tensor:
    """Counts of n tokens drawn in a row by one generator."""
    generator, history = sampling.generator(0), [[0, 1]]
    tokens = [next_tokens(LOGITS, history, sampling, [generator])[0] for _ in range(n)]
    return torch.bincount(torch.tensor(tokens), minlength=LOGITS.shape[1])


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), LOGITS[0].softmax(0)),
        (Sampling(temperature=0.5), (LOGITS[0] / 0.5).softmax(0)),
        (Sampling(temperature=3.0), (LOGITS[0] / 3.0).softmax(0)),
        (Sampling(top_k=3), torch.cat([LOGITS[0, :3].softmax(0), torch.zeros(3)])),
        # The first two have 0.58 and 0.79 of the mass: the second is needed to reach 0.7, the third is not.
        (Sampling(top_p=0.7), torch.cat([LOGITS[0, :2].softmax(0), torch.zeros(4)])),
        (Sampling(repetition_penalty=2.0), torch.tensor([1.0, 0.5, 0.5, 0.0, -1.0, -4.0]).softmax(0)),
    ],
    ids=str,
)
def test_tokens_follow_the_distribution(sampling, expected):
    counts = frequencies(sampling)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    scaled = expected[possible].double() / expected[possible].double().sum() * counts.sum()
    assert stats.chisquare(counts[possible].numpy(), scaled.numpy(), sum_check=False).pvalue > 0.01


def test_temperature_zero_takes_the_likeliest_and_no_random_number():
    sampling = Sampling(temperature=0, top_k=2)
    generator = sampling.generator(0)
    before = generator.get_state()
    assert next_tokens(LOGITS, [[]], sampling, [generator]) == [0]
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-320])
def test_a_small_temperature_approaches_greedy(temperature):
    sampling = Sampling(temperature=temperature)
    assert next_tokens(LOGITS, [[]], sampling, [sampling.generator(0)]) == [0]


def test_a_greedy_choice_still_avoids_repetition():
    assert next_tokens(LOGITS, [[0]], Sampling(temperature=0, repetition_penalty=4.0), [torch.Generator()]) == [1]


def test_penalty_counts_a_repeated_token_once_and_pushes_negative_logits_down():
    got = penalize_repetition(LOGITS, [[0, 0, 4, 0]], 2.0)
    assert got.tolist() == [[1.0, 1.0, 0.5, 0.0, -2.0, -4.0]]
    assert LOGITS[0, 0] == 2.0


def test_neutral_values_change_nothing():
    assert torch.equal(penalize_repetition(LOGITS, [[0, 1]], 1.0), LOGITS)
    assert torch.equal(keep_top_k(LOGITS, 0), LOGITS)
    assert torch.equal(keep_top_k(LOGITS, 99), LOGITS)
    assert torch.equal(keep_top_p(LOGITS, 1.0), LOGITS)
    torch.testing.assert_close(temper(LOGITS, 1.0).softmax(-1), LOGITS.softmax(-1))


def test_top_k_keeps_exactly_k_among_equals():
    assert n_kept(keep_top_k(torch.zeros(1, 10), 3)) == 3


@pytest.mark.parametrize(("p", "n"), [(1e-9, 1), (0.25, 1), (0.26, 2), (0.75, 3), (0.76, 4)])
def test_top_p_keeps_the_smallest_set_that_reaches_p(p, n):
    assert n_kept(keep_top_p(torch.zeros(1, 4).double(), p)) == n


def test_top_p_restores_the_order_of_the_vocabulary():
    shuffled = LOGITS[:, [4, 0, 5, 1, 3, 2]]
    assert keep_top_p(shuffled, 0.7).isfinite().tolist() == [[False, True, False, True, False, False]]


def test_a_row_does_not_depend_on_its_batch_mates():
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    sampling = Sampling(temperature=0.9, top_k=20, top_p=0.9, repetition_penalty=1.3, seed=4)
    history = [[row, 2 * row] for row in range(5)]
    together = [sampling.generator(row) for row in range(5)]
    alone = [sampling.generator(row) for row in range(5)]
    for _ in range(10):
        batch = next_tokens(logits, history, sampling, together)
        rows = [next_tokens(logits[r : r + 1], history[r : r + 1], sampling, alone[r : r + 1])[0] for r in range(5)]
        assert batch == rows


def test_sequence_i_can_be_made_again_with_seed_plus_i():
    assert Sampling(seed=7).generator(3).initial_seed() == Sampling(seed=10).generator(0).initial_seed()


def test_tokens_of_probability_zero_are_out_of_reach():
    probabilities = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]], dtype=torch.float64).expand(1000, 5)
    generator = torch.Generator().manual_seed(0)
    assert set(draw(probabilities, [generator] * 1000).tolist()) == {1, 3}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(value):
    logits = LOGITS.clone()
    logits[0, 2] = value
    with pytest.raises(ValueError, match="not finite"):
        next_tokens(logits, [[]], Sampling(), [torch.Generator()])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value}; it must be"):
        Sampling(**{name: value})


@pytest.mark.parametrize("penalty", [5e-324, 1e-300, 1e300])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_least_and_the_largest_penalty_still_give_a_token(penalty, temperature):
    logits = torch.linspace(-8, 8, 50)
    sampling = Sampling(temperature, repetition_penalty=penalty)
    generator = torch.Generator().manual_seed(0)
    for history in ([3], [49], [*range(50)]):
        assert 0 <= next_token(logits, history, history, sampling, generator) < 50
