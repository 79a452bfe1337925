"""Disturbs the reference job in every way of docs/reliability.md and writes what came of it.

    python -m benchmarks.faults kill --moments 50 --seed 1 --out benchmarks/results/DATE-faults-kill.json

Every campaign has a seed; a case that fails prints the line that does it again. strace and root are needed for
`syscalls`, `disk` and `soak`.
"""

import argparse
import importlib
import shlex
import signal
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.faults import children
from benchmarks.faults.report import Report

CAMPAIGNS = {
    "kill": ("kill -9 at random moments (T1)", {"moments": 50}),
    "syscalls": ("kill at every system call of a save (T2)", {"minutes": 10, "only": ""}),
    "power": ("power loss: crash states of the file layer (T3)", {"states": 1000}),
    "damage": ("damaged checkpoints (T4)", {"flips": 1000}),
    "disk": ("disk full and I/O errors (T5)", {"levels": 40}),
    "order": ("order of samples for any number of processes (T6)", {"cases": 10000}),
    "terminate": ("SIGTERM at random moments and in named phases (T10)", {"moments": 40}),
    "numbers": ("numbers that are not finite, and spikes (T11)", {}),
    "saving": ("a writer that is killed or fails, and an observer (T12)", {"moments": 30}),
    "hostile": ("hostile surroundings (T14)", {}),
    "soak": ("all faults mixed (T15)", {"minutes": 12, "between": 3, "steps": 1000}),
    "leaks": ("nothing grows (T16)", {"steps": 5000}),
    "controls": ("broken variants that must be caught", {}),
}
TWO_DTYPES = ("kill", "syscalls", "terminate")


def arguments():
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description="campaigns against training")
    verbs = parser.add_subparsers(dest="campaign", required=True)
    for name, (words, sizes) in CAMPAIGNS.items():
        verb = verbs.add_parser(name, help=words)
        verb.add_argument("--seed", type=int, default=1)
        verb.add_argument("--out", type=Path)
        verb.add_argument("--work", type=Path, help="folder for the runs; a temporary one if not given")
        for size, value in sizes.items():
            verb.add_argument(f"--{size}", type=type(value), default=value)
        if name in TWO_DTYPES:
            verb.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    return parser.parse_args()


def main():
    """Runs one campaign; exit code 1 if a case was not as it must be."""
    torch.set_num_threads(1)
    asked = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was found until then is written
    report = Report(asked.campaign, "python -m benchmarks.faults " + shlex.join(sys.argv[1:]))
    print(report.replay, flush=True)
    module = importlib.import_module(f"benchmarks.faults.{asked.campaign}")
    sizes = {size: getattr(asked, size) for size in CAMPAIGNS[asked.campaign][1]}
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        folder = asked.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for dtype in getattr(asked, "dtypes", [None]):
                module.campaign(report, folder, **sizes, seed=asked.seed, **({"dtype": dtype} if dtype else {}))
        except KeyboardInterrupt:
            report.figures["ended early"] = "by a signal; the cases until then are here"
        finally:
            children.end_all()  # a signal may have come while one of them writes
        code = report.close(asked.out)
    sys.exit(code)


if __name__ == "__main__":
    main()
