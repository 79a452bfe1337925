"""T1: kill -9 at random moments; the run that is started again and again ends in the same bits."""

import random
import time

from benchmarks.faults.job import EVERY, beside, differences, last_step, reference_job, saved_step, undisturbed
from benchmarks.faults.report import spread

LONGEST_SHARE = 0.3
"""Of the time of a whole run: the longest life before a kill."""


def kill_once(job, run, seconds):
    """One life and its end; gives the steps that were lost, or None if the run ended by itself."""
    child = job.start(run)
    time.sleep(seconds)
    code = child.kill()
    if code != -9:
        return None, code
    return last_step(run) - saved_step(run), code


def campaign(report, folder, moments, seed, dtype="float32", steps=200, setup=None):
    """As many kills as asked for, over as many runs as they take."""
    job = reference_job(folder, dtype, steps)
    reference = undisturbed(job, folder / f"reference-{dtype}-{steps}")
    draw, longest = random.Random(seed), LONGEST_SHARE * float(beside(reference, "done").read_text())
    lost, restarts, killed, number = [], [], 0, 0
    while killed < moments:
        run, number = folder / f"killed-{dtype}-{number}", number + 1
        code, kills = -9, 0
        while code == -9 and killed < moments:
            steps_lost, code = kill_once(job, run, draw.uniform(0.0, longest))
            if code == -9:
                killed, kills = killed + 1, kills + 1
                lost.append(steps_lost)
        restarts.append(restarted(job, run, setup))
        problems = [] if code in (-9, 0) else [f"exit code {code}"]
        report.case(f"{dtype} run {number}", problems + differences(run, reference), kills=kills)
    if max(lost) > EVERY:
        report.case("work lost", [f"{max(lost)} steps lost, more than {EVERY}"])
    report.figures |= {
        f"{dtype} kills": killed,
        f"{dtype} steps lost": spread(lost),
        f"{dtype} restart seconds without import": spread([seconds for seconds in restarts if seconds is not None]),
    }


def restarted(job, run, setup=None):
    """Goes on to the end; gives the seconds to the first new update, without the import of torch."""
    child = job.start(run, setup=setup)
    seconds = None
    while child.poll() is None:
        if seconds is None and _has_resumed(run):
            seconds = time.monotonic() - child.started
        time.sleep(0.005)
    if child.code:
        raise RuntimeError(f"the run did not go on: {child.code} {beside(run, 'err').read_text()[-500:]}")
    return seconds


def _has_resumed(run):
    """Whether the record's last start is followed by an update."""
    record = run / "metrics.jsonl"
    rows = record.read_text().splitlines() if record.exists() else []
    starts = [n for n, row in enumerate(rows) if '"kind": "start"' in row]
    return bool(starts) and any('"kind": "train"' in row for row in rows[starts[-1] :])
