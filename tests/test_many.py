"""Real processes over gloo: as many as there are, stopped or killed, they train the same run to the same bits."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from cerebras_gpt import checkpoint
from cerebras_gpt.record import read_metrics
from cerebras_gpt.train.calibrate import Calibration, keep
from cerebras_gpt.train.execution import Execution

SCRIPT = """
import sys
from pathlib import Path
import torch
from cerebras_gpt.distributed import join
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.train.pretrain import pretrain
torch.set_num_threads(1)
pretrain(Plan.load(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), join(60))
"""
EXECUTION = Execution("bfloat16", 1)
TIMED = {"tokens_per_second", "flops_share", "seconds"}


def start(n, plan, data, run, restarts=0):
    """Starts a run on n processes, or goes on with it."""
    run.mkdir(parents=True, exist_ok=True)
    (run.parent / "script.py").write_text(SCRIPT)
    (run.parent / "plan.json").write_text(plan.to_json())
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", f"--max-restarts={restarts}"]
    arguments = [str(run.parent / "script.py"), str(run.parent / "plan.json"), str(data), str(run)]
    command = [sys.executable, *(torchrun if n > 1 else []), *arguments]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)


def steps_done(run):
    return max((int(row["step"]) for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"), default=0)


def wait_for_step(run, step, process):
    while steps_done(run) < step and process.poll() is None:
        time.sleep(0.02)


def hashes(run):
    path = checkpoint.resolve(run)
    names = ("model.safetensors", "optimizer.safetensors")
    return [hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names]


def figures(run):
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] in ("train", "held_out")]
    return [{key: value for key, value in row.items() if key not in TIMED} for row in rows]


@pytest.fixture(scope="module")
def plan(tiny):
    return replace(tiny, batch_size=6, steps=60, saves=20, evaluations=3)


@pytest.fixture(scope="module")
def alone(plan, data, tmp_path_factory):
    """The run of one process that nothing disturbed."""
    run = tmp_path_factory.mktemp("alone") / "run"
    keep(Calibration(EXECUTION, 1.0, 1.0, 1.0), run)
    assert start(1, plan, data, run).wait() == 0
    return run


def test_one_then_two_then_one_process_killed_between_equal_one_to_the_last_bit(tmp_path, plan, data, alone):
    run = tmp_path / "run"
    keep(Calibration(EXECUTION, 1.0, 1.0, 1.0), run)
    for n, until in ((1, 10), (2, 40)):
        process = start(n, plan, data, run)
        wait_for_step(run, until, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(1, plan, data, run).wait() == 0
    assert hashes(run) == hashes(alone)
    assert figures(run) == figures(alone)
