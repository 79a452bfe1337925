"""The reference job that every campaign disturbs, and what must not change in it.

A small GPT, four micro-batches a step, more than two epochs of a text, a checkpoint every ten steps.
"""

import hashlib
import json
import random
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.faults import children
from cerebras_gpt import checkpoint
from cerebras_gpt.data.batches import PackedBatches
from cerebras_gpt.data.documents import Document
from cerebras_gpt.data.shards import pack
from cerebras_gpt.distributed import World
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.plan.families import mup
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import read_metrics
from cerebras_gpt.text.tokenizer import train_tokenizer
from cerebras_gpt.train.calibrate import FILE, Calibration, keep
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.pretrain import pretrain
from cerebras_gpt.train.speed import Stopwatch, measure_speed

EVERY = 10
"""Steps between checkpoints."""
STATE = ("model.safetensors", "optimizer.safetensors")
N_TEXTS = 6


@dataclass(frozen=True)
class Job:
    """A plan, its data, and the execution that is kept over all its sessions."""

    plan: Plan
    data: Path
    execution: Execution

    def start(self, run, hooks=(), setup=None):
        """A child that trains, or goes on, in a process of its own."""
        return children.start(partial(self.train, run, hooks, setup), beside(run, "err"))

    def train(self, run, hooks=(), setup=None):
        """Trains in this process; `setup` plants a fault or a bug first."""
        torch.set_num_threads(1)
        if not (run / FILE).exists():
            keep(Calibration(self.execution, 1.0, 1.0, 1.0), run)
        note_samples(beside(run, "samples"))
        if setup is not None:
            setup()
        return pretrain(self.plan, self.data, run, World(), list(hooks))

    def finish(self, run, hooks=(), setup=None, seconds=children.PATIENCE_SECONDS):
        """Goes on to the end of the run; gives the exit code."""
        return self.start(run, hooks, setup).wait(seconds)


def beside(run, kind):
    """A file that belongs to a run and lies outside its folder, so that no fault meets it."""
    return run.with_name(f"{run.name}.{kind}")


def texts():
    """A little grammar, so that there is something to learn."""
    choose = random.Random(0).choice
    who, does, what = ["the cat", "a dog", "my aunt", "the ship"], ["sees", "wants"], ["milk", "rain", "home"]
    for n in range(N_TEXTS):
        yield Document(f"{n}", " ".join(f"{choose(who)} {choose(does)} {choose(what)}." for _ in range(150)))


def reference_job(folder, dtype="float32", steps=200, d_model=64, saves=None):
    """The job, its data packed into the folder the first time."""
    data = folder / "data"
    if not data.exists():
        pack(texts(), train_tokenizer((text.text for text in texts()), 288), data, val_fraction=0.1)
    architecture = Architecture(d_model=d_model, n_layers=1, n_heads=2, vocab_size=288, seq_len=16)
    plan = Plan(
        name="faults",
        architecture=architecture,
        parametrization=mup(architecture),
        batch_size=4,
        steps=steps,
        warmup_steps=min(20, steps - 1),
        peak_lr=6e-3,
        evaluations=4,
        saves=saves or max(1, steps // EVERY),
    )
    execution = Execution(dtype, 1)
    measure_speed(plan, execution, Stopwatch(0.0))  # what torch imports at its first step, no child has to
    return Job(plan, data, execution)


def keep_all():
    """Switches retention off in this process."""
    checkpoint.KEPT = 10**6


def undisturbed(job, run, setup=keep_all):
    """The run that nothing disturbed, with every one of its checkpoints kept if nothing else is said."""
    if not beside(run, "done").exists():
        shutil.rmtree(run, ignore_errors=True)
        beside(run, "samples").unlink(missing_ok=True)
        started = time.monotonic()
        code = job.start(run, setup=setup).wait(seconds=3600)
        if code:
            raise RuntimeError(f"the run without a fault ended with {code}: {beside(run, 'err').read_text()}")
        beside(run, "done").write_text(f"{time.monotonic() - started:.3f}")
    return run


def note_samples(path):
    """Writes the step and the SHA-256 of the rows of each batch that this process trains on."""
    plain = PackedBatches.__dict__["rows"]
    rows_of = getattr(plain, "plain", plain)

    def rows(self, step, rows):
        batch = rows_of(self, step, rows)
        with path.open("a") as file:
            file.write(f"{step} {hashlib.sha256(batch.ids.numpy().tobytes()).hexdigest()[:16]}\n")
        return batch

    rows.plain = rows_of
    PackedBatches.rows = rows


def samples(run):
    """What each step was trained on, by step; a step done twice must have had the same rows."""
    found = {}
    for line in beside(run, "samples").read_text().splitlines():
        step, digest = line.split()
        found.setdefault(int(step), set()).add(digest)
    return found


def figures(run):
    """Loss, gradient norm and rate of every step, each as its hexadecimal float."""
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"]
    return [(row["step"], *(float(row[name]).hex() for name in ("loss", "grad_norm", "lr"))) for row in rows]


def held_out(run):
    """The held-out losses, each once."""
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "held_out"]
    return [(row["step"], row["bits_per_byte"]) for row in rows]


def state(path):
    """SHA-256 of weights and optimizer state of a checkpoint that verifies."""
    files = checkpoint.verify(path)["files"]
    return [files[name]["sha256"] for name in STATE]


def state_at(run, step):
    """The state of one step of a run whose checkpoints are kept."""
    return state(run / checkpoint.FOLDER / f"step_{step:08d}")


def differences(run, reference):
    """In what a finished run differs from the undisturbed one; empty if in nothing."""
    found = []
    if figures(run) != figures(reference):
        found.append("figures")
    if held_out(run) != held_out(reference):
        found.append("held-out losses")
    if samples(run) != samples(reference):
        found.append("samples")
    newest = checkpoint.newest(run)
    if newest is None or newest.name != checkpoint.newest(reference).name:
        found.append("last checkpoint")
    elif state(newest) != state(checkpoint.newest(reference)):
        found.append("weights")
    if leftovers(run):
        found.append("leftovers")
    return found


def leftovers(run):
    """Temporary files and folders among the checkpoints of a run."""
    return [path.name for path in (run / checkpoint.FOLDER).rglob(".*") if path.name.endswith(".tmp")]


def last_step(run):
    """The last update in the record of a run, 0 if there is none."""
    done = [row["step"] for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"]
    return max(done, default=0)


def saved_step(run):
    """The step of the newest good checkpoint, 0 if there is none."""
    found = checkpoint.newest(run)
    return int(found.name.removeprefix("step_")) if found is not None else 0


def copy_run(run, to, up_to):
    """A run as it was when it had just saved a step: its checkpoints up to there, and its record."""
    shutil.rmtree(to, ignore_errors=True)
    kept = sorted(path.name for path in checkpoint.checkpoints(run) if int(path.name[5:]) <= up_to)[-2:]
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("checkpoints", "*.lock", ".lock"))
    for name in kept:
        shutil.copytree(run / checkpoint.FOLDER / name, to / checkpoint.FOLDER / name)
    rows = [row for row in read_metrics(run / "metrics.jsonl") if int(row.get("step", 0)) <= up_to]
    (to / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = beside(run, "samples").read_text().splitlines(keepends=True)
    beside(to, "samples").write_text("".join(line for line in lines if int(line.split()[0]) < up_to))
    return to
