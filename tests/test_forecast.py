"""The forecast beside a run: shown, warned of once, and silent where nothing can be known."""

from dataclasses import replace

import pytest

from cerebras_gpt.distributed import World
from cerebras_gpt.plan.plan import Prediction
from cerebras_gpt.record import read_metrics
from cerebras_gpt.train.forecast import BETTER, RISING, WORSE, Watch
from cerebras_gpt.train.pretrain import pretrain

BAND = Prediction("a law", 1.4, 1.3, 1.5)


def scored(*losses):
    return [{"kind": "held_out", "bits_per_byte": loss} for loss in losses]


def test_the_band_is_shown_only_where_there_is_one():
    assert Watch(None).words == ""
    assert Watch(BAND).words == ", forecast 1.3000 to 1.5000 at the end"


@pytest.mark.parametrize(("loss", "causes"), [(1.6, WORSE), (1.2, BETTER)])
def test_an_end_outside_is_told_with_likely_causes(loss, causes):
    assert causes in Watch(BAND).doubt(loss, True, scored(3.0, 2.0))


@pytest.mark.parametrize(("loss", "at_end"), [(1.45, True), (2.5, False), (1.2, False), (1.79, False)])
def test_nothing_is_said_where_nothing_is_known(loss, at_end):
    assert Watch(BAND).doubt(loss, at_end, scored(3.0, 1.6)[: 2 if loss < 2 else 1]) == ""
    assert Watch(None).doubt(9.0, True, scored(1.0)) == ""


def test_a_loss_that_rises_by_more_than_the_band_is_told():
    assert RISING in Watch(BAND).doubt(1.85, False, scored(3.0, 1.6, 1.7))


def test_a_run_outside_its_forecast_warns_once(tiny, data, tmp_path, capsys):
    plan = replace(tiny, prediction=Prediction("a law", 0.11, 0.1, 0.12))
    pretrain(plan, data, tmp_path, World())
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "doubt"]
    assert [row["step"] for row in rows] == [plan.steps]
    said = " ".join(capsys.readouterr().err.split())
    assert "forecast 0.1000 to 0.1200 at the end" in said and said.count("warning:") == 1
    assert Watch(plan.prediction).doubt(9.0, True, rows) == ""
