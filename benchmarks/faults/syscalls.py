"""T2: killed at the file-system calls of a save and of a retention pass, a run goes on from a good checkpoint.

All of them (about a hundred for each type, half a second each on an idle core), in an order that the seed draws and
that begins with one call of each site: a site is a call and the file that it meets. After so many minutes for a type
no more are begun, but for the sites, which are always all done; the figures say how many were left out.
`--only "write 32"` does one point alone.
"""

import os
import random
import re
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

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


class Point(NamedTuple):
    """Where to kill: at a call, counted from 1, which meets a file."""

    call: str
    k: int
    file: str


def points(text):
    """Every call of one save and one retention pass, of the thread that made it most, from what strace wrote."""
    lines, found = re.findall(r"^(\d+)\s+(\w+)\((.*)$", text, re.MULTILINE), []
    for call in CALLS:
        threads = Counter(thread for thread, name, _ in lines if name == call).most_common(1)
        met = [rest for thread, name, rest in lines if threads and (thread, name) == (threads[0][0], call)]
        found += [Point(call, k, met_file(call, rest)) for k, rest in enumerate(met, 1)]
    return found


def met_file(call, arguments):
    """The file of a call and the folder that it lies in, without what is random in their names."""
    opened, named = re.search(r"<([^>]*)>", arguments), re.search(r'"([^"]*)"', arguments)
    path = Path(opened[1] if opened else "")
    if named and call not in ("write", "fsync"):
        path /= named[1]
    return re.sub(r"\.[0-9a-f]{8}\b", "", "/".join(path.parts[-2:]))


def drawn(found, draw):
    """One point of each site, and the rest, both in a random order."""
    mixed, sites = draw.sample(found, len(found)), {}
    for point in mixed:
        sites.setdefault((point.call, point.file), point)
    first = list(sites.values())
    return first, [point for point in mixed if point not in first]


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


def killed_at(job, reference, folder, point):
    """What is wrong with a run that is killed at a point and goes on."""
    run = prepared(job, reference, folder, f"{point.call}-{point.k}")
    inject = f"inject={point.call}:signal=KILL:when={point.k}"
    code, _ = save_under(job, run, ["-e", f"trace={point.call}", "-e", inject])
    return ([] if code == -signal.SIGKILL else [f"not killed: {code}"]) + resumed(job, reference, run)


def campaign(report, folder, minutes, only, seed, dtype="float32"):
    """One point of each site, then as many others as fit into the minutes."""
    job = reference_job(folder, dtype, 60)
    reference = undisturbed(job, folder / f"reference-{dtype}-60")
    _, text = save_under(job, prepared(job, reference, folder, "counted"), ["-y", "-e", f"trace={','.join(CALLS)}"])
    found = points(text)
    sites, others = drawn([point for point in found if only in ("", f"{point.call} {point.k}")], random.Random(seed))
    until, n_done = time.monotonic() + 60 * minutes, 0
    for point in [*sites, *others]:
        if n_done >= len(sites) and time.monotonic() > until:
            break
        n_done += 1
        problems = killed_at(job, reference, folder, point)
        report.case(f"{dtype} {point.call} {point.k}", problems, file=point.file)
    report.figures |= {f"{dtype} sites": len(sites), f"{dtype} points": f"{n_done} of {len(found)}"}
