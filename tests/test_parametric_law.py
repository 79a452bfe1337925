"""The law of parameters and tokens: known constants from noise, one broken run, few ratios, and its interval."""

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from cerebras_gpt.plan.certainty import judged, leave_largest_out
from cerebras_gpt.plan.laws import HOFFMANN, ParametricLaw
from cerebras_gpt.plan.parametric_law import fit_parametric
from cerebras_gpt.plan.points import Point
from cerebras_gpt.plan.power_terms import HUBER, fit_huber, huber_loss, log_loss, refits

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from law_coverage import CASES, covered

SMALL = ParametricLaw(E=0.9, A=60.0, alpha=0.33, B=90.0, beta=0.32)


def runs(law: ParametricLaw, sizes: list[float], ratios: list[float], noise: float, seed: int = 0) -> list[Point]:
    generator = np.random.default_rng(seed)
    shapes = [(n, n * ratio) for n in sizes for ratio in ratios]
    return [Point(n, d, law.loss(n, d) * math.exp(noise * generator.standard_normal())) for n, d in shapes]


@pytest.mark.parametrize(
    ("law", "sizes", "ratios"),
    [(HOFFMANN, [1e8, 3e8, 1e9, 3e9, 1e10], [2, 7, 20, 60, 200]), (SMALL, [3e5, 1e6, 3e6, 1e7], [5, 10, 20, 40])],
)
def test_a_fit_recovers_the_constants(law, sizes, ratios):
    fitted = fit_parametric(runs(law, sizes, ratios, noise=5e-4))
    for name in ("E", "alpha", "beta"):
        assert getattr(fitted.law, name) == pytest.approx(getattr(law, name), rel=0.03), name
    for name in ("A", "B"):
        assert getattr(fitted.law, name) == pytest.approx(getattr(law, name), rel=0.25), name


def test_a_fit_predicts_ten_times_further():
    fitted = fit_parametric(runs(SMALL, [3e5, 1e6, 3e6, 1e7], [5, 10, 20, 40], noise=2e-3))
    assert fitted.law.loss(1e8, 2e9) == pytest.approx(SMALL.loss(1e8, 2e9), rel=0.02)


def test_a_fit_shrugs_off_one_broken_run():
    points = runs(SMALL, [3e5, 1e6, 3e6, 1e7], [5, 10, 20, 40], noise=5e-4)
    points[5] = dataclasses.replace(points[5], loss=1.3 * points[5].loss)
    assert fit_parametric(points).law.loss(1e7, 2e8) == pytest.approx(SMALL.loss(1e7, 2e8), rel=0.005)


def test_the_band_holds_nine_of_ten_residuals():
    points = runs(HOFFMANN, list(np.geomspace(1e8, 1e10, 9)), [2, 5, 10, 20, 40, 80, 160], noise=0.01)
    law = fit_parametric(points).law
    assert law.band == pytest.approx(1.645 * 0.01, rel=0.3)
    inside = [
        law.interval(n, d)[0] <= loss <= law.interval(n, d)[1]
        for n, d, loss in ((p.n_parameters, p.n_tokens, p.loss) for p in points)
    ]
    assert 0.8 <= sum(inside) / len(inside) <= 0.98


def test_runs_of_one_ratio_still_give_the_loss_along_it():
    fitted = fit_parametric(runs(SMALL, list(np.geomspace(3e5, 3e7, 7)), [20], noise=0))
    assert fitted.law.loss(1e7, 2e8) == pytest.approx(SMALL.loss(1e7, 2e8), rel=1e-3)


def test_too_few_runs_are_refused():
    with pytest.raises(ValueError, match="at least 6 finished runs, 5 given"):
        fit_parametric(runs(SMALL, [1e6], [1, 2, 3, 4, 5], noise=0))


@pytest.mark.parametrize("loss", [0.0, -1.0, math.nan, math.inf])
def test_a_run_without_a_loss_is_refused(loss):
    points = [*runs(SMALL, [1e6, 1e7], [5, 10, 20], noise=0), Point(1e6, 2e7, loss)]
    with pytest.raises(ValueError, match="must be finite and positive"):
        fit_parametric(points)


def test_one_size_for_all_runs_is_refused():
    with pytest.raises(ValueError, match="all runs have the same parameters"):
        fit_parametric(runs(SMALL, [1e6], [1, 2, 3, 4, 5, 6, 7], noise=0))


def test_constants_are_inside_their_interval_as_often_as_stated():
    shares = covered(CASES["parametric-16"], trials=24)
    assert all(share >= 0.8 for key, share in shares.items() if key != "prediction")
    assert shares["prediction"] >= 0.7


def test_the_largest_run_is_predicted_from_the_rest():
    verdict = leave_largest_out(fit_parametric, runs(SMALL, [3e5, 1e6, 3e6, 1e7], [5, 10, 20, 40], noise=2e-3))
    assert verdict.is_inside and abs(verdict.error) < 0.01


def test_the_interval_is_wider_further_out():
    fit = fit_parametric(runs(SMALL, [3e5, 1e6, 3e6, 1e7], [5, 10, 20, 40], noise=2e-3, seed=1))
    widths = []
    for n in (3e6, 1e8, 1e10):
        seen = judged(fit, Point(n, 20 * n, SMALL.loss(n, 20 * n)), "")
        assert seen.is_inside
        widths.append(math.log(seen.high / seen.low))
    assert widths == sorted(widths)


def test_many_refits_are_as_good_as_one_by_one():
    points = runs(HOFFMANN, [1e8, 1e9, 1e10], [5, 20, 80], noise=0.003)
    logs = np.log([[p.n_parameters, p.n_tokens] for p in points]).T
    x, target = logs - logs.mean(axis=1, keepdims=True), np.log([p.loss for p in points])
    best = fit_huber(x, np.exp(target), 0.01)
    targets = log_loss(best, x) + 0.003 * np.random.default_rng(0).standard_normal((5, len(points)))
    found = refits(np.tile(best, (5, 1)), x, targets, 0.01)
    for constants, one in zip(found, targets, strict=True):
        alone = huber_loss(log_loss(fit_huber(x, np.exp(one), 0.01), x) - one, 0.01)
        assert huber_loss(log_loss(constants, x) - one, 0.01) <= 1.001 * alone


def test_quiet_runs_are_weighed_as_by_hoffmann():
    assert fit_parametric(runs(HOFFMANN, [1e8, 1e9, 1e10], [5, 20, 80], noise=1e-4)).terms.huber == HUBER
