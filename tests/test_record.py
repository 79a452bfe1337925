"""The record of a run is strict, whole and cut cleanly; progress reads well with and without a terminal."""

import io
import json
import math
import os
import resource
import signal
import tracemalloc

import pytest
from rich.console import Console

from cerebras_gpt import record
from cerebras_gpt.record import Metrics, Steps, duration, read_metrics, rows_of


@pytest.fixture
def metrics(tmp_path):
    return Metrics(tmp_path / "metrics.jsonl")


def test_rows_come_back_as_written(metrics):
    assert read_metrics(metrics.path) == []
    metrics.write("train", step=1, loss=2.5)
    metrics.write("sample", step=1, text="ein Süppchen\n\u2028<|endoftext|>")
    assert read_metrics(metrics.path) == [
        {"kind": "train", "step": 1, "loss": 2.5},
        {"kind": "sample", "step": 1, "text": "ein Süppchen\n\u2028<|endoftext|>"},
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_null(metrics, value):
    metrics.write("train", step=1, loss=value)
    assert json.loads(metrics.path.read_text(), parse_constant=pytest.fail)["loss"] is None


@pytest.mark.parametrize("length", [1, 10, 30])
def test_a_torn_last_line_is_no_row(metrics, length):
    for step in (1, 2):
        metrics.write("train", step=step, loss=1.0)
    content = metrics.path.read_bytes()
    metrics.path.write_bytes(content[: len(content) // 2 + length])
    assert [row["step"] for row in read_metrics(metrics.path)] == [1]
    metrics.cut(5)
    metrics.write("train", step=2, loss=1.0)
    assert [row["step"] for row in read_metrics(metrics.path)] == [1, 2]


def test_what_is_asked_of_a_long_record_takes_no_memory_of_its_length(metrics):
    metrics.write("held_out", step=0, loss=2.5)
    with metrics.path.open("a") as file:
        file.writelines(json.dumps({"kind": "train", "step": step, "loss": 1.5}) + "\n" for step in range(20_000))
    tracemalloc.start()
    assert rows_of(metrics.path, "held_out", "doubt") == [{"kind": "held_out", "step": 0, "loss": 2.5}]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_cut_drops_later_rows_only(metrics):
    for step in range(5):
        metrics.write("train", step=step)
    metrics.cut(2)
    assert [row["step"] for row in read_metrics(metrics.path)] == [0, 1, 2]


def test_a_cut_that_fails_changes_nothing(metrics, monkeypatch):
    for step in range(3):
        metrics.write("train", step=step)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        metrics.cut(1)
    assert len(read_metrics(metrics.path)) == 3
    assert [path.name for path in metrics.path.parent.iterdir()] == ["metrics.jsonl"]


def test_cut_drops_the_decisions_that_the_checkpoint_does_not_know(metrics):
    for step in (3, 1, 3):
        metrics.write("guard", step=step)
    metrics.write("train", step=2)
    metrics.cut(3, n_decisions=2)
    assert [(row["kind"], row["step"]) for row in read_metrics(metrics.path)] == [
        ("guard", 3),
        ("guard", 1),
        ("train", 2),
    ]


def test_a_cut_that_changes_nothing_needs_no_room(metrics, monkeypatch):
    metrics.write("train", step=1)
    monkeypatch.setattr(record, "replace_text", pytest.fail)
    metrics.cut(1)


def test_rows_that_a_full_disk_does_not_take_wait_and_come_in_order(metrics, caplog):
    """A file-size limit makes the kernel write a part of a row and then refuse, as a full disk does."""
    metrics.write("train", step=1, loss=1.5)
    room = len(metrics.path.read_bytes()) + 20
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        metrics.write("train", step=2, loss=1.5)
        metrics.write("train", step=3, loss=1.5)
        assert [row["step"] for row in read_metrics(metrics.path)] == [1]
        with pytest.raises(OSError, match=r"metrics\.jsonl"):
            metrics.write_waiting()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caplog.text.count("its rows wait in memory") == 1
    metrics.write("train", step=4, loss=1.5)
    assert [row["step"] for row in read_metrics(metrics.path)] == [1, 2, 3, 4]


def test_cut_of_what_is_not_there_makes_nothing(metrics):
    metrics.cut(0)
    assert not metrics.path.exists()


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (4.2, "4 s"), (59.6, "1 min 00 s"), (75, "1 min 15 s"), (3700, "1 h 01 min")]
)
def test_a_time_is_said_as_people_do(seconds, said):
    assert duration(seconds) == said


def show_all(first=1, **settings):
    with Steps("training", 4, **settings) as steps:
        for done in range(first, 5):
            steps.show(done, f"loss {done}")
        steps.say("done")


def test_without_a_terminal_there_are_plain_lines(capsys):
    show_all(seconds_between_lines=0.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("   training 1/4  loss 1  ") and lines[0].endswith(" left")
    assert lines[3] == "   training 4/4  loss 4  took 0 s"
    assert lines[4] == "   done"


def test_lines_are_seldom_and_the_last_step_always_has_one(capsys):
    show_all()
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_other_processes_show_nothing(capsys):
    show_all(shown=False)
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_there_is_a_bar(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(record.sys, "stderr", screen)
    monkeypatch.setattr(record, "console", lambda: Console(file=screen, force_terminal=True, width=80))
    show_all()
    last = screen.getvalue().split("training")[-1]
    assert "━" in last and "100%" in last and "loss 4  took 0 s" in last


def test_a_resumed_run_counts_only_its_own_steps_for_the_time_left(capsys, monkeypatch):
    now = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(record.time, "monotonic", lambda: next(now))
    steps = Steps("training", 100, seconds_between_lines=0.0)
    steps.show(91, "")
    steps.show(92, "")
    assert [line.split("  ")[-1] for line in capsys.readouterr().err.splitlines()] == [
        "1 min 30 s left",
        "1 min 20 s left",
    ]
