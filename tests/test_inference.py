"""Training against use: what is cheapest in all, and where the cheaper one changes."""

import math
from itertools import pairwise

import pytest

from cerebras_gpt.plan.inference import Cost, compute_optimal_for_loss, crossover, optimal_for_budget, optimal_for_loss
from cerebras_gpt.plan.laws import EPOCH, HOFFMANN


@pytest.mark.parametrize("law", [EPOCH, HOFFMANN])
def test_without_use_the_compute_optimal_run_is_cheapest(law):
    n, d = law.optimum(1e21)
    found = optimal_for_budget(1e21, 0, law)
    assert (found.n_parameters, found.n_tokens) == pytest.approx((n, d), rel=1e-3)
    assert found.total_flops == found.train_flops == pytest.approx(1e21, rel=1e-6)
    assert compute_optimal_for_loss(law.loss(n, d), law)[:2] == pytest.approx((n, d), rel=1e-9)


@pytest.mark.parametrize("tokens", [1e10, 1e12, 1e14])
def test_no_other_size_of_that_loss_is_cheaper_in_all(tokens):
    loss = EPOCH.loss(*EPOCH.optimum(1e21))
    found = optimal_for_loss(loss, tokens)
    assert EPOCH.loss(found.n_parameters, found.n_tokens) == pytest.approx(loss, rel=1e-9)
    for factor in (0.7, 0.97, 1.03, 1.5):
        n = factor * found.n_parameters
        assert 6 * n * EPOCH.tokens(loss, n) + 2 * n * tokens > found.total_flops


def test_more_use_asks_for_a_smaller_model_trained_longer():
    found = [optimal_for_budget(1e21, tokens) for tokens in (0, 1e10, 1e11, 1e12, 1e13)]
    sizes = [trade.n_parameters for trade in found]
    assert sizes == sorted(sizes, reverse=True)
    assert all(later.train_flops > first.train_flops for first, later in pairwise(found))


def test_costs_are_equal_at_the_crossover():
    ours, theirs = Cost(1e21, 6e9), Cost(1.5e21, 4e9)
    tokens = crossover(ours, theirs)
    assert ours.train_flops + tokens * ours.flops_per_token == theirs.train_flops + tokens * theirs.flops_per_token


def test_one_that_is_cheaper_throughout_has_no_crossover():
    assert crossover(Cost(1e21, 4e9), Cost(2e21, 6e9)) == math.inf
    assert crossover(Cost(2e21, 6e9), Cost(1e21, 4e9)) == 0
    assert crossover(Cost(2e21, 4e9), Cost(1e21, 4e9)) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: optimal_for_budget(-1, 0), "a budget of -1 FLOPs is none"),
        (lambda: optimal_for_budget(math.nan, 0), "a budget of nan FLOPs is none"),
        (lambda: optimal_for_loss(1.0, 0), "no model reaches a loss of 1; this law ends at 1.8169"),
        (lambda: optimal_for_loss(2.5, -1), "-1 tokens of inference cannot be"),
        (lambda: optimal_for_loss(2.5, math.inf), "inf tokens of inference cannot be"),
    ],
)
def test_nonsense_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
