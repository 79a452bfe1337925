"""Time and peak memory as planned against as measured, for ten plans from 0.3M to 111M parameters.

    python benchmarks/plan_estimates.py --out benchmarks/results/DATE-plan-estimates.json [--only 0.38M 111M]

Each plan is trained for a few steps by `pretrain` in a process of its own, measured before its run as always; what its
record says is compared. The text is the built-in `sotu` corpus. Needs an idle machine, or the times mean nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SMALL, GPT2 = 4096, 50257
SHAPES = {
    "0.3M": (64, SMALL, 400),
    "1M": (128, SMALL, 200),
    "2M": (192, SMALL, 150),
    "3.5M": (256, SMALL, 100),
    "5M": (320, SMALL, 80),
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


def train(name: str, folder: Path) -> None:
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
    data, run = folder / str(vocab_size), folder / name
    plan = replace(small_plan(d_model, text_of(data), steps), evaluations=1, saves=1)
    trainer = pretrain(plan, data, run, World())
    account = next(row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "account")
    execution = trainer.execution
    said = {"n_parameters": plan.architecture.n_parameters, "dtype": execution.dtype, "steps": steps, **account}
    print(json.dumps(said))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--train", choices=SHAPES)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.train:
        train(given.train, given.folder)
        return
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        make_packs(Path(folder))
        for name in given.only:
            command = [sys.executable, __file__, "--train", name, "--folder", folder]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row = rows[name] = json.loads(told.splitlines()[-1])
            row["time_off"] = row["seconds"] / row["planned_seconds"] - 1
            row["memory_off"] = row["peak_bytes"] / row["planned_bytes"] - 1
            print(
                f"{name:>5} {row['n_parameters'] / 1e6:7.2f}M {row['dtype']:>9}"
                f"  time {row['planned_seconds']:6.1f} s planned {row['seconds']:6.1f} s ({row['time_off']:+.1%})"
                f"  memory {row['planned_bytes'] / 1e6:6,.0f} MB planned {row['peak_bytes'] / 1e6:6,.0f} MB"
                f" ({row['memory_off']:+.1%})",
                flush=True,
            )
    if given.out:
        given.out.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
