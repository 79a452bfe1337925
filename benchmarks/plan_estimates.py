"""Time and peak memory as planned against as measured, for ten plans from 0.3M to 111M parameters.

    python benchmarks/plan_estimates.py --out benchmarks/results/DATE-plan-estimates.json [--only 0.3M 111M] [--memory]

Each plan is trained for a few steps by `pretrain` in a process of its own, measured before its run as always; what its
record says is compared. The text is the built-in `sotu` corpus. Every plan is written as soon as it is done, and the
same command goes on with those that are missing. Times need an idle machine: `drift` says how much longer the median
step of the second half took than that of the first, and beyond a few per cent a time means nothing. So a plan whose
drift is larger than STEADY is trained again, up to --tries times; the steadiest run counts, and `tries` keeps the
errors and drifts of all. With --memory two steps of each are trained, and times are not compared: peak memory does not
mind a busy machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

SMALL, GPT2 = 4096, 50257
SHAPES = {
    "0.3M": (64, SMALL, 1000),
    "1M": (128, SMALL, 500),
    "2M": (192, SMALL, 350),
    "3.5M": (256, SMALL, 200),
    "5M": (320, SMALL, 120),
    "16M": (448, SMALL, 40),
    "23M": (320, GPT2, 25),
    "40M": (512, GPT2, 15),
    "70M": (640, GPT2, 10),
    "111M": (768, GPT2, 8),
}
"""Width, vocabulary and steps of 2,048 tokens: about a minute each on two cores, the measuring included."""


def make_packs(folder: Path) -> None:
    from cerebras_gpt.data.corpora import CORPORA
    from cerebras_gpt.data.shards import pack
    from cerebras_gpt.text.tokenizer import gpt2_tokenizer, train_tokenizer

    documents = list(CORPORA["sotu"].documents())
    for size, tokenizer in ((SMALL, train_tokenizer([d.text for d in documents], SMALL)), (GPT2, gpt2_tokenizer())):
        pack(documents, tokenizer, folder / str(size), val_fraction=0.02)


MEMORY_STEPS = 2
STEADY = 0.04


def drift(seconds: list[float]) -> float:
    """How much longer the median step of the second half took; seconds are of all steps up to each."""
    steps = [after - before for before, after in pairwise(seconds)]
    half = len(steps) // 2
    return median(steps[half:]) / median(steps[:half]) - 1 if half else 0.0


def train(name: str, folder: Path, only_memory: bool) -> None:
    """In a process of its own: the plan of that name, as `pretrain` trains it."""
    from cerebras_gpt.process import bind_threads, keep_memory

    bind_threads()
    keep_memory()
    from dataclasses import replace

    from cerebras_gpt.cli.planning import text_of
    from cerebras_gpt.distributed import World
    from cerebras_gpt.plan.budget import small_plan
    from cerebras_gpt.record import read_metrics
    from cerebras_gpt.train.pretrain import pretrain

    d_model, vocab_size, steps = SHAPES[name]
    steps = MEMORY_STEPS if only_memory else steps
    data, run = folder / str(vocab_size), folder / name
    plan = replace(small_plan(d_model, text_of(data), steps), evaluations=1, saves=1)
    trainer = pretrain(plan, data, run, World())
    rows = read_metrics(run / "metrics.jsonl")
    account = next(row for row in rows if row["kind"] == "account")
    seconds = [float(str(row["seconds"])) for row in rows if row["kind"] == "train"]
    execution = trainer.execution
    said = {"n_parameters": plan.architecture.n_parameters, "dtype": execution.dtype, "steps": steps, **account}
    said["drift"] = drift(seconds)
    print(json.dumps(said))


def compared(row: dict[str, Any], only_memory: bool) -> dict[str, Any]:
    """The row with how far its estimates were off."""
    row["memory_off"] = row["peak_bytes"] / row["planned_bytes"] - 1
    if not only_memory:
        row["time_off"] = row["seconds"] / row["planned_seconds"] - 1
    return row


def steadiest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The run whose steps changed least, with what all of them came to."""
    chosen = min(rows, key=lambda row: abs(row["drift"]))
    tries = [{name: row[name] for name in ("time_off", "drift") if name in row} for row in rows]
    return chosen | {"tries": tries}


def line(row: dict[str, Any]) -> str:
    """A row for reading."""
    size = f"{row['n_parameters'] / 1e6:7.2f}M {row['dtype']:>9}"
    memory = f"memory {row['planned_bytes'] / 1e6:6,.0f} MB planned {row['peak_bytes'] / 1e6:6,.0f} MB"
    told = f"{size}  {memory} ({row['memory_off']:+.1%})"
    if "time_off" not in row:
        return told
    time = f"time {row['planned_seconds']:6.1f} s planned {row['seconds']:6.1f} s ({row['time_off']:+.1%})"
    return f"{told}  {time} drift {row['drift']:+.1%}"


def one_run(command: list[str], folder: Path, turn: int) -> dict[str, Any]:
    """What a run in a process of its own tells, with a cache and a folder of its own, as on a new machine."""
    here = folder / f"turn-{turn}"
    here.mkdir(exist_ok=True)
    for vocab_size in (SMALL, GPT2):
        (here / str(vocab_size)).exists() or (here / str(vocab_size)).symlink_to(folder / str(vocab_size))
    alone = {**os.environ, "XDG_CACHE_HOME": str(here / f"cache-{command[3]}")}
    told = subprocess.run([*command, "--folder", str(here)], check=True, capture_output=True, text=True, env=alone)
    return json.loads(told.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--train", choices=SHAPES)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--tries", type=int, default=3, help="runs of a plan whose speed does not hold still")
    parser.add_argument("--memory", action="store_true", help="two steps each; times are not compared")
    given = parser.parse_args()
    if given.train:
        train(given.train, given.folder, given.memory)
        return
    rows = json.loads(given.out.read_text("utf-8")) if given.out and given.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        make_packs(Path(folder))
        for name in given.only:
            if name in rows:
                continue
            command = [sys.executable, __file__, "--train", name, *["--memory"] * given.memory]
            runs: list[dict[str, Any]] = []
            while not runs or (len(runs) < given.tries and abs(steadiest(runs)["drift"]) > STEADY):
                runs.append(compared(one_run(command, Path(folder), len(runs)), given.memory))
                print(f"{name:>5} {line(runs[-1])}", flush=True)
            rows[name] = steadiest(runs)
            if given.out:
                given.out.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
