"""Minutes become a size: the one with the least predicted loss at the speed that was measured."""

import json
from pathlib import Path

import pytest

from cerebras_gpt.plan.budget import (
    BATCH_SIZE,
    SMALL_RUNS,
    Text,
    law_loss,
    pilot_of,
    predicted,
    size_for,
    small_plan,
    steps_in,
    surplus,
    vocabulary_for,
)
from cerebras_gpt.plan.flops import matmul_flops_per_token
from cerebras_gpt.plan.laws import effective_tokens
from cerebras_gpt.plan.sizes import MUP_PEAK_LR, WIDTHS

TEXT = Text(vocab_size=4096, n_tokens=2_700_000, n_bytes=11_400_000)
ENDLESS = Text(vocab_size=4096, n_tokens=10**13, n_bytes=4 * 10**13)


def machine(flops_per_second):
    """A machine as fast at every size."""
    return lambda plan: flops_per_second / matmul_flops_per_token(plan.architecture)


def all_losses(minutes, text, speed):
    plans = [
        small_plan(width, text, steps_in(minutes, small_plan(width, text, 2), speed(small_plan(width, text, 2))))
        for width in WIDTHS
    ]
    return {plan.architecture.d_model: law_loss(plan, text) for plan in plans}


@pytest.mark.parametrize("minutes", [0.5, 5, 60, 600])
@pytest.mark.parametrize("text", [TEXT, ENDLESS])
def test_climbing_finds_the_best_of_all_widths(minutes, text):
    speed = machine(1.5e11)
    losses = all_losses(minutes, text, speed)
    assert losses[size_for(minutes, text, speed)] == min(losses.values())


def test_more_time_or_a_faster_machine_never_asks_for_a_smaller_model():
    sizes = [size_for(minutes, ENDLESS, machine(1e11)) for minutes in (0.2, 2, 20, 200, 2000)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    assert size_for(20, ENDLESS, machine(1e12)) == size_for(200, ENDLESS, machine(1e11))


def test_only_the_sizes_on_the_way_are_measured():
    asked = []
    size_for(5, TEXT, lambda plan: asked.append(plan.architecture.d_model) or machine(1.5e11)(plan))
    assert len(asked) == len(set(asked)) < len(WIDTHS)


@pytest.mark.parametrize(
    ("n_bytes", "expected"),
    [
        (10, 512),
        (300_000, 1024),
        (1_060_000, 2048),
        (4_800_000, 4096),
        (11_400_000, 8192),
        (10**9, 32768),
        (10**12, 32768),
    ],
)
def test_the_vocabulary_follows_the_square_root_of_the_text(n_bytes, expected):
    assert vocabulary_for(n_bytes) == expected


def test_the_law_is_the_one_that_was_fitted():
    newest = max((Path(__file__).parents[1] / "benchmarks" / "results").glob("*small-runs.json"))
    found = json.loads(newest.read_text())
    for name, value in {**found["law"], "band": found["band"]}.items():
        assert getattr(SMALL_RUNS, name) == pytest.approx(value, rel=6e-3), name


def test_a_small_plan_is_the_published_recipe_at_another_width():
    plan = small_plan(768, TEXT, 1000)
    assert (plan.architecture.n_layers, plan.architecture.n_heads) == (10, 12)  # 111M
    assert plan.peak_lr == MUP_PEAK_LR and plan.parametrization.width_multiplier == 3
    assert plan.warmup_steps == 50 and plan.batch_size == BATCH_SIZE


def test_repeated_text_is_worth_less_than_new_text_and_never_more_than_its_limit():
    assert effective_tokens(50, 100) == 50
    assert effective_tokens(100, 100) == 100
    assert 190 < effective_tokens(200, 100) < 200
    assert effective_tokens(1e9, 100) == pytest.approx(100 * (1 + 15.39))


def test_the_prediction_carries_the_pilot_on_by_the_law():
    plan = small_plan(128, TEXT, 2000)
    pilot = pilot_of(plan)
    assert pilot.steps == 100 and pilot.architecture == plan.architecture
    found = predicted(plan, pilot, 2.0, TEXT, 5).prediction
    assert found.bits_per_byte == pytest.approx(2.0 * law_loss(plan, TEXT) / law_loss(pilot, TEXT))
    assert found.low < found.bits_per_byte < found.high < 2.0 * (1 + SMALL_RUNS.band)


def test_a_time_too_long_for_the_text_is_told_with_the_one_that_suffices():
    plan = small_plan(128, TEXT, 100_000)  # 76 epochs
    (caution,) = surplus(plan, TEXT, 60)
    enough = float(caution.rpartition(" ")[2])
    assert enough == pytest.approx(60 * 40 * TEXT.n_tokens / plan.tokens, rel=1e-2)
    assert surplus(small_plan(128, TEXT, 1000), TEXT, 60) == ()
