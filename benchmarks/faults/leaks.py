"""T16: thousands of steps and hundreds of saves, and neither memory nor descriptors nor children nor threads grow."""

import json
import os
from pathlib import Path

import numpy as np

from benchmarks.faults.job import EVERY, beside, reference_job
from cerebras_gpt.train.trainer import Hook

SAVES = 200
SLOPE_BYTES_PER_STEP = 256
"""Allowed: a megabyte in four thousand steps."""


def sample(path, trainer):
    """One line of what the process holds."""
    status = Path("/proc/self/status").read_text().split()
    kilobytes = {key: int(status[status.index(f"{key}:") + 1]) for key in ("RssAnon", "VmSwap")}
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    row = {
        "step": trainer.step,
        "bytes": 1024 * sum(kilobytes.values()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "children": len(children),
        "shared": len(os.listdir("/dev/shm")) if Path("/dev/shm").exists() else 0,
    }
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def slope(rows):
    """Bytes per step over the second half, by least squares, and its standard error."""
    steps, sizes = (np.array([row[key] for row in rows[len(rows) // 2 :]], float) for key in ("step", "bytes"))
    (gradient, _), covariance = np.polyfit(steps, sizes, 1, cov=True)
    return gradient, covariance[0, 0] ** 0.5


def campaign(report, folder, steps, seed):
    """One long run that is looked at every ten steps."""
    job = reference_job(folder, steps=steps, d_model=32, saves=min(SAVES, steps // EVERY))
    path, run = folder / "leaks.jsonl", folder / "leaks"
    code = job.finish(run, [Hook(EVERY, lambda trainer: sample(path, trainer))], seconds=7200)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    report.case("ended", [f"exit code {code}: {beside(run, 'err').read_text()[-300:]}"] if code else [])
    gradient, doubt = slope(rows)
    within = gradient <= max(SLOPE_BYTES_PER_STEP, 3 * doubt)
    report.case("memory", [] if within else [f"grows by {gradient:.0f} bytes a step"])
    settled = rows[len(rows) // 10 :]
    for name in ("descriptors", "threads", "children", "shared"):
        low, high = min(row[name] for row in settled), max(row[name] for row in settled)
        first, last = settled[0][name], settled[-1][name]
        report.case(name, [f"from {first} to {last}"] if last > first + 2 else [], low=low, high=high)
    report.figures |= {
        "steps": rows[-1]["step"],
        "saves": job.plan.saves,
        "bytes per step": f"{gradient:.1f} ± {doubt:.1f}",
        "resident MB": [round(row["bytes"] / 1e6, 1) for row in (rows[0], rows[len(rows) // 2], rows[-1])],
    }
