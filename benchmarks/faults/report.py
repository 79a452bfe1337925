"""What a campaign found: cases with their replay lines, figures, and a dated file that anybody can make again."""

import json
import os
import platform
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


@dataclass
class Report:
    """The cases of one campaign."""

    name: str
    replay: str
    """The line that does it again."""
    cases: list[dict] = field(default_factory=list)
    figures: dict = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    commit: str = field(default_factory=lambda: commit())

    def case(self, name, problems, **values):
        """Notes a case; `problems` is what was not as it must be, empty for a good one."""
        self.cases.append({"case": name, "problems": list(problems), **values})
        if problems:
            print(f"FAILED {self.name} {name}: {', '.join(problems)}; replay: {self.replay}", flush=True)

    @property
    def failed(self):
        """The cases that were not as they must be."""
        return [case for case in self.cases if case["problems"]]

    def summary(self):
        """All that is worth keeping."""
        good = len(self.cases) - len(self.failed)
        return {
            "campaign": self.name,
            "date": datetime.now(UTC).date().isoformat(),
            "commit": self.commit,
            "command": self.replay,
            "machine": machine(),
            "good": f"{good}/{len(self.cases)}",
            "seconds": round(time.monotonic() - self.started, 1),
            **self.figures,
            "failed": self.failed,
        }

    def close(self, out):
        """Prints the figures and writes them; gives the exit code."""
        made = self.summary()
        print(f"{self.name}: {made['good']} good in {made['seconds']} s; {json.dumps(self.figures)}", flush=True)
        if out is not None:
            out.write_text(json.dumps(made, indent=1) + "\n")
        return 1 if self.failed else 0


def spread(values):
    """Median, 95th percentile and largest of some numbers."""
    if not values:
        return {"p50": None, "p95": None, "max": None}
    ordered = sorted(values)
    at = {"p50": statistics.median(ordered), "p95": ordered[int(0.95 * (len(ordered) - 1))], "max": ordered[-1]}
    return {name: round(value, 3) for name, value in at.items()}


def machine():
    """What kind of machine this is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    kind = models[0] if models else platform.processor()
    return {"processor": kind, "cores": os.cpu_count(), "system": platform.system(), "torch": torch.__version__}


def commit():
    """The commit that was tested, with a plus when files differ from it."""

    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "src") else "")
