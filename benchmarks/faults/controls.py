"""Positive controls: variants of the code that are broken on purpose; the named check must catch each of them."""

import json
import os
import random
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.faults import children, damage, order, plant
from benchmarks.faults.job import copy_run, differences, reference_job, saved_step, undisturbed
from benchmarks.faults.numbers import once, unsound, weight_becomes
from cerebras_gpt import checkpoint, record
from cerebras_gpt.data.batches import PackedBatches
from cerebras_gpt.distributed import StopFlag, World
from cerebras_gpt.errors import STOPPED
from cerebras_gpt.train import execution, trainer
from cerebras_gpt.train.trainer import Hook, Trainer

STOP, STEPS = 25, 40


def forgets_optimizer():
    """Resume ignores the optimizer's state."""
    plain = trainer.load_tensors

    def load(path, into, world):
        if path.name != "optimizer.safetensors":
            plain(path, into, world)

    trainer.load_tensors = load


def shifted_step(by):
    """Resume is off by some steps."""
    plain = Trainer.resume

    def resume(self):
        plain(self)
        self.step += by if self.step else 0

    Trainer.resume = resume


def keeps_rows():
    """The record is not cut on resume."""
    record.Metrics.cut = lambda self, *arguments: None


def rounds_weights():
    """Weights are stored with fewer bits."""
    plain = checkpoint.save

    def save(run, step, texts, tensors, *others, **named):
        rounded = {key: value.bfloat16().float() for key, value in tensors["model.safetensors"].items()}
        return plain(run, step, texts, {**tensors, "model.safetensors": rounded}, *others, **named)

    checkpoint.save = save


def order_by_history():
    """The batch depends on how many this process has seen."""
    plain, seen = PackedBatches.rows, []

    def rows(self, step, wanted):
        seen.append(step)
        return plain(self, len(seen) - 1, wanted)

    PackedBatches.rows = rows


def schedule_restarts():
    """The learning rate begins anew with every session."""
    plain, seen = trainer.learning_rate, []

    def rate(plan, step):
        seen.append(step)
        return plain(plan, len(seen))

    trainer.learning_rate = rate


def no_verification():
    """A checkpoint is taken for good without a look at its files."""
    checkpoint.verify = lambda path: json.loads((path / checkpoint.MANIFEST).read_text())


def sizes_only():
    """Only sizes are compared, not hashes."""
    name = "_fact_of" if hasattr(checkpoint, "_fact_of") else "_fact"
    plain = getattr(checkpoint, name)
    known = {}

    def fact(what):
        found = plain(what)
        return known.setdefault(found["bytes"], found)

    setattr(checkpoint, name, fact)


def raises_instead():
    """Damage ends the run instead of falling back."""
    checkpoint.set_damaged_aside = lambda run: None

    def newest(run):
        path = checkpoint.checkpoints(run)[0]
        checkpoint.verify(path)
        return path

    checkpoint.newest = newest


def by_name_alone():
    """The newest is the one with the highest number, verified or not."""
    checkpoint.set_damaged_aside = lambda run: None
    checkpoint.newest = lambda run: next(iter(checkpoint.checkpoints(run)), None)


def in_place():
    """A checkpoint is written straight into its final folder."""
    plain_rename, plain_mkdir = os.rename, os.mkdir

    def final(path):
        name = Path(path).name
        return Path(path).with_name(name[1:].partition(".")[0]) if name.startswith(".step_") else path

    os.mkdir = lambda path, *others, **named: plain_mkdir(final(path), *others, **named)
    plain_open = Path.open
    Path.open = lambda self, *others, **named: plain_open(Path(final(self.parent)) / self.name, *others, **named)
    open_descriptor = os.open
    os.open = lambda path, *others, **named: open_descriptor(final(path), *others, **named)
    os.rename = lambda one, other: None if final(one) == Path(other) else plain_rename(one, other)


def keeps_one():
    """Retention leaves a single checkpoint."""
    checkpoint.KEPT = 1


def retires_newest():
    """Retention deletes the wrong end."""
    plain = checkpoint.checkpoints
    checkpoint.KEPT = 2

    def save_then_lose(run, *arguments, save=checkpoint.save, **named):
        path = save(run, *arguments, **named)
        checkpoint.shutil.rmtree(plain(run)[0])
        return path

    checkpoint.save = save_then_lose


def litters():
    """Leftovers of killed saves stay."""
    for name in ("_clear", "_retire"):
        if hasattr(checkpoint, name):
            setattr(checkpoint, name, lambda *arguments: None)


def saves_anything():
    """Unsound weights are saved."""
    Tensor.isfinite = lambda self: torch.ones_like(self, dtype=torch.bool)
    torch.isfinite = Tensor.isfinite


def deaf():
    """SIGTERM is noted and never acted on."""
    StopFlag.is_set = lambda self: False


def mean_of_micro_batches():
    """Accumulation adds means of micro-batches without dividing by their number."""
    plain = execution.summed_loss
    trainer.gradients.__globals__["summed_loss"] = lambda *arguments: 4 * plain(*arguments)


def by_rank():
    """Each process has an order of its own."""
    World.share = lambda self, items: [(item + self.rank) % len(items) for item in items[self.rank :: self.size]]


