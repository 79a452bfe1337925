"""Training is a function of plan and data alone: repeated, resumed, killed, accumulated or shared, it ends the same."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.record import read_metrics
from cerebras_gpt.train.calibrate import Calibration, keep
from cerebras_gpt.train.endings import DivergedError, StoppedError
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.pretrain import pretrain
from cerebras_gpt.train.trainer import Hook, Trainer

EXECUTIONS = [Execution("float32", 2), Execution("bfloat16", 4)]
TIMED = {"tokens_per_second", "flops_share", "seconds", "measuring_seconds"}


def train(plan, data, run, execution=EXECUTIONS[0], hooks=()):
    keep(Calibration(execution, 1.0, 1.0, 1.0), run)
    return pretrain(plan, data, run, World(), hooks)


def weights_hash(run):
    path = checkpoint.resolve(run)
    files = [(path / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")]
    return hashlib.sha256(b"".join(files)).hexdigest()


def figures(run):
    """All recorded rows but what depends on the clock and the machine."""
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] not in ("start", "account")]
    return [{key: value for key, value in row.items() if key not in TIMED} for row in rows]


@pytest.fixture(scope="module", params=EXECUTIONS, ids=lambda execution: execution.dtype)
def reference(request, tmp_path_factory, tiny, data):
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("reference")
    train(tiny, data, run, request.param)
    return run, request.param


class Killed(BaseException):
    """Stands for a process that ends in the middle of a step."""


def test_it_learns(reference):
    run, _ = reference
    losses = [row["loss"] for row in figures(run) if row["kind"] == "train"]
    assert losses[-1] < 0.7 * losses[0]


def test_twenty_repeats_give_one_hash(tmp_path, tiny, data):
    plan = replace(tiny, steps=4, warmup_steps=1)
    hashes = set()
    for n in range(20):
        train(plan, data, tmp_path / str(n), Execution("bfloat16", 4))
        hashes.add(weights_hash(tmp_path / str(n)))
    assert len(hashes) == 1


@pytest.mark.parametrize("step", [1, 5, 7, 29])
def test_a_run_broken_off_anywhere_resumes_to_the_same_bits(tmp_path, tiny, data, reference, step):
    run, execution = reference

    def breaks(trainer):
        if trainer.step == step:
            raise Killed

    with pytest.raises(Killed):
        train(tiny, data, tmp_path, execution, [Hook(1, breaks)])
    train(tiny, data, tmp_path, execution)
    assert weights_hash(tmp_path) == weights_hash(run)
    assert figures(tmp_path) == figures(run)


SCRIPT = """
import sys
from pathlib import Path
import torch
from cerebras_gpt.distributed import joined
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.train.pretrain import pretrain
torch.set_num_threads(1)
with joined() as world:
    pretrain(Plan.load(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), world)
