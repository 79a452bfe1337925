"""Disturbs a real server in every way of docs/serve-faults.md and writes what came of it.

    python -m benchmarks.serving_faults fuzz overload --seed 1 --out benchmarks/results/DATE-serving

One file for each campaign: DATE-serving-fuzz.json and so on. Every case draws from the seed and its own number; a case
that is not as it must be is printed, and `--only NUMBER` does it alone.
"""

import argparse
import gc
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
    "fuzz": ("S1: mutated requests and bytes that are hardly HTTP", 200_000),
    "openapi": ("S1: Schemathesis on the description of the routes; needs schemathesis", 20_000),
    "memory": ("S2: nothing grows over mixed requests", 50_000),
    "leaving": ("S3: readers who leave", 1000),
    "overload": ("S4: ten times as many requests as can be answered; seconds", 60),
    "slow": ("S5: slow clients beside an honest one; seconds of each kind", 15),
    "parameters": ("S6: wrong values are refused by name", 6000),
    "streams": ("S7: a stream is the whole answer in pieces", 10_000),
    "invariance": ("S8: answers do not depend on others", 10_000),
    "page": ("S10: payloads on the page in Chromium", 200),
    "terminate": ("S11: SIGTERM under load", 100),
    "soak": ("S13: clients that stream; seconds", 3600),
    "engines": ("S12: engines that raise, hang, loop or are gone, processes that are stopped", 50),
    "borders": ("S15: lengths and chunks that two servers could read in two ways", 80),
    "paths": ("S15: paths that lead outside, ranges, methods", 500),
    "resources": ("S14: memory, descriptors, threads, logs, clock and native code fail", 27),
    "conservation": ("S12: accepted = completed + cancelled + failed", 100_000),
}


def arguments():
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_faults", description="campaigns against serve")
    parser.add_argument("names", nargs="+", choices=CAMPAIGNS, metavar="NAME", help=", ".join(CAMPAIGNS))
    parser.add_argument("--share", type=float, default=1.0, help="of the full number of cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="the number of one case, to do it again")
    parser.add_argument("--out", help="where the results go, without -NAME.json")
    return parser.parse_args()


def done(report, asked, numbers):
    """Runs one campaign; whether it came to its end."""
    module = importlib.import_module(f"benchmarks.serving_faults.{report.name}")
    with tempfile.TemporaryDirectory(prefix="serving-faults-") as folder:
        try:
            module.campaign(report, Path(folder), asked.seed, numbers)
        except KeyboardInterrupt:
            report.figures["ended early"] = "by a signal; the cases until then are here"
        finally:
            children.end_all()
    return "ended early" not in report.figures


def main():
    """Runs campaigns one after the other; exit code 1 if a case was not as it must be."""
    torch.set_num_threads(1)
    gc.freeze()  # or the clients' own looks at what torch brought would count as the server's delays
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was found until then is written
    asked, codes = arguments(), []
    for name in asked.names:
        n = max(1, round(CAMPAIGNS[name][1] * asked.share))
        numbers = range(n) if asked.only is None else [asked.only]
        line = ["--seed", str(asked.seed), *(["--share", f"{asked.share:g}"] if asked.share != 1 else [])]
        report = Report(name, f"python -m benchmarks.serving_faults {name} {shlex.join(line)}")
        goes_on = done(report, asked, numbers)
        codes.append(report.close(Path(f"{asked.out}-{name}.json") if asked.out else None))
        if not goes_on:
            break
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
