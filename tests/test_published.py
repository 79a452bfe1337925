"""The published runs: as printed, and as far from the published law as the paper says."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from cerebras_gpt.plan.inference import Cost, crossover, equal_loss_cost, inference_flops
from cerebras_gpt.plan.laws import PUBLISHED_SP
from cerebras_gpt.plan.power_law import fit_power
from cerebras_gpt.plan.published import SOURCES, published, published_points

PUBLISHED = json.loads((Path(__file__).parent / "golden" / "published.json").read_text("utf-8"))
COUNTS = {"sp": 7, "mup": 5, "pythia": 8, "pythia-dedup": 8, "gpt-j": 1, "neox": 1}
ABOVE = {"70M": 21.8, "160M": 12.0, "410M": 6.4, "1B": 3.6, "1.4B": 2.6, "2.8B": 1.8, "6.9B": 0.5, "12B": 0.3}
CROSSOVERS = {"6.9B": 209, "1.4B": 263, "1B": 291, "2.8B": 314, "12B": 858}
BY_NAME = {(row.family, row.name): row for row in published()}


def off(row):
    """Percent above the published law."""
    return 100 * (row.loss / PUBLISHED_SP.loss(row.flops) - 1)


def off_of(family):
    return np.array([off(row) for row in published() if row.family == family])


def test_every_family_is_whole_and_has_a_source():
    assert {family: len(published_points(family)) for family in SOURCES} == COUNTS


@pytest.mark.parametrize("row", published(), ids=lambda row: f"{row.family}-{row.name}")
def test_the_formula_prints_the_flops_of_the_tables(row):
    assert f"{row.flops:.1e}".replace("e+", "e") == row.printed_flops


@pytest.mark.parametrize("name", PUBLISHED["sizes"])
def test_losses_of_the_family_are_the_published_ones(name):
    assert BY_NAME["sp", name].loss == PUBLISHED["sizes"][name]["loss"]
    assert name not in PUBLISHED["mup"] or BY_NAME["mup", name].loss == PUBLISHED["mup"][name]["loss"]


@pytest.mark.parametrize("name", ABOVE)
def test_pythia_is_the_published_one_and_as_far_above_the_law(name):
    row, golden = BY_NAME["pythia", name], PUBLISHED["others"][f"Pythia {name}"]
    assert (row.loss, row.n_tokens, row.printed_flops) == (golden["loss"], golden["tokens"], golden["flops_table"])
    assert off(row) == pytest.approx(ABOVE[name], abs=0.06)


@pytest.mark.parametrize(("family", "percent"), [("gpt-j", 0.5), ("neox", 1.2)])
def test_the_large_ones_lie_as_far_above_the_law_as_published(family, percent):
    assert off_of(family) == pytest.approx([percent], abs=0.06)


def test_only_the_figure_out_of_line_is_flagged():
    assert [(row.family, row.name) for row in published() if row.note] == [("pythia-dedup", "1.4B")]
    row = BY_NAME["pythia-dedup", "1.4B"]
    assert row.loss > max(BY_NAME["pythia-dedup", "1B"].loss, BY_NAME["pythia", "1.4B"].loss)


def test_mup_is_better_by_the_published_0_43_percent():
    assert off_of("mup").mean() == pytest.approx(-0.43, abs=0.005)


def test_mup_is_as_much_more_predictable_as_published():
    spread = {}
    for family in ("mup", "sp"):
        fit = fit_power(published_points(family))
        spread[family] = np.std([100 * (point.loss / fit.expected(point) - 1) for point in fit.points])
    assert spread["mup"] == pytest.approx(0.04, abs=0.005)
    assert 0.66 <= spread["sp"] <= 0.72 and 0.66 <= off_of("sp").std() <= 0.72
    assert spread["sp"] / spread["mup"] > 16


@pytest.mark.parametrize("name", CROSSOVERS)
def test_pythia_is_cheaper_after_as_many_tokens_of_inference_as_published(name):
    theirs, largest = BY_NAME["pythia", name], BY_NAME["sp", "13B"]
    ours = equal_loss_cost(theirs.loss, PUBLISHED_SP, largest.n_parameters, largest.flops)
    tokens = crossover(ours, Cost(theirs.flops, inference_flops(theirs.n_parameters)))
    assert tokens == pytest.approx(1e9 * CROSSOVERS[name], rel=0.003)


def test_an_unknown_family_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="unknown published family 'pythai'; did you mean 'pythia'"):
        published_points("pythai")


def test_the_published_law_gives_back_the_compute_of_a_loss():
    for flops in (1e18, 1e21, 1e24):
        assert PUBLISHED_SP.flops(PUBLISHED_SP.loss(flops)) == pytest.approx(flops, rel=1e-9)
    with pytest.raises(ValueError, match=r"no compute reaches a loss of 0.5; this law ends at 0.5066"):
        PUBLISHED_SP.flops(0.5)
    with pytest.raises(ValueError, match="no compute reaches"):
        PUBLISHED_SP.flops(math.nan)
