"""Compute, tokens and money become the compute-optimal plan of the family; nonsense gets the nearest possible one."""

import math
import re
import time

import pytest

from cerebras_gpt.plan.budget import Text
from cerebras_gpt.plan.flops import FORMULAS, training_flops
from cerebras_gpt.plan.optimal import BEYOND, MOST_EPOCHS, compute, family_plan, money, optimal_plan, reading
from cerebras_gpt.plan.plan import published_plan
from cerebras_gpt.plan.sizes import FAMILY_WIDTHS, SIZES, family_architecture, family_batch_tokens

TEXT = Text(vocab_size=4096, n_tokens=100_000_000, n_bytes=400_000_000)


@pytest.mark.parametrize("name", SIZES)
def test_the_budget_of_a_published_size_gives_that_size_back(name):
    published = published_plan(name)
    found = optimal_plan(compute(training_flops(published.architecture, 20 * published.architecture.n_parameters)))
    for field in ("architecture", "batch_size", "steps", "warmup_steps"):
        assert getattr(found, field) == getattr(published, field), field
    assert optimal_plan(reading(published.tokens)).architecture == published.architecture


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("flops", [1e16, 3e17, 5e18, 7e20, 2e22])
def test_the_whole_budget_is_spent_at_about_twenty_tokens_per_parameter(flops, formula):
    plan = optimal_plan(compute(flops, formula))
    assert training_flops(plan.architecture, plan.tokens, formula) == pytest.approx(flops, rel=1e-3)
    assert 20 / 1.5 < plan.tokens_per_parameter < 20 * 1.5
    assert formula in plan.reasons[0] and "embeddings included" in plan.reasons[0]


def test_more_compute_never_gives_a_smaller_model():
    sizes = [optimal_plan(compute(10 ** (16 + i / 4))).architecture.n_parameters for i in range(25)]
    assert sizes == sorted(sizes)


def test_between_published_shapes_depth_and_batch_never_fall():
    shapes = [family_architecture(width, 50257, 2048) for width in FAMILY_WIDTHS]
    assert [shape.n_layers for shape in shapes] == sorted(shape.n_layers for shape in shapes)
    batches = [family_batch_tokens(shape.n_parameters) for shape in shapes]
    assert batches == sorted(batches)
    assert all(family_plan(width, TEXT, 1e9).batch_size % 8 == 0 for width in FAMILY_WIDTHS)


def test_a_plan_below_111m_has_as_many_steps_as_111m():
    plan = optimal_plan(reading(400_000_000))
    assert plan.steps == pytest.approx(9037, rel=0.5)
    assert plan.warmup_steps == pytest.approx(0.05 * plan.steps, abs=1)


def test_money_buys_flops():
    assert money(cost=10, price=2, device_flops=1e14) == 5 * 3600 * 1e14


@pytest.mark.parametrize("given", [(-1, 2, 1e14), (10, 0, 1e14), (10, 2, math.nan), (math.inf, 2, 1e14)])
def test_impossible_money_is_refused_by_option(given):
    with pytest.raises(ValueError, match=r"^--(cost|price|device-flops) .* give a positive number"):
        money(*given)


@pytest.mark.parametrize("budget", [compute, reading])
@pytest.mark.parametrize("amount", [0, -3, math.nan, math.inf])
def test_what_is_no_amount_is_refused(budget, amount):
    with pytest.raises(ValueError, match="give a positive number such as"):
        budget(amount)


@pytest.mark.parametrize("budget", [compute, reading])
@pytest.mark.parametrize("amount", [1, 1e9, 1e40, 1e300])
def test_an_absurd_budget_is_refused_with_one_that_is_possible(budget, amount):
    if budget is reading and amount == 1e9:
        return
    with pytest.raises(ValueError, match="nearest possible plan") as refused:
        optimal_plan(budget(amount))
    nearest = float(re.search(r"--(?:flops|tokens) (\S+)$", str(refused.value))[1])
    assert optimal_plan(budget(nearest)).tokens_per_parameter == pytest.approx(20, rel=0.1)


def test_an_unknown_formula_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown FLOP formula '6dn'; did you mean '6nd'"):
        compute(1e18, "6dn")


def test_the_text_at_hand_limits_the_plan_and_its_repetition_is_stated():
    plan = optimal_plan(reading(4e8), TEXT)
    assert plan.architecture.vocab_size == TEXT.vocab_size
    assert "4.00 epochs of 100,000,000 tokens, worth 93%" in plan.reasons[-1]


def test_too_little_text_is_refused_with_the_most_that_it_allows():
    with pytest.raises(ValueError, match="too little data") as refused:
        optimal_plan(reading(1e10), TEXT)
    nearest = float(str(refused.value).rpartition("--tokens ")[2])
    assert nearest == MOST_EPOCHS * TEXT.n_tokens
    assert optimal_plan(reading(nearest), TEXT).tokens <= nearest


def test_a_plan_answers_within_two_seconds():
    started = time.process_time()
    optimal_plan(compute(1e20), TEXT._replace(n_tokens=10**12))
    assert time.process_time() - started < 2


def test_the_ends_of_the_family_are_reached_with_less_than_twice_the_optimal_ratio():
    for width in (FAMILY_WIDTHS[0], FAMILY_WIDTHS[-1]):
        tokens = 20 * family_plan(width, TEXT, 1).architecture.n_parameters
        endless = TEXT._replace(n_tokens=10**13)
        for factor in (1.05 / BEYOND, 0.95 * BEYOND):
            assert optimal_plan(reading(factor * tokens), endless).tokens == pytest.approx(factor * tokens, rel=1e-2)
