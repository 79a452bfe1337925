"""Time and peak memory as planned against as measured, for plans from 0.3M to 111M parameters.

    python benchmarks/plan_estimates.py --out benchmarks/results/DATE-plan-estimates.json [--only 0.3M 111M] [--memory]

Each plan is trained twice by `pretrain`, each time in a process of its own, on the built-in `sotu` corpus. Memory: two
steps in bfloat16, as many tokens at a time as a run tries first; the peak of the process is compared with what was
planned.
Time: blocks of steps take turns with the calibration that the estimate comes from, because a shared machine changes
its speed within a minute by more than the estimate could be off. Each block is compared with the mean of the
calibrations before and after it, and the median over the blocks counts; `spread` is how far the calibrations
themselves lay apart. Every plan is written as soon as it is done, and the same command goes on with those that are
missing. About 15 minutes; --memory, which needs no idle machine, is that side alone.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

SMALL, GPT2 = 4096, 50257
SHAPES = {
    "0.3M": (64, SMALL, 100, 256),
    "1M": (128, SMALL, 60, 256),
    "2M": (192, SMALL, 40, 256),
    "3.5M": (256, SMALL, 20, 256),
    "5M": (320, SMALL, 12, 256),
    "16M": (448, SMALL, 5, 256),
    "23M": (320, GPT2, 3, 256),
    "40M": (512, GPT2, 2, 256),
    "70M": (640, GPT2, 2, 256),
    "111M": (768, GPT2, 1, 256),
    "5M long": (320, SMALL, 12, 2048),
    "111M long": (768, GPT2, 1, 2048),
}
"""Width, vocabulary, steps of 2,048 tokens in a block, and tokens of a sequence."""

BLOCKS = 6
MEMORY_STEPS = 2


def make_packs(folder: Path) -> None:
    from cerebras_gpt.data.corpora import CORPORA
    from cerebras_gpt.data.shards import pack
    from cerebras_gpt.text.tokenizer import gpt2_tokenizer, train_tokenizer

    documents = list(CORPORA["sotu"].documents())
    for size, tokenizer in ((SMALL, train_tokenizer([d.text for d in documents], SMALL)), (GPT2, gpt2_tokenizer())):
        pack(documents, tokenizer, folder / str(size), val_fraction=0.02)


def train(name: str, folder: Path, what: str) -> None:
    """In a process of its own: the plan of that name, as `pretrain` trains it; tells one side of the comparison."""
    from cerebras_gpt.process import bind_threads, keep_memory

    bind_threads()
    keep_memory()
    from dataclasses import replace

    from cerebras_gpt.cli.planning import text_of
    from cerebras_gpt.distributed import World
    from cerebras_gpt.plan.budget import small_plan
    from cerebras_gpt.record import read_metrics
    from cerebras_gpt.train.calibrate import Calibration, candidates, keep
    from cerebras_gpt.train.pretrain import pretrain
    from cerebras_gpt.train.speed import Stopwatch, measure_speed
    from cerebras_gpt.train.trainer import Hook, Trainer

    d_model, vocab_size, block, seq_len = SHAPES[name]
    steps = MEMORY_STEPS if what == "memory" else BLOCKS * block
    data, run = folder / str(vocab_size), folder / f"{name}-{what}"
    plan = replace(small_plan(d_model, text_of(data), steps), evaluations=1, saves=1)
    n_tokens = plan.tokens_per_step
    plan = replace(plan, architecture=replace(plan.architecture, seq_len=seq_len), batch_size=n_tokens // seq_len)
    rates: list[float] = []

    def calibrate(trainer: Trainer) -> None:
        rates.append(measure_speed(plan, trainer.execution, Stopwatch(1.0)).tokens_per_second)

    if what == "memory":
        keep(Calibration(candidates(plan)[0], 1.0, 1.0, 1.0), run)
    hooks = [] if what == "memory" else [Hook(block, calibrate)]
    trainer = pretrain(plan, data, run, World(), hooks)
    rows = read_metrics(run / "metrics.jsonl")
    account = next(row for row in rows if row["kind"] == "account")
    said = {"n_parameters": plan.architecture.n_parameters, "dtype": trainer.execution.dtype}
    if what == "memory":
        print(json.dumps(said | {key: account[key] for key in ("planned_bytes", "peak_bytes")}))
        return
    ends = [float(str(row["seconds"])) for row in rows if row["kind"] == "train"][block - 1 :: block]
    planned = [block * plan.tokens_per_step * (1 / a + 1 / b) / 2 for a, b in pairwise(rates)]
    took = [after - before for before, after in pairwise(ends)]
    print(json.dumps(said | {"planned_seconds": planned, "seconds": took, "calibrated_tokens_per_second": rates}))


def with_memory_off(row: dict[str, Any]) -> dict[str, Any]:
    """That side of a plan, and how far its estimate was off."""
    return {**row, "memory_off": row["peak_bytes"] / row["planned_bytes"] - 1}


def with_time_off(row: dict[str, Any]) -> dict[str, Any]:
    """The other side."""
    rates = row["calibrated_tokens_per_second"]
    off = median(b / a for a, b in zip(row["planned_seconds"], row["seconds"], strict=True)) - 1
    return {**row, "time_off": off, "spread": max(rates) / min(rates) - 1}


SIDES = {"memory": with_memory_off, "time": with_time_off}


def line(row: dict[str, Any]) -> str:
    """A row for reading."""
    size = f"{row['n_parameters'] / 1e6:7.2f}M {row['dtype']:>9}"
    memory = f"memory {row['planned_bytes'] / 1e6:6,.0f} MB planned {row['peak_bytes'] / 1e6:6,.0f} MB"
    time = f"  time {row['time_off']:+.1%}, calibrations apart {row['spread']:.0%}" if "time_off" in row else ""
    return f"{size}  {memory} ({row['memory_off']:+.1%}){time}"


def one_run(name: str, folder: Path, what: str) -> dict[str, Any]:
    """What a run in a process of its own tells, with a cache of its own, as on a new machine."""
    command = [sys.executable, __file__, "--train", name, what, "--folder", str(folder)]
    alone = {**os.environ, "XDG_CACHE_HOME": str(folder / f"cache-{name}-{what}")}
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=alone).stdout
    return json.loads(told.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="the result, which the same command goes on with")
    parser.add_argument("--only", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--memory", dest="sides", action="store_const", const=["memory"], default=list(SIDES))
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        return train(given.train[0], given.folder, given.train[1])
    known = json.loads(given.out.read_text("utf-8")) if given.out and given.out.exists() else {"plans": {}}
    head = {
        "date": date.today().isoformat(),
        "command": "python benchmarks/plan_estimates.py",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    with tempfile.TemporaryDirectory() as folder:
        make_packs(Path(folder))
        for name in given.only:
            if name in known["plans"]:
                continue
            sides = {key: one_run(name, Path(folder), key) for key in given.sides}
            row = {key: value for side in sides for key, value in SIDES[side](sides[side]).items()}
            known["plans"][name] = row
            print(f"{name:>9} {line(row)}", flush=True)
            if given.out:
                given.out.write_text(json.dumps(head | known, indent=1) + "\n", "utf-8")
    return None


if __name__ == "__main__":
    main()
