"""The machine is measured, and a plan on it."""

import json
from functools import partial

import pytest

from cerebras_gpt import bench as module
from cerebras_gpt.bench import bench, measure_bandwidth
from cerebras_gpt.plan.flops import matmul_flops_per_token
from cerebras_gpt.train.calibrate import candidates
from cerebras_gpt.train.speed import Stopwatch, measure_peak

QUICK = Stopwatch(0.0, fewest=1)


@pytest.fixture(autouse=True)
def small_things(monkeypatch):
    """Products and copies that take milliseconds."""
    monkeypatch.setattr(module, "measure_peak", partial(measure_peak, size=64))
    monkeypatch.setattr(module, "COPIED_BYTES", {"cpu": 2**16})


def test_every_candidate_is_measured_and_held_against_the_peak(tiny):
    found = bench(tiny, QUICK)
    assert all(trial.speed.tokens_per_second > 0 for trial in found.trials)
    assert sorted(map(str, (trial.execution for trial in found.trials))) == sorted(map(str, candidates(tiny)))
    best = found.trials[0]
    flops = best.speed.tokens_per_second * matmul_flops_per_token(tiny.architecture)
    assert found.share(best) == pytest.approx(flops / found.machine.peak_flops[best.execution.dtype])


def test_bandwidth_counts_what_is_read_and_written(monkeypatch):
    monkeypatch.setattr(Stopwatch, "time", lambda self, call: call() and 2.0)
    assert measure_bandwidth(QUICK, 2**12) == 2**12


def test_the_verb_tells_it_in_lines_and_json(tiny, tmp_path, call):
    (tmp_path / "plan.json").write_text(tiny.to_json())
    code, out, _ = call("bench", str(tmp_path), "--seconds", "0")
    assert code == 0
    assert all(word in out for word in ("matrix products", "GB/s copied", "tokens/s", "chosen"))
    code, out, _ = call("bench", str(tmp_path), "--seq-len", "8", "--seconds", "0", "--json")
    told = json.loads(out)
    assert code == 0 and told["tokens_per_step"] == 32 and told["peak_bytes"] > 0
    assert {trial["dtype"] for trial in told["trials"]} == {"bfloat16", "float32"}


@pytest.mark.parametrize("arguments", [["112M"], ["111M", "--seconds", "-1"], ["111M", "--seq-len", "0"]])
def test_what_cannot_be_measured_is_one_line(call, arguments):
    code, out, err = call("bench", *arguments)
    assert code == 2 and out == "" and len(err.splitlines()) == 1
