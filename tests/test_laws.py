import json
import math
from pathlib import Path

import numpy as np
import pytest

from cerebras_gpt import config
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.laws import PUBLISHED_SP, ParametricLaw, Point, PowerLaw
from cerebras_gpt.plan.plan import published_plan

PUBLISHED = json.loads((Path(__file__).parent / "golden" / "published.json").read_text("utf-8"))
HOFFMANN = ParametricLaw(E=1.69, A=406.4, alpha=0.34, B=410.7, beta=0.28)
SMALL = ParametricLaw(E=0.9, A=60.0, alpha=0.33, B=90.0, beta=0.32)


def runs(law: ParametricLaw, sizes: list[float], ratios: list[float], noise: float, seed: int = 0) -> list[Point]:
    generator = np.random.default_rng(seed)
    shapes = [(n, n * ratio) for n in sizes for ratio in ratios]
    return [Point(n, d, law.loss(n, d) * math.exp(noise * generator.standard_normal())) for n, d in shapes]


def law_at(name: str) -> float:
    plan = published_plan(name)
    return PUBLISHED_SP.loss(training_flops(plan.architecture, plan.tokens, PUBLISHED_SP.formula))


def test_the_published_constants():
    for name, value in PUBLISHED["law"].items():
        assert getattr(PUBLISHED_SP, name) == value


@pytest.mark.parametrize("name", PUBLISHED["sizes"])
def test_the_published_law_passes_by_every_model_as_far_as_published(name):
    row = PUBLISHED["sizes"][name]
    assert law_at(name) == pytest.approx(row["law"], abs=2e-4)
    assert 100 * (row["loss"] / law_at(name) - 1) == pytest.approx(row["deviation_percent"], abs=0.02)


@pytest.mark.parametrize("name", PUBLISHED["mup"])
def test_mup_models_lie_below_the_published_law(name):
    row = PUBLISHED["mup"][name]
    assert 100 * (row["loss"] / law_at(name) - 1) == pytest.approx(row["deviation_percent"], abs=0.02)


def test_a_power_law_falls_to_its_irreducible_loss():
    law = PowerLaw(exponent=0.1, scale_flops=1e18, irreducible=0.5, formula="6nd")
    assert law.loss(1e18) == 1.5
    assert law.loss(1e18 * 2**10) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("law", "sizes", "ratios"),
    [(HOFFMANN, [1e8, 3e8, 1e9, 3e9, 1e10], [2, 7, 20, 60, 200]), (SMALL, [3e5, 1e6, 3e6, 1e7], [5, 10, 20, 40])],
)
def test_a_fit_recovers_the_constants(law, sizes, ratios):
    fitted = ParametricLaw.fit(runs(law, sizes, ratios, noise=5e-4))
    for name in ("E", "alpha", "beta"):
        assert getattr(fitted, name) == pytest.approx(getattr(law, name), rel=0.03), name
    for name in ("A", "B"):
        assert getattr(fitted, name) == pytest.approx(getattr(law, name), rel=0.25), name


def test_a_fit_predicts_ten_times_further():
    fitted = ParametricLaw.fit(runs(SMALL, [3e5, 1e6, 3e6, 1e7], [5, 10, 20, 40], noise=2e-3))
    assert fitted.loss(1e8, 2e9) == pytest.approx(SMALL.loss(1e8, 2e9), rel=0.02)


def test_a_fit_shrugs_off_one_broken_run():
    points = runs(SMALL, [3e5, 1e6, 3e6, 1e7], [5, 10, 20, 40], noise=5e-4)
    points[5] = points[5]._replace(loss=1.3 * points[5].loss)
    assert ParametricLaw.fit(points).loss(1e7, 2e8) == pytest.approx(SMALL.loss(1e7, 2e8), rel=0.005)


def test_the_band_holds_nine_of_ten_residuals():
    points = runs(HOFFMANN, list(np.geomspace(1e8, 1e10, 9)), [2, 5, 10, 20, 40, 80, 160], noise=0.01)
    law = ParametricLaw.fit(points)
    assert law.band == pytest.approx(1.645 * 0.01, rel=0.3)
    inside = [law.interval(n, d)[0] <= loss <= law.interval(n, d)[1] for n, d, loss in points]
    assert 0.8 <= sum(inside) / len(inside) <= 0.98


def test_runs_of_one_ratio_still_give_the_loss_along_it():
    fitted = ParametricLaw.fit(runs(SMALL, list(np.geomspace(3e5, 3e7, 7)), [20], noise=0))
    assert fitted.loss(1e7, 2e8) == pytest.approx(SMALL.loss(1e7, 2e8), rel=1e-3)


def test_too_few_runs_are_refused():
    with pytest.raises(ValueError, match="at least 6 runs, 5 given"):
        ParametricLaw.fit(runs(SMALL, [1e6], [1, 2, 3, 4, 5], noise=0))


@pytest.mark.parametrize("loss", [0.0, -1.0, math.nan, math.inf])
def test_a_run_without_a_loss_is_refused(loss):
    points = [*runs(SMALL, [1e6, 1e7], [5, 10, 20], noise=0), Point(1e6, 2e7, loss)]
    with pytest.raises(ValueError, match="must be finite and positive"):
        ParametricLaw.fit(points)


@pytest.mark.parametrize("law", [PUBLISHED_SP, HOFFMANN])
def test_a_law_survives_its_mapping(law):
    assert config.from_mapping(type(law), config.to_mapping(law)) == law
