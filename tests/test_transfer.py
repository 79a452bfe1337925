"""The best rate is found between the rates of a grid, and its drift over widths decides."""

import math
from dataclasses import replace

import pytest

from cerebras_gpt.plan.families import Base, mup
from cerebras_gpt.train.coordinates import sweep
from cerebras_gpt.train.crew import Processes
from cerebras_gpt.train.transfer import Transfer, optimum, rates_around, transfer, trials

RATES = rates_around(0.01, 3)


def bowl(centre):
    """Losses of a parabola in log2 of the rate."""
    return tuple(3 + 0.1 * (math.log2(rate) - math.log2(centre)) ** 2 for rate in RATES)


@pytest.mark.parametrize("centre", [0.0031, 0.01, 0.017])
def test_a_parabola_s_lowest_point_is_found_between_the_rates(centre):
    best = optimum(64, RATES, bowl(centre))
    assert best.log2_rate == pytest.approx(math.log2(centre))
    assert best.inside


def test_a_rate_at_the_end_of_the_grid_is_not_inside():
    assert not optimum(64, RATES, bowl(1.0)).inside
    assert not optimum(64, RATES, bowl(1e-5)).inside


def test_a_rate_beside_one_that_diverges_counts_as_it_stands():
    losses = (*bowl(0.01)[:4], *[math.inf] * 3)
    assert optimum(64, RATES, losses) == (64, math.log2(RATES[3]), True)


def test_rates_that_stay_hold_and_rates_that_fall_with_the_width_do_not():
    stays = Transfer(RATES, {64: bowl(0.01), 128: bowl(0.012), 256: bowl(0.009)})
    falls = Transfer(RATES, {64: bowl(0.02), 128: bowl(0.01), 256: bowl(0.005)})
    assert stays.holds
    assert not falls.holds
    assert falls.drift == pytest.approx(-2)
    assert str(falls) == "the best rate moves -2.00 octaves from width 64 to 256 (allowed: less than 1)"


def test_an_optimum_outside_the_grid_decides_nothing():
    ends = Transfer(RATES, {64: bowl(1.0), 128: bowl(1.0)})
    assert not ends.holds
    assert "give more rates" in str(ends)


@pytest.fixture
def made(tiny):
    def table(shape):
        return mup(shape, Base(d_model=16, init_std=0.08, embedding_scale=10.0))

    shape = replace(tiny.architecture, d_model=16, n_heads=2)
    return sweep(replace(tiny, architecture=shape, parametrization=table(shape)), table, "width", (16, 32, 64))


def test_each_trial_warms_up_and_falls_to_a_tenth(made):
    asked = trials(made, RATES, 40)
    assert len(asked) == 3 * len(RATES)
    assert {(t.plan.steps, t.plan.warmup_steps, t.plan.final_lr_fraction) for t in asked} == {(40, 4, 0.1)}
    assert [t.plan.peak_lr for t in asked[: len(RATES)]] == list(RATES)


def test_two_rates_are_too_few(made, data, tmp_path):
    with pytest.raises(ValueError, match="give 3 or more"):
        transfer(made, (0.1, 0.2), 6, data, tmp_path / "trials.jsonl", workers=Processes(1))
