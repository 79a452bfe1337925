"""At the end of a run its estimate stands beside what happened, in the record and on the screen."""

import mmap

import pytest

from cerebras_gpt.distributed import World
from cerebras_gpt.process import forget_peak_memory, peak_memory, resident_memory
from cerebras_gpt.record import read_metrics
from cerebras_gpt.train.account import Account
from cerebras_gpt.train.calibrate import Calibration, keep
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.pretrain import pretrain


def test_a_run_ends_with_its_account(tiny, data, tmp_path, capsys):
    keep(Calibration(Execution("float32", 2), 1.0, 1.0, predicted_seconds=5.0), tmp_path)
    trainer = pretrain(tiny, data, tmp_path, World())
    row = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert (row["kind"], row["step"], row["planned_seconds"]) == ("account", tiny.steps, 5.0)
    assert row["seconds"] == pytest.approx(trainer.seconds)
    assert row["peak_bytes"] > 1e8 and row["planned_bytes"] > 1e8
    assert "planned 5 s, took" in capsys.readouterr().err


def test_a_finished_run_is_not_accounted_for_again(tiny, data, tmp_path):
    keep(Calibration(Execution("float32", 2), 1.0, 1.0, 1.0), tmp_path)
    for _ in range(2):
        pretrain(tiny, data, tmp_path, World())
    assert [row["kind"] for row in read_metrics(tmp_path / "metrics.jsonl")].count("account") == 1


def test_an_account_says_how_far_it_was_off():
    told = str(Account(planned_seconds=100, seconds=110, planned_bytes=10**9, peak_bytes=9 * 10**8))
    assert told == "planned 1 min 40 s, took 1 min 50 s (+10%); memory planned 1 GB, peak 0.9 GB (-10%)"
    assert "(" not in str(Account(0, 110, 10**9, 0))


def test_the_peak_begins_anew():
    with mmap.mmap(-1, 200_000_000) as held:  # not from an allocator, which may keep it
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        high = peak_memory()
    forget_peak_memory()
    assert resident_memory() <= peak_memory() < high
