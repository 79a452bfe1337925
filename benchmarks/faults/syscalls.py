"""T2: killed at every file-system call of a save and of a retention pass, a run goes on from a good checkpoint."""

import os
import re
import signal
from collections import Counter
from functools import partial

from benchmarks.faults import children
from benchmarks.faults.job import (
    EVERY,
    beside,
    copy_run,
    figures,
    leftovers,
    reference_job,
    saved_step,
    state,
    state_at,
    undisturbed,
)
from cerebras_gpt import checkpoint
from cerebras_gpt.train.trainer import Hook

CALLS = ("openat", "write", "fsync", "rename", "unlink", "unlinkat", "mkdir", "rmdir")
FROM, AT = 30, 31
"""The checkpoint to begin with, and the step whose save is disturbed; two older ones lie there, so one is retired."""


def saves_when_told(steps_after=0):
    """A hook that stops its process before the save of step AT, saves, and ends some steps later."""

    def act(trainer):
        if trainer.step == AT:
            os.kill(os.getpid(), signal.SIGSTOP)
            trainer.save()
        if trainer.step > AT + steps_after:
            settle(trainer)
            os._exit(0)

    return Hook(1, act)


def settle(trainer):
    """Waits for a save that is still being written."""
    trainer.saver.wait()


def prepared(job, reference, folder, name):
    """A run that stands at step FROM."""
    return copy_run(reference, folder / name, up_to=FROM)


def save_under(job, run, options):
    """Runs one save under strace; gives the exit code and the calls that strace saw."""
    log = beside(run, "strace")
    child = job.start(run, [saves_when_told()])
    if not child.stopped():
        raise RuntimeError(f"no save came: {beside(run, 'err').read_text()[-500:]}")
    code = children.traced(child, options, log)
    return code, log.read_text() if log.exists() else ""


def counted(text):
    """How often each call was made, by the thread that made it most."""
    by_thread = Counter(re.findall(r"^(\d+)\s+(\w+)\(", text, re.MULTILINE))
    return {call: max(n for (_, name), n in by_thread.items() if name == call) for _, call in by_thread}


def points(job, reference, folder):
    """Every call of one save and one retention pass, as (name, number)."""
    _, text = save_under(job, prepared(job, reference, folder, "counted"), ["-e", f"trace={','.join(CALLS)}"])
    return [(call, k) for call, n in sorted(counted(text).items()) if call in CALLS for k in range(1, n + 1)]


def resumed(job, reference, run):
    """What is wrong after a disturbed save: its checkpoints, and the run that goes on for ten steps or so."""
    if saved_step(run) not in (FROM, AT):
        return [f"resumes from step {saved_step(run)}"]
    to = FROM + EVERY
    code = job.start(run, [Hook(1, partial(end_after, to))]).wait()
    if code:
        return [f"exit code {code}"]
    found = [] if figures(run) == [row for row in figures(reference) if row[0] <= to] else ["figures"]
    newest = checkpoint.newest(run)
    if newest is None or int(newest.name[5:]) != to or state(newest) != state_at(reference, to):
        found.append("weights")
    return found + (["leftovers"] if leftovers(run) else [])


def end_after(step, trainer):
    """Saves and ends the process at a step, as a stop does."""
    if trainer.step == step:
        trainer.save()
        settle(trainer)
        os._exit(0)


def campaign(report, folder, seed, dtype="float32"):
    """Every point once."""
    job = reference_job(folder, dtype, 60)
    reference = undisturbed(job, folder / f"reference-{dtype}-60")
    found = points(job, reference, folder)
    for call, k in found:
        run = prepared(job, reference, folder, f"{dtype}-{call}-{k}")
        code, _ = save_under(job, run, ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={k}"])
        report.case(
            f"{dtype} {call} {k}", ([] if code == -9 else [f"not killed: {code}"]) + resumed(job, reference, run)
        )
    report.figures[f"{dtype} points"] = len(found)
