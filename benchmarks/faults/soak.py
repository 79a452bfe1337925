"""T15: all faults mixed for a while; the run ends as if there had been none, and most of its work was useful.

`soak --minutes 15` disturbs runs of `--steps` (1,000, about 8 seconds on an idle core) every `--between` seconds or
so: some 300 faults.
"""

import errno
import random
import signal
import time
from functools import partial

from benchmarks.faults.damage import flipped
from benchmarks.faults.job import beside, differences, last_step, reference_job, saved_step, undisturbed
from benchmarks.faults.plant import at_call, die, fail
from benchmarks.faults.report import spread
from cerebras_gpt import checkpoint
from cerebras_gpt.train.trainer import Hook


def from_outside(number, child, run, draw):
    """A signal to the whole group."""
    child.signal(number)


def paused(child, run, draw):
    """Stopped for a moment, then killed."""
    child.signal(signal.SIGSTOP)
    time.sleep(0.1)
    child.signal(signal.SIGCONT)
    child.signal(signal.SIGKILL)


def damaged(child, run, draw):
    """Killed, and a bit of the newest checkpoint flipped; never of the last good one."""
    child.kill()
    found = checkpoint.checkpoints(run)
    if len(found) > 1:
        file = draw.choice(sorted(found[0].iterdir()))
        file.write_bytes(next(flipped(file.read_bytes(), draw, 1)))


OUTSIDE = {
    "SIGKILL": partial(from_outside, signal.SIGKILL),
    "SIGTERM": partial(from_outside, signal.SIGTERM),
    "SIGINT": partial(from_outside, signal.SIGINT),
    "pause": paused,
    "damage": damaged,
}
INSIDE = {
    "killed in a save": die,
    "EIO in a save": fail,
    "ENOSPC in a save": partial(fail, errno.ENOSPC),
}


def planted(draw, act):
    """A hook that plants a fault at a file call of the next save."""
    call, done = draw.randint(1, 30), []

    def run(trainer):
        if not done:
            done.append(1)
            at_call(call, act)

    return [Hook(1, run)]


def one_fault(job, run, draw, mean_seconds):
    """One session of the run and the fault that ended it, if one did."""
    kind = draw.choice([*OUTSIDE, *INSIDE])
    child = job.start(run, planted(draw, INSIDE[kind]) if kind in INSIDE else [])
    until = time.monotonic() + draw.expovariate(1 / mean_seconds)
    while child.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    if child.poll() is None:
        OUTSIDE.get(kind, OUTSIDE["SIGKILL"])(child, run, draw)  # what a save survives, a kill ends later
    code = child.wait()
    return kind, code


def n_batches(run):
    """How many batches were read, those of the noise scale among them."""
    return len(beside(run, "samples").read_text().splitlines())


def campaign(report, folder, minutes, between, steps, seed):
    """Faults until the time is over, over as many runs as it takes; the last one ends without."""
    job = reference_job(folder, steps=steps)
    reference = undisturbed(job, folder / f"soak-reference-{steps}", setup=None)
    draw, until, counts, useful, done, lost = random.Random(seed), time.monotonic() + 60 * minutes, {}, 0, 0, []
    number = 0
    while time.monotonic() < until:
        run, code, number = folder / f"soak-{number}", None, number + 1
        while code != 0 and time.monotonic() < until:
            kind, code = one_fault(job, run, draw, between)
            counts[kind] = counts.get(kind, 0) + (code != 0)
            lost.append(last_step(run) - saved_step(run))
            if code not in (0, 2, 3, -signal.SIGKILL, -signal.SIGTERM):
                report.case(f"{kind} in run {number}", [f"exit code {code}"])
        code = job.finish(run)
        report.case(f"run {number}", [f"exit code {code}"] if code else differences(run, reference))
        useful += n_batches(reference)
        done += n_batches(run)
    report.figures |= {
        "runs": number,
        "faults": sum(counts.values()),
        "by kind": counts,
        "goodput": round(useful / done, 4) if done else None,
        "steps lost": spread(lost),
        "seconds between faults": round(60 * minutes / max(1, sum(counts.values())), 2),
    }
