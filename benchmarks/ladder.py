"""Ladders over corpora and seeds: how often the predicted run falls into its interval, and how far off it is.

    python benchmarks/ladder.py --minutes 60 --text NAME=FOLDER --out benchmarks/results/DATE-ladder.json

Corpora: the two built-in ones, and any folder of text given as NAME=FOLDER. The same command goes on after any
interruption: finished ladders are read, a killed one is climbed from where it was, --out is written after each.
With --twin every ladder is followed by the same sizes under SP, which takes as long again. A miss stays in the file.
"""

import argparse
import json
import platform
import time
from datetime import date
from pathlib import Path

import torch

from cerebras_gpt import config
from cerebras_gpt.data.accounting import Accounting
from cerebras_gpt.data.corpora import CORPORA
from cerebras_gpt.data.documents import read_documents
from cerebras_gpt.data.held_out import split_documents
from cerebras_gpt.data.shards import Shards, pack
from cerebras_gpt.ladder import RUN, Design, Wish, begin, begun, climb, with_twin
from cerebras_gpt.plan.ladder_law import compared
from cerebras_gpt.process import keep_memory, n_cores
from cerebras_gpt.record import read_metrics
from cerebras_gpt.report.ladder_words import ladder_table
from cerebras_gpt.text.tokenizer import train_tokenizer
from cerebras_gpt.train.crew import Processes


def packed(documents, folder, vocab_size):
    if not folder.exists():
        documents = list(documents)
        parts = [part.text for part in split_documents(documents, 0.05).parts if part.split == "train"]
        pack(documents, train_tokenizer(parts, vocab_size), folder)
    return folder


def packs(texts, folder, vocab_size):
    """A pack of every corpus by its name."""
    sources = {name: corpus.documents for name, corpus in CORPORA.items()}
    for text in texts:
        name, _, path = text.partition("=")
        sources[name] = lambda path=path: read_documents([path], Accounting())
    return {name: packed(read(), folder / f"{name}-{vocab_size}", vocab_size) for name, read in sources.items()}


def designed(given, seed, data, out):
    """The ladder of the given widths, or the widest for the time; as the folder has it if it was begun."""
    wish = Wish(minutes=given.minutes, seed=seed)
    if given.widths and not (out / "ladder.json").exists():
        train = Shards.open(data, "train", verify=False)
        family = wish.family(train.vocab_size)
        begin(Design(family, tuple(given.widths), seed, train.fingerprint, wish.words()), out)
    return begun(wish, data, out)


def row(name, seed, climbed, out, seconds):
    told, last = climbed.foretold, climbed.last
    train = [r for r in read_metrics(out / RUN / "metrics.jsonl") if r["kind"] == "train"]
    found = {
        "corpus": name,
        "seed": seed,
        "widths": [rung.d_model for rung in climbed.rungs],
        "decades_fitted": round(float(torch.tensor(told.rungs[-1].flops / told.rungs[0].flops).log10()), 3),
        "predicted": told.bits_per_byte,
        "low": told.low,
        "high": told.high,
        "measured": last.mean,
        "error": climbed.error,
        "is_inside": climbed.is_inside,
        "noise_between_seeds": told.noise,
        "seconds_of_this_call": round(seconds),
        "seconds_of_the_last_rung": train[-1]["seconds"],
        "law": config.to_mapping(told.law),
        "rungs": [config.to_mapping(rung) for rung in climbed.rungs],
    }
    if climbed.twin:
        found["twin"] = [config.to_mapping(rung) for rung in climbed.twin]
        found["against_twin"] = config.to_mapping(compared(climbed.rungs, climbed.twin))
    return found


def summary(rows):
    errors = [abs(found["error"]) for found in rows]
    return {
        "ladders": len(rows),
        "inside": sum(found["is_inside"] for found in rows),
        "within_one_percent": sum(error <= 0.01 for error in errors),
        "mean_absolute_error": sum(errors) / len(errors),
        "largest_absolute_error": max(errors),
        "misses": [f"{found['corpus']} seed {found['seed']}" for found in rows if not found["is_inside"]],
    }


def command(given):
    sizes = f"--widths {' '.join(map(str, given.widths))}" if given.widths else f"--minutes {given.minutes:g}"
    seeds = " ".join(map(str, given.seeds))
    return f"{sizes} --vocab-size {given.vocab_size} --seeds {seeds}{' --twin' * given.twin}" + "".join(
        f" --text {text.partition('=')[0]}=FOLDER" for text in given.text
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--text", action="append", default=[], help="NAME=FOLDER of a further corpus")
    parser.add_argument("--only", action="append", help="names of corpora to climb, if not all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 10], help="first seed of each ladder, ten apart")
    parser.add_argument("--vocab-size", type=int, default=257)
    parser.add_argument("--widths", type=int, nargs="+", help="instead of --minutes: the same sizes on any machine")
    parser.add_argument("--twin", action="store_true")
    parser.add_argument("--workers", type=int, default=n_cores())
    parser.add_argument("--folder", type=Path, default=Path("runs/ladders"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    keep_memory()
    rows = []
    known = packs(given.text, given.folder, given.vocab_size)
    jobs = [(name, seed) for seed in given.seeds for name in given.only or known]
    for name, seed in jobs:
        out, started = given.folder / f"{name}-seed-{seed}", time.monotonic()
        design = designed(given, seed, known[name], out)
        climbed = climb(design, known[name], out, Processes(given.workers))
        seconds = time.monotonic() - started
        if given.twin:
            climbed = with_twin(climbed, design, known[name], out, Processes(given.workers))
        rows.append(row(name, seed, climbed, out, seconds))
        print(f"\n{name}, seed {seed}\n{ladder_table(climbed)}", flush=True)
        written = {
            "date": date.today().isoformat(),
            "command": "python benchmarks/ladder.py " + command(given),
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {n_cores()} cores, {torch.backends.cpu.get_cpu_capability()}",
            "workers": given.workers,
            "summary": summary(rows),
            "ladders": rows,
        }
        given.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
