"""IsoFLOP curves: the bottom of each, the law through them, and curves that have none."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cerebras_gpt.plan.iso_flop import fit_iso_flop
from cerebras_gpt.plan.laws import HOFFMANN
from cerebras_gpt.plan.points import Point

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from law_coverage import CASES, ON_ISO, covered, noisy

BUDGETS = [1e18, 1e19, 1e20, 1e21]
LEAST = HOFFMANN.optimum(1e18)


def curves(spread=3.0, n_sizes=7):
    """Exact losses of Hoffmann's law around its optimum at each budget."""
    factors = np.geomspace(1 / spread, spread, n_sizes)
    shapes = [(c, HOFFMANN.optimum(c).n_parameters * k) for c in BUDGETS for k in factors]
    return [Point(n, c / 6 / n, HOFFMANN.loss(n, c / 6 / n), c) for c, n in shapes]


def test_exact_parabolas_give_back_the_law_of_the_best_size():
    growth, scale = fit_iso_flop(ON_ISO).constants()
    assert growth.value == pytest.approx(0.5, abs=1e-9) and scale.value == pytest.approx(0.1, rel=1e-6)


def test_bottoms_lie_near_the_optimum_of_a_law_that_is_no_parabola():
    for minimum in fit_iso_flop(curves(spread=1.5)).minima:
        n, d = HOFFMANN.optimum(minimum.flops)
        assert (minimum.n_parameters, minimum.n_tokens) == pytest.approx((n, d), rel=0.01)
        assert minimum.loss == pytest.approx(HOFFMANN.loss(n, d), rel=1e-4)


def test_wide_curves_bend_the_bottoms_towards_large_models():
    wide, narrow = (fit_iso_flop(curves(spread)).minima[0].n_parameters for spread in (10.0, 1.5))
    assert wide > 1.03 * narrow


def test_budgets_that_differ_a_little_are_one():
    points = [replace(p, flops=p.flops * f) for p, f in zip(ON_ISO, np.tile([1, 1.01], 18)[:35], strict=True)]
    assert len(fit_iso_flop(points).budgets) == 5


def test_constants_are_inside_their_interval_as_often_as_stated():
    assert all(share >= 0.88 for share in covered(CASES["isoflop-5x7"], trials=60).values())


def test_the_best_size_of_a_larger_budget_is_inside_its_interval():
    points = noisy(ON_ISO, 0.002, np.random.default_rng(3))
    best, low, high = fit_iso_flop(points).optimal_parameters(1e23)
    assert low < 0.1 * 1e23**0.5 < high and low < best < high


def test_a_curve_that_still_falls_at_its_end_is_refused():
    small = [p for p in curves(spread=8, n_sizes=13) if p.flops > 1e18 or p.n_parameters < 0.5 * LEAST.n_parameters]
    with pytest.raises(ValueError, match=r"at 1e\+18 FLOPs the loss is least at an end of the sizes; train larger"):
        fit_iso_flop(small)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (curves()[:14], "at least 3 budgets, 2 given"),
        (curves(n_sizes=3), r"the budget of 1e\+18 FLOPs needs at least 4 sizes"),
        ([replace(p, n_parameters=None) for p in curves()], "point 1 has no n_parameters"),
    ],
)
def test_points_that_make_no_curves_are_refused(points, words):
    with pytest.raises(ValueError, match=words):
        fit_iso_flop(points)