"""


def start(plan, data, run, tmp_path):
    keep(Calibration(EXECUTIONS[0], 1.0, 1.0, 1.0), run)
    (tmp_path / "plan.json").write_text(plan.to_json())
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "plan.json"), str(data), str(run)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)


def wait_for_step(run, process):
    while process.poll() is None and not any(row["kind"] == "train" for row in read_metrics(run / "metrics.jsonl")):
        time.sleep(0.01)


def test_kill_nine_at_five_random_moments_loses_and_alters_nothing(tmp_path, tiny, data):
    plan = replace(tiny, steps=250, saves=25, evaluations=4)
    train(plan, data, tmp_path / "whole")
    draw = random.Random(7)
    run = tmp_path / "killed"
    for _ in range(5):
        process = start(plan, data, run, tmp_path)
        wait_for_step(run, process)
        time.sleep(draw.uniform(0.0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(plan, data, run, tmp_path).wait() == 0
    assert weights_hash(run) == weights_hash(tmp_path / "whole")
    assert figures(run) == figures(tmp_path / "whole")


def test_asked_to_stop_it_saves_where_it_is_and_goes_on_to_the_same_bits(tmp_path, tiny, data, reference):
    run, execution = reference

    def interrupt(trainer):
        if trainer.step == 13:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match="saved at step 13"):
        train(tiny, data, tmp_path, execution, [Hook(1, interrupt)])
    assert checkpoint.resolve(tmp_path).name == "step_00000013"
    train(tiny, data, tmp_path, execution)
    assert weights_hash(tmp_path) == weights_hash(run)


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path, tiny, data, reference, caplog):
    run, execution = reference
    train(tiny, data, tmp_path, execution)
    file = checkpoint.checkpoints(tmp_path)[0] / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)
    train(tiny, data, tmp_path, execution)
    assert "falling back" in caplog.text
    assert weights_hash(tmp_path) == weights_hash(run)
    assert figures(tmp_path) == figures(run)


def test_accumulation_changes_only_rounding(tiny):
    model = initialize(GPT(tiny.architecture, tiny.parametrization), torch.Generator().manual_seed(0)).double()
    ids = torch.randint(288, (4, 17), generator=torch.Generator().manual_seed(1))
    batch = Batch(ids[:, :-1], ids[:, 1:].clone())
    batch.targets[0, :9] = -100  # unequal numbers of targets in the micro-batches must not matter
    found = []
    for size in (1, 2, 3, 4):
        model.zero_grad()
        loss = gradients(model, batch, DoubleExecution(micro_batch_size=size), World())
        found.append((loss, [p.grad.clone() for p in model.parameters()]))
    for loss, grads in found[1:]:
        torch.testing.assert_close(loss, found[0][0], rtol=1e-6, atol=0)
        torch.testing.assert_close(grads, found[0][1], rtol=1e-6, atol=1e-12)


class DoubleExecution(Execution):
    """Double precision, in which rounding cannot hide a mistake."""

    torch_dtype = torch.float64


def test_one_batch_can_be_learned_by_heart(tmp_path, tiny):
    ids = torch.randint(288, (4, 17), generator=torch.Generator().manual_seed(1))

    class OneBatch:
        def rows(self, step, rows):
            return Batch(ids[:, :-1], ids[:, 1:])

    plan = replace(tiny, steps=400, warmup_steps=20, weight_decay=0.0, saves=1)
    model = initialize(GPT(plan.architecture, plan.parametrization), torch.Generator().manual_seed(0))
    Trainer(plan, model, OneBatch(), tmp_path, Execution(), World()).run()
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["loss"] < 0.01


def test_a_loss_that_is_no_number_stops_the_run_and_is_never_saved(tmp_path, tiny, data):
    def poison(trainer):
        if trainer.step == 7:
            trainer.model.norm.weight.data[0] = float("nan")

    with pytest.raises(DivergedError, match=r"step 8.*lower peak_lr"):
        train(tiny, data, tmp_path, hooks=[Hook(1, poison)])
    assert checkpoint.resolve(tmp_path).name == "step_00000005"


def test_weights_that_are_no_numbers_are_never_saved(tmp_path, tiny, data):
    def poison(trainer):
        if trainer.step == 10:
            trainer.model.norm.weight.data[0] = float("inf")

    with pytest.raises(DivergedError, match="step 10: a weight is no longer finite"):
        train(tiny, data, tmp_path, hooks=[Hook(1, poison)])
    assert checkpoint.resolve(tmp_path).name == "step_00000005"


def test_a_run_that_saves_every_step_can_be_stopped_too(tmp_path, tiny, data):
    plan = replace(tiny, steps=6, warmup_steps=1, saves=6)
    stop = Hook(1, lambda trainer: os.kill(os.getpid(), signal.SIGTERM) if trainer.step == 2 else None)
    with pytest.raises(StoppedError, match="saved at step 2"):
        train(plan, data, tmp_path, hooks=[stop])


def test_a_disk_without_room_for_the_checkpoints_is_refused_before_training(tmp_path, tiny, data, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match=r"no space: checkpoints .* are free at .*run; free some"):
        pretrain(tiny, data, tmp_path / "run", World())
    assert not (tmp_path / "run").exists()


def test_what_does_not_belong_together_is_refused_before_anything_is_written(tmp_path, tiny, data, reference):
    run, execution = reference
    other = replace(tiny, architecture=replace(tiny.architecture, vocab_size=300))
    with pytest.raises(ValueError, match=r"vocabulary of 300, the pack 288"):
        pretrain(other, data, tmp_path / "run", World())
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="holds a run of another plan"):
        train(replace(tiny, seed=1), data, run, execution)


def test_two_processes_train_like_one(tmp_path, tiny, data):
    plan = replace(tiny, steps=10)
    train(plan, data, tmp_path / "one")
    keep(Calibration(EXECUTIONS[0], 1.0, 1.0, 1.0), tmp_path / "two")
    (tmp_path / "plan.json").write_text(plan.to_json())
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "script.py"]
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = [sys.executable, *command, "plan.json", str(data), str(tmp_path / "two")]
    subprocess.run(arguments, cwd=tmp_path, check=True, timeout=200)
    for ours, theirs in zip(figures(tmp_path / "one"), figures(tmp_path / "two"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours.get("grad_norm", 0) == pytest.approx(theirs.get("grad_norm", 0), rel=1e-3)