def loses_tail():
    """Rows that do not divide by the number of processes are left out."""
    World.share = lambda self, items: items[self.rank : len(items) // self.size * self.size : self.size]


def weak_order():
    """The order is drawn with replacement."""
    plain = PackedBatches._starts
    PackedBatches._starts = lambda self, samples: plain(self, samples // 2 * 2)


def stopped_and_resumed(setup, folder, job, reference):
    """A run that is stopped by SIGTERM and goes on, both under the variant, against the sound one."""
    run = folder / f"control-{setup.__name__ if hasattr(setup, '__name__') else setup.func.__name__}"
    hook = Hook(1, lambda one: os.kill(os.getpid(), 15) if one.step == STOP else None)
    code = job.finish(run, [hook], setup)
    found = [] if code == STOPPED else [f"exit code {code} at SIGTERM"]
    code = job.finish(run, setup=setup)
    return found + ([f"exit code {code}"] if code else differences(run, reference))


def killed_in_a_save(setup, folder, job, reference):
    """A save killed at every other file call under the variant; then the sound code must find a good checkpoint."""
    found = []
    for phase in range(3, 34, 3):
        run = copy_run(reference, folder / f"control-save-{setup.__name__}-{phase}", up_to=20)
        job.finish(run, [save_at(30, phase)], setup)
        before = saved_step(run)
        code = job.finish(run, setup=setup)
        found += [
            f"call {phase}: {problem}" for problem in ([f"exit code {code}"] if code else differences(run, reference))
        ]
        found += [] if before >= 20 else [f"call {phase}: fell back to {before}"]
    return found


def save_at(step, phase):
    """A hook that lets the process die at a file call after a step."""
    done = []

    def run(one):
        if one.step == step and not done:
            done.append(1)
            plant.at_call(phase, plant.die)

    return Hook(1, run)


def damaged_newest(setup, folder, job, reference):
    """A flipped bit in the newest checkpoint of a run that goes on under the variant."""
    run = copy_run(reference, folder / f"control-damage-{setup.__name__}", up_to=30)
    file = checkpoint.checkpoints(run)[0] / "optimizer.safetensors"
    file.write_bytes(next(damage.flipped(file.read_bytes(), random.Random(3), 1)))
    code = job.finish(run, setup=setup)
    return [f"exit code {code}"] if code else differences(run, reference)


def two_checkpoints(setup, folder, job, reference):
    """How many checkpoints a whole run leaves, and which."""
    run = folder / f"control-two-{setup.__name__}"
    code = job.finish(run, setup=setup)
    names = [path.name for path in checkpoint.checkpoints(run)]
    return [f"exit code {code}"] if code else [] if names == ["step_00000040", "step_00000030"] else [f"left {names}"]


def poisoned(setup, folder, job, reference):
    """A weight that is no number, just before a save."""
    run = folder / f"control-poison-{setup.__name__}"
    job.finish(run, once(20, partial(weight_becomes, float("nan"))), setup)
    return unsound(run)


def ordered(setup, folder, job, reference):
    """A hundred cases of the order of samples, in a child because the variant stays."""
    draw = random.Random(1)

    def work():
        setup()
        if any(order.problems(order.drawn(draw)) for _ in range(100)):
            os._exit(99)

    code = children.start(work, folder / "order.err").wait()
    return ["samples in another order, lost or doubled"] if code == 99 else []


VARIANTS = (
    (forgets_optimizer, stopped_and_resumed),
    (partial(shifted_step, 1), stopped_and_resumed),
    (partial(shifted_step, -1), stopped_and_resumed),
    (keeps_rows, damaged_newest),
    (rounds_weights, stopped_and_resumed),
    (order_by_history, stopped_and_resumed),
    (schedule_restarts, stopped_and_resumed),
    (mean_of_micro_batches, stopped_and_resumed),
    (deaf, stopped_and_resumed),
    (no_verification, damaged_newest),
    (sizes_only, damaged_newest),
    (raises_instead, damaged_newest),
    (by_name_alone, damaged_newest),
    (in_place, killed_in_a_save),
    (litters, killed_in_a_save),
    (keeps_one, two_checkpoints),
    (retires_newest, two_checkpoints),
    (saves_anything, poisoned),
    (by_rank, ordered),
    (loses_tail, ordered),
    (weak_order, ordered),
)


def name_of(setup):
    """What is broken, from the docstring of the variant."""
    plain = setup.func if isinstance(setup, partial) else setup
    return plain.__doc__.rstrip(".") + (f" {setup.args}" if isinstance(setup, partial) else "")


def nothing():
    """The sound code."""


def campaign(report, folder, seed, variants=VARIANTS):
    """Each variant against the check that must catch it, and each check against the sound code."""
    job = reference_job(folder, steps=STEPS)
    reference = undisturbed(job, folder / f"reference-float32-{STEPS}")
    for check in {check for _, check in variants}:
        report.case(f"sound code, {check.__name__}", check(nothing, folder, job, reference))
    caught = {}
    for number, (setup, check) in enumerate(variants):
        place = folder / f"variant-{number}"
        place.mkdir(exist_ok=True)
        try:
            found = check(setup, place, job, reference)
        except TimeoutError:
            found = ["it hangs"]
        caught[name_of(setup)] = {"check": check.__name__, "seen": found[:1]}
        report.case(name_of(setup), [] if found else [f"{check.__name__} does not see it"])
    report.figures["caught"] = caught
