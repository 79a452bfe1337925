"""The whole walk, as the main job does it: text in; a model that speaks, and a report, out."""

import json
import shutil

import pytest

from cerebras_gpt import checkpoint
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.quickstart import Quickstart
from cerebras_gpt.record import read_metrics


@pytest.fixture(scope="module")
def text(tmp_path_factory, documents):
    file = tmp_path_factory.mktemp("text") / "text.jsonl"
    file.write_text("".join(json.dumps({"text": document.text}) + "\n" for document in documents))
    return file


@pytest.fixture(scope="module")
def walked(tmp_path_factory, text):
    out = tmp_path_factory.mktemp("walk") / "run"
    Quickstart(out, minutes=0.03, data=(str(text),)).run()
    return out


def test_it_leaves_a_model_that_learned_and_speaks(walked):
    rows = read_metrics(walked / "metrics.jsonl")
    held_out = [row["bits_per_byte"] for row in rows if row["kind"] == "held_out"]
    assert held_out[-1] < held_out[0]
    assert any(row["kind"] == "sample" for row in rows)
    lm = LM.load(walked)
    sampling = Sampling(temperature=0)
    assert lm.generate("the cat", 10, sampling) == lm.generate("the cat", 10, sampling) != ""


def test_its_plan_predicts_a_loss_with_a_band_and_says_why(walked):
    plan = Plan.load(walked)
    assert plan.prediction.low < plan.prediction.bits_per_byte < plan.prediction.high
    assert any("pilot" in reason for reason in plan.reasons)


def test_its_report_is_one_page_that_loads_nothing(walked):
    page = (walked / "report.html").read_text()
    assert "<svg" in page and "byte 5-gram" in page
    assert "<script" not in page


def test_run_again_it_only_says_what_is_there(walked, text, capsys):
    before = (walked / "metrics.jsonl").read_text()
    Quickstart(walked, minutes=0.03, data=(str(text),)).run()
    assert read_metrics(walked / "metrics.jsonl")[:5] == [json.loads(line) for line in before.splitlines()[:5]]
    assert checkpoint.resolve(walked).name == f"step_{Plan.load(walked).steps:08d}"


@pytest.mark.parametrize("missing", ["report.html", "baselines.json", "checkpoints", "plan.json"])
def test_whatever_an_interruption_left_out_is_made_again(walked, text, tmp_path, missing):
    run = tmp_path / "run"
    shutil.copytree(walked, run)
    if missing == "plan.json":  # broken off before the plan: nothing after it exists either
        for name in ("checkpoints", "metrics.jsonl", "report.html", "data.json", "calibration.json"):
            path = run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path = run / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    Quickstart(run, minutes=0.03, data=(str(text),)).run()
    assert path.exists() and (run / "report.html").exists()


def test_standard_input_is_refused_because_it_cannot_be_read_again(tmp_path):
    with pytest.raises(ValueError, match="give a file instead of standard input"):
        Quickstart(tmp_path / "run", minutes=1, data=("-",)).run()
    assert not (tmp_path / "run").exists()
