"""The law of compute: the paper's from its table, known constants from noise, and honesty about what is not known."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cerebras_gpt.plan.certainty import deviations, judged, leave_largest_out, reach
from cerebras_gpt.plan.laws import PUBLISHED_SP, PowerLaw
from cerebras_gpt.plan.points import Point
from cerebras_gpt.plan.power_law import fit_power
from cerebras_gpt.plan.published import published_points
from cerebras_gpt.plan.robust_law import fit_robust

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from law_coverage import CASES, covered

SP, MUP = published_points("sp"), published_points("mup")


def along(law, computes, noise=0.0, seed=0):
    factors = np.exp(noise * np.random.default_rng(seed).standard_normal(len(computes)))
    return [Point(None, None, law.loss(c) * f, float(c)) for c, f in zip(computes, factors, strict=True)]


def test_the_table_gives_the_losses_of_the_published_equation_within_a_thousandth():
    fit = fit_power(SP)
    for point in SP:
        assert fit.expected(point) == pytest.approx(PUBLISHED_SP.loss(point.flops), rel=1e-3)


@pytest.mark.parametrize("points", [SP, SP[:6]], ids=["7", "6"])
def test_the_published_constants_lie_in_the_valley_of_the_table(points):
    fit = fit_power(points)
    assert fit.holds(PUBLISHED_SP)
    for constant in fit.constants():
        assert constant.low <= getattr(PUBLISHED_SP, constant.name) <= constant.high


def test_constants_moved_across_the_valley_are_refused_and_along_it_allowed():
    fit = fit_power(SP)
    assert not fit.holds(replace(PUBLISHED_SP, exponent=1.05 * PUBLISHED_SP.exponent))
    assert not fit.holds(replace(PUBLISHED_SP, irreducible=0.55))
    for a in (0.06, 0.09):  # the other two follow
        assert fit.holds(fit.law_at(a))


def test_the_largest_is_predicted_inside_the_interval_from_the_rest():
    verdict = leave_largest_out(fit_power, SP)
    assert verdict.name == "sp 13B" and verdict.is_inside
    assert verdict.error == pytest.approx(-0.0168, abs=2e-4)  # three constants from six runs of 0.9 % noise


def test_without_an_irreducible_loss_13b_is_predicted_within_half_a_percent():
    verdict = leave_largest_out(lambda points: fit_power(points, irreducible=0.0), SP)
    assert abs(verdict.error) < 0.005 and verdict.is_inside


def test_mup_2_7b_is_predicted_within_a_fifth_of_a_percent():
    verdict = leave_largest_out(fit_power, MUP)
    assert abs(verdict.error) < 0.002 and verdict.is_inside


def test_every_larger_run_is_inside_the_interval_from_the_smaller_ones():
    assert all(judged(fit_power(SP[:k]), SP[k], "").is_inside for k in range(4, 7))


@pytest.mark.parametrize("fit", [fit_power, fit_robust])
def test_exact_points_give_back_the_constants(fit):
    found = fit(along(PUBLISHED_SP, np.geomspace(1e18, 1e22, 8)))
    for name in ("exponent", "irreducible"):
        assert getattr(found.law, name) == pytest.approx(getattr(PUBLISHED_SP, name), rel=1e-4)
    assert math.log(found.law.scale_flops) == pytest.approx(math.log(PUBLISHED_SP.scale_flops), rel=1e-4)


def test_the_profile_is_least_squares():
    points = along(PUBLISHED_SP, np.geomspace(1e18, 1e22, 8), noise=0.01)
    fit = fit_power(points)
    best = sum(d * d / (1 + d) ** 2 for d in deviations(fit))
    generator = np.random.default_rng(1)
    for _ in range(200):
        a, f0, c = np.exp(0.02 * generator.standard_normal(3))
        law = PowerLaw(fit.law.exponent * a, fit.law.scale_flops * f0, fit.law.irreducible * c, "cerebras")
        assert sum((law.loss(p.flops) / p.loss - 1) ** 2 for p in points) >= best * (1 - 1e-9)


def test_a_given_irreducible_loss_stays_and_narrows_the_rest():
    free, given = fit_power(SP), fit_power(SP, irreducible=0.5066)
    assert given.law.irreducible == 0.5066
    widths = [[c.high - c.low for c in fit.constants()] for fit in (free, given)]
    assert widths[1][0] < widths[0][0] / 3 and widths[1][2] == 0


def test_intervals_grow_with_distance_and_level():
    fit = fit_power(SP)
    far = [np.diff(fit.interval(Point(None, None, 0, c)))[0] / fit.law.loss(c) for c in (1e22, 1e24, 1e26)]
    assert far == sorted(far)
    low, high = fit.interval(SP[3], 0.5)
    assert fit.interval(SP[3], 0.9)[0] < low < fit.expected(SP[3]) < high < fit.interval(SP[3], 0.9)[1]
    inner = fit.curve_interval(SP[3].flops, 0.9)
    assert fit.interval(SP[3], 0.9)[0] < inner[0] < inner[1] < fit.interval(SP[3], 0.9)[1]


def test_units_of_compute_and_loss_do_not_matter():
    fit = fit_power(SP)
    other = fit_power([replace(p, flops=p.flops * 1e-18, loss=p.loss * 3) for p in SP])
    assert other.law.exponent == pytest.approx(fit.law.exponent, rel=1e-6)
    assert other.law.irreducible == pytest.approx(3 * fit.law.irreducible, rel=1e-5)
    assert other.interval(Point(None, None, 0, 1e5))[0] == pytest.approx(
        3 * fit.interval(Point(None, None, 0, 1e23))[0]
    )


@pytest.mark.parametrize("name", ["power-7", "power-7-without-c"])
def test_constants_are_inside_their_interval_as_often_as_stated(name):
    shares = covered(CASES[name], trials=60)
    assert all(0.87 <= share <= 1 for key, share in shares.items() if key != "prediction")
    assert 0.78 <= shares["prediction"] <= 0.98


def test_a_robust_fit_shrugs_off_one_broken_run():
    points = along(PUBLISHED_SP, np.geomspace(1e18, 1e22, 10), noise=5e-4)
    points[4] = replace(points[4], loss=1.2 * points[4].loss)
    asked = Point(None, None, 0, 1e23)
    assert fit_robust(points).expected(asked) == pytest.approx(PUBLISHED_SP.loss(1e23), rel=0.01)
    assert abs(deviations(fit_robust(points))[4] - 0.2) < 0.01


def test_reach_tells_inside_from_beyond_from_too_far():
    assert reach(SP, 1e20).beyond == 0 and "inside" in str(reach(SP, 1e20))
    assert reach(SP, 5e22).beyond > 0 and not reach(SP, 5e22).is_too_far
    assert reach(SP, 1e24).is_too_far and "further than the data supports" in str(reach(SP, 1e24))
    assert reach(SP, 1e16).is_too_far
    assert reach(along(PUBLISHED_SP, [1e18, 2e18, 4e18, 8e18]), 9e18).is_too_far


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (SP[:3], "a power law needs at least 4 finished runs, 3 given; train more sizes"),
        ([SP[0]] * 5, "fewer than 3 different computes"),
        ([*SP, replace(SP[0], loss=math.nan)], "has loss nan; it must be finite and positive"),
        ([*SP, replace(SP[0], flops=-1.0)], "has flops -1; it must be finite and positive"),
        ([*SP, replace(SP[0], flops=None, name="mine")], "mine has no flops, which this law needs"),
        ([replace(p, loss=1 / p.loss) for p in SP], "the losses do not fall with compute"),
    ],
)
def test_points_that_make_no_law_are_refused(points, words):
    with pytest.raises(ValueError, match=words):
        fit_power(points)


@pytest.mark.parametrize("c", [-0.1, 1.6, math.nan])
def test_an_irreducible_loss_that_cannot_be_is_refused(c):
    with pytest.raises(ValueError, match="must be 0 or more and below all losses"):
        fit_power(SP, irreducible=c)
