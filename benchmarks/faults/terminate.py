"""T10: SIGTERM at any moment saves that step and exits in time; a second signal inside that save loses nothing."""

import os
import random
import signal
import time
from functools import partial

from benchmarks.faults.job import beside, differences, last_step, reference_job, saved_step, undisturbed
from benchmarks.faults.report import spread
from cerebras_gpt import checkpoint
from cerebras_gpt.data.batches import HeldOutWindows, PackedBatches
from cerebras_gpt.errors import STOPPED
from cerebras_gpt.train.trainer import Hook

GRACE_SECONDS = 20.0
ALLOWED = (STOPPED, -signal.SIGTERM)
"""Saved and stopped; or ended at once, which is right only before the first update of a session."""


def term(number=signal.SIGTERM):
    """Sends this process a signal, as a scheduler would."""
    os.kill(os.getpid(), number)


def before(owner, name, at, signals=(signal.SIGTERM,)):
    """Plants signals before the call number `at` of a function."""
    plain, calls = getattr(owner, name), []

    def called(*arguments, **named):
        calls.append(1)
        if len(calls) == at:
            for number in signals:
                term(number)
        return plain(*arguments, **named)

    setattr(owner, name, called)


def in_iteration(at):
    """Plants a SIGTERM inside an evaluation."""
    plain, calls = HeldOutWindows.__getitem__, []

    def batch(self, index):
        calls.append(1)
        if len(calls) == at:
            term()
        return plain(self, index)

    HeldOutWindows.__getitem__ = batch


def stop_at(step, trainer):
    """A hook's SIGTERM after an update."""
    if trainer.step == step:
        term()


def phases():
    """What is planted, by the name of the phase; each gives hooks and a function that runs in the child."""
    write = partial(before, os, "fsync")
    return {
        "start-up, before any step": ([], partial(before, PackedBatches, "__init__", 1)),
        "reading the checkpoint": ([], partial(before, checkpoint, "newest", 1)),
        "waiting for the first batch": ([], partial(before, PackedBatches, "rows", 1)),
        "waiting for a batch": ([], partial(before, PackedBatches, "rows", 14)),
        "the first step": ([Hook(1, partial(stop_at, 1))], None),
        "a step": ([Hook(1, partial(stop_at, 37))], None),
        "an evaluation": ([], partial(in_iteration, 2)),
        "the beginning of a save": ([], partial(write, 6)),
        "the middle of a save": ([], partial(write, 10)),
        "the end of a save": ([], partial(before, os, "rename", 2)),
        "the last step": ([Hook(1, partial(stop_at, 60))], None),
        "the last save": ([], partial(before, os, "rename", 6)),
    }


def again_inside_the_save(number, trainer):
    """A SIGTERM, and another signal inside the save that it asked for."""
    if trainer.step == 23:
        term()
        before(os, "fsync", 5, [number])


def judged(job, run, reference, code, seconds, allowed):
    """What is wrong with a stopped run, then with the run that went on."""
    found = [] if code in allowed else [f"exit code {code}: {beside(run, 'err').read_text()[-200:]}"]
    if seconds > GRACE_SECONDS:
        found.append(f"{seconds:.1f} s to exit")
    if code == STOPPED and saved_step(run) != last_step(run):
        found.append(f"saved step {saved_step(run)}, not {last_step(run)}")
    code = job.finish(run)
    return found + ([f"then exit code {code}"] if code else differences(run, reference))


def stopped(job, run, hooks=(), setup=None):
    """A run that stops itself; its exit code and how long it took after the signal at most."""
    started = time.monotonic()
    return job.start(run, hooks, setup).wait(), time.monotonic() - started


def named(report, job, reference, folder):
    """Each named phase, then a second signal inside the emergency save."""
    for number, (phase, (hooks, setup)) in enumerate(phases().items()):
        run = folder / f"{reference.name}-phase-{number}"
        code, seconds = stopped(job, run, hooks, setup)
        allowed = (0, *ALLOWED) if "last" in phase or "end" in phase else ALLOWED
        report.case(phase, judged(job, run, reference, code, seconds, allowed), code=code)
    for second in (signal.SIGTERM, signal.SIGKILL):
        run = folder / f"{reference.name}-second-{second}"
        code, seconds = stopped(job, run, [Hook(1, partial(again_inside_the_save, second))])
        problems = judged(job, run, reference, code, seconds, (-second, STOPPED))
        report.case(f"a second signal ({second.name}) inside the emergency save", problems, code=code)


def campaign(report, folder, moments, seed, dtype="float32"):
    """Random moments, then the named phases."""
    job = reference_job(folder, dtype, 60)
    reference = undisturbed(job, folder / f"reference-{dtype}-60")
    draw, whole, took = random.Random(seed), float(beside(reference, "done").read_text()), []
    for number in range(moments):
        run = folder / f"{dtype}-{number}"
        child = job.start(run)
        time.sleep(draw.uniform(0.0, whole))
        started = time.monotonic()
        child.signal(signal.SIGTERM)
        code = child.wait()
        took.append(time.monotonic() - started)
        report.case(f"{dtype} moment {number}", judged(job, run, reference, code, took[-1], (0, *ALLOWED)), code=code)
    named(report, job, reference, folder)
    codes = [case["code"] for case in report.cases if "code" in case]
    report.figures |= {
        f"{dtype} exit seconds": spread(took),
        "ended by": {str(code): codes.count(code) for code in sorted(set(codes))},
    }
