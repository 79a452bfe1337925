"""Use makes the best model smaller and its training longer, at the loss of the compute-optimal one."""

import math

import pytest

from cerebras_gpt.plan.budget import Text
from cerebras_gpt.plan.in_use import for_use, total_flops, training_flops_by_size
from cerebras_gpt.plan.inference import optimal_for_loss
from cerebras_gpt.plan.laws import EPOCH
from cerebras_gpt.plan.optimal import compute, optimal_plan

OPTIMAL = optimal_plan(compute(1e20))


@pytest.mark.parametrize("inference_tokens", [1e9, 1e11, 1e13])
def test_the_same_loss_for_less_in_all(inference_tokens):
    found = for_use(OPTIMAL, inference_tokens)
    losses = [EPOCH.loss(plan.architecture.n_parameters, plan.tokens) for plan in (found, OPTIMAL)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert total_flops(found, inference_tokens) <= total_flops(OPTIMAL, inference_tokens)
    best = optimal_for_loss(losses[1], inference_tokens)
    assert total_flops(found, inference_tokens) == pytest.approx(best.total_flops, rel=0.01)


def test_the_more_use_the_smaller_the_model_and_the_longer_its_training():
    plans = [for_use(OPTIMAL, tokens) for tokens in (0, 1e10, 1e11, 1e12, 1e13)]
    sizes = [plan.architecture.n_parameters for plan in plans]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < OPTIMAL.architecture.n_parameters
    training = [training_flops_by_size(plan) for plan in plans]
    assert training == sorted(training)
    assert "less in all" in plans[-1].reasons[0] and OPTIMAL.name in plans[-1].reasons[0]


@pytest.mark.parametrize("inference_tokens", [-1, math.nan, math.inf])
def test_what_is_no_use_is_refused(inference_tokens):
    with pytest.raises(ValueError, match="give 0 or more, such as 1e11"):
        for_use(OPTIMAL, inference_tokens)


def test_the_longer_training_must_still_find_its_text():
    text = Text(50257, int(OPTIMAL.tokens / 30), OPTIMAL.tokens)
    with pytest.raises(ValueError, match="too little data"):
        for_use(optimal_plan(compute(1e20), text), 1e14, text)
