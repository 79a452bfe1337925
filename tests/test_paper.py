"""The pages about the paper hold the figures of today."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "benchmarks" / "results"
PROGRAM = runpy.run_path(str(ROOT / "benchmarks" / "paper"))


@pytest.mark.parametrize("name", PROGRAM["PAGES"])
def test_the_tables_are_those_of_today(name):
    page = (ROOT / "docs" / name).read_text("utf-8")
    assert PROGRAM["filled"](page) == page, "run: python benchmarks/paper"


def test_every_table_is_on_a_page():
    text = "".join((ROOT / "docs" / name).read_text("utf-8") for name in PROGRAM["PAGES"])
    assert all(f"<!-- table: {name} -->" in text for name in PROGRAM["tables"]())


def test_the_measured_figures_keep_their_bounds():
    parity, nano = (
        json.loads((MEASURED / f"2026-11-23-{name}.json").read_text("utf-8")) for name in ("parity", "nano-sort")
    )
    real = [figures for name, figures in parity.items() if name.startswith("111M")]
    compared = [*parity["miniature"].values(), *parity["variants"].values(), *real, parity["lockstep"]]
    assert max(figures.get("logits", 0.0) for figures in compared) <= 1e-5
    assert max(figures.get("gradients", 0.0) for figures in compared) <= 1e-5
    assert max(figures.get("losses", 0.0) for figures in compared) <= 1e-4
    assert max(parity["folded"].values()) <= 1e-5
    assert nano["largest"] <= 2e-6
    assert nano["sorted"] == [729, 729]
