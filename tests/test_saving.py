"""Checkpoints written in the background are those written at once; what fails is told, and costs no older one."""

import errno
import os
import threading
from dataclasses import replace

import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.distributed import World
from cerebras_gpt.record import read_metrics
from cerebras_gpt.train import saving
from cerebras_gpt.train.calibrate import FILE, Calibration, keep
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.pretrain import pretrain
from cerebras_gpt.train.saving import Saver
from cerebras_gpt.train.trainer import Hook, StoppedError

TENSORS = {"model.safetensors": {"a": torch.arange(6.0)}}
EXECUTION = Execution("float32", 4)


def train(plan, data, run, hooks=()):
    if not (run / FILE).exists():
        keep(Calibration(EXECUTION, 1.0, 1.0, 1.0), run)
    return pretrain(plan, data, run, World(), hooks)


def state(run):
    path = checkpoint.resolve(run)
    return [(path / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")]


def scores(run):
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] in ("train", "held_out")]
    return [(row["kind"], row["step"], row["loss"]) for row in rows]


def full(monkeypatch, when):
    """The disk has no room while `when()`."""
    real = checkpoint.write_synced

    def write(path, *chunks):
        if when():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, *chunks)

    monkeypatch.setattr(checkpoint, "write_synced", write)


def test_both_ways_give_the_same_files(tmp_path):
    for name, small in (("at once", 10**9), ("background", 0)):
        saver = Saver(tmp_path / name, small)
        saver.save(1, {"note.txt": "x"}, TENSORS)
        saver.wait()
    files = [
        {file.name: file.read_bytes() for file in checkpoint.resolve(tmp_path / name).iterdir()}
        for name in ("at once", "background")
    ]
    assert files[0] == files[1]


def test_the_background_is_chosen_by_size_and_memory(tmp_path):
    assert not Saver(tmp_path).in_background(TENSORS)
    assert Saver(tmp_path, small=0).in_background(TENSORS)
    assert not Saver(tmp_path, small=0, memory=lambda: 40).in_background(TENSORS)


def test_what_changes_after_the_call_is_not_what_is_saved(tmp_path, monkeypatch):
    """The writer is held until the tensor has changed."""
    gate, real = threading.Event(), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *arguments: (gate.wait(), real(*arguments)))
    tensor, saver = torch.zeros(3), Saver(tmp_path, small=0)
    saver.save(1, {}, {"model.safetensors": {"a": tensor}})
    tensor += 1
    gate.set()
    saver.wait()
    checkpoint.load_tensors(checkpoint.resolve(tmp_path) / "model.safetensors", {"a": tensor})
    assert tensor.tolist() == [0, 0, 0]


@pytest.mark.parametrize("small", [0, 10**9], ids=["background", "at once"])
def test_a_failure_is_told_once_and_the_next_save_works(tmp_path, monkeypatch, small):
    failing = True
    full(monkeypatch, lambda: failing)
    saver = Saver(tmp_path, small)
    saver.save(1, {}, TENSORS)
    saver.wait()
    error = saver.failure()
    assert error is not None and error.errno == errno.ENOSPC
    assert saver.failure() is None
    failing = False
    saver.save(2, {}, TENSORS)
    saver.wait()
    assert saver.failure() is None and checkpoint.resolve(tmp_path).name == "step_00000002"


def test_a_bug_in_the_writer_is_no_failure_of_the_disk(tmp_path):
    saver = Saver(tmp_path, small=0)
    saver.save(1, {"note.txt": 5}, TENSORS)
    saver.wait()
    with pytest.raises(AttributeError):
        saver.failure()


@pytest.mark.parametrize("small", [0, saving.SMALL], ids=["background", "at once"])
def test_a_disk_that_is_full_for_a_while_costs_saves_and_not_the_run(tmp_path, tiny, data, monkeypatch, small, caplog):
    train(tiny, data, tmp_path / "whole")
    monkeypatch.setattr(Saver.__init__, "__defaults__", (small, saving.memory_at_hand))
    now = {"step": 0}
    full(monkeypatch, lambda: 10 <= now["step"] < 20)
    hook = Hook(1, lambda trainer: now.update(step=trainer.step))
    train(tiny, data, tmp_path / "run", [hook])
    assert state(tmp_path / "run") == state(tmp_path / "whole")
    failed = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "save_failed"]
    assert failed == [11, 16]
    assert caplog.text.count("training goes on") == 2


@pytest.mark.parametrize("small", [0, saving.SMALL], ids=["background", "at once"])
def test_a_last_save_that_fails_ends_the_run_with_the_error(tmp_path, tiny, data, monkeypatch, small):
    monkeypatch.setattr(Saver.__init__, "__defaults__", (small, saving.memory_at_hand))
    now = {"step": 0}
    full(monkeypatch, lambda: now["step"] == 30)
    with pytest.raises(OSError, match="No space"):
        train(tiny, data, tmp_path, [Hook(1, lambda trainer: now.update(step=trainer.step))])
    assert checkpoint.resolve(tmp_path).name == "step_00000025"


def test_two_trainers_on_one_folder_are_refused(tmp_path, tiny, data):
    def second(trainer):
        with pytest.raises(ValueError, match=r"run is in use by process \d+ on .*; wait for it"):
            train(tiny, data, tmp_path / "run")

    train(replace(tiny, steps=4, warmup_steps=1), data, tmp_path / "other")
    train(tiny, data, tmp_path / "run", [Hook(30, second)])


@pytest.mark.parametrize("step", [10, 30], ids=["in mid-run", "at the end"])
def test_asked_to_stop_in_mid_evaluation_it_stops_and_scores_when_it_goes_on(tmp_path, tiny, data, monkeypatch, step):
    train(tiny, data, tmp_path / "whole")
    from cerebras_gpt.train import held_out

    losses, asked = held_out.token_losses, []

    def interrupting(*arguments):
        steps = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "train"]
        if steps and steps[-1] == step and not asked:
            asked.append(step)
            os.kill(os.getpid(), 15)
        return losses(*arguments)

    monkeypatch.setattr(held_out, "token_losses", interrupting)
    with pytest.raises(StoppedError, match=f"saved at step {step}"):
        train(tiny, data, tmp_path / "run")
    assert ("held_out", step) not in [row[:2] for row in scores(tmp_path / "run")]
    train(tiny, data, tmp_path / "run")
    assert state(tmp_path / "run") == state(tmp_path / "whole")
    assert scores(tmp_path / "run") == scores(tmp_path / "whole")
    train(tiny, data, tmp_path / "run")
    assert scores(tmp_path / "run") == scores(tmp_path / "whole")


@pytest.mark.parametrize("name", ["plan.json", "data.json", "tokenizer.json", "calibration.json"])
def test_a_damaged_file_of_a_run_is_healed_from_its_checkpoint(tmp_path, tiny, data, name):
    train(tiny, data, tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    train(tiny, data, tmp_path)
    assert (tmp_path / name).read_bytes() == whole
    (tmp_path / name).write_bytes(b"")
    if name == "plan.json":
        with pytest.raises(ValueError, match="holds a run of another plan"):
            train(replace(tiny, seed=5), data, tmp_path)
