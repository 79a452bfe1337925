"""A ladder trained as Ray tasks beside the same ladder without Ray: whether every bit is the same.

    python benchmarks/ray_ladder.py --folder runs/ray --out benchmarks/results/DATE-ray-ladder.json

Needs ray. A minute on two idle cores. Five sizes, four of them with two seeds, on the first twenty of the built-in
speeches, on two processes of a Ray cluster that begins and ends with this program (`--ray local`). While it trains, one
of its processes is killed, so that Ray begins that trial anew. Then half of the record is taken away, and the ladder
goes on, again through Ray. The calibration of the first ladder is given to the second: it decides the micro-batch and
so the last bits. On a busy machine set RAY_worker_niceness=0: by default Ray's processes take only what others leave.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import threading
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from cerebras_gpt.data.corpora import CORPORA
from cerebras_gpt.data.held_out import split_documents
from cerebras_gpt.data.shards import Shards, pack
from cerebras_gpt.ladder import PREDICTION, RECORD, SMALL_BASE, SMALL_PEAK_LR, VERDICT, Design, Wish, begin, climb
from cerebras_gpt.plan.rungs import Family
from cerebras_gpt.process import keep_memory, n_cores
from cerebras_gpt.text.tokenizer import train_tokenizer
from cerebras_gpt.train.crew import Processes
from cerebras_gpt.train.on_ray import RayTasks

VOCAB_SIZE, WIDTHS, TOKENS_PER_PARAMETER, N_DOCUMENTS = 512, (8, 16, 24, 32, 40), 0.5, 20
PATIENCE_SECONDS = 120.0
"""For Ray to begin its first trial, of which one process is then killed."""


def packed(folder):
    if not folder.exists():
        documents = list(CORPORA["sotu"].documents())[:N_DOCUMENTS]
        parts = [part.text for part in split_documents(documents, 0.05).parts if part.split == "train"]
        pack(documents, train_tokenizer(parts, VOCAB_SIZE), folder)
    return folder


def descendants(pid):
    """Processes that came from this one, by their id."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(") ")[2].split()[1])
        except OSError:  # it is gone
            continue
    found = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {pid}


def training():
    """Processes of this program's own cluster that train a trial."""
    names = ((pid, Path(f"/proc/{pid}/cmdline")) for pid in descendants(os.getpid()))
    return [pid for pid, name in names if name.exists() and name.read_bytes().startswith(b"ray::_task")]


def kill_one(killed):
    """Kills one of them soon after it began."""
    deadline = time.perf_counter() + PATIENCE_SECONDS
    while not (found := training()) and time.perf_counter() < deadline:
        time.sleep(0.2)
    for pid in found[:1]:
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)


def climbed(design, data, out, workers, calibration=None):
    """The seconds of a ladder."""
    begin(design, out)
    if calibration is not None:
        shutil.copy(calibration, out)
    started = time.perf_counter()
    climb(design, data, out, workers)
    return round(time.perf_counter() - started, 1)


def results(out):
    """All that a ladder found, the seconds left out, by the key of the trial."""
    rows = [json.loads(line) for line in (out / RECORD).read_text().splitlines()]
    record = {row["key"]: (row["name"], row["loss"], row["held_out"]) for row in rows}
    return record, (out / PREDICTION).read_bytes(), (out / VERDICT).read_bytes()


def again_from_half(design, data, whole, out, workers):
    """The ladder from half of the record of another, without its prediction and its last run."""
    out.mkdir()
    for name in ("calibration.json", "ladder.json"):
        shutil.copy(whole / name, out)
    lines = (whole / RECORD).read_text().splitlines(keepends=True)
    (out / RECORD).write_text("".join(lines[: len(lines) // 2]))
    climb(design, data, out, workers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/ray"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    keep_memory()
    data = packed(given.folder / "data")
    family = Family("mup", SMALL_BASE, SMALL_PEAK_LR, VOCAB_SIZE, tokens_per_parameter=TOKENS_PER_PARAMETER)
    design = Design(family, WIDTHS, 0, Shards.open(data, "train").fingerprint, Wish().words())
    here, there, half = (given.folder / name for name in ("here", "there", "half"))
    for folder in (here, there, half):
        shutil.rmtree(folder, ignore_errors=True)
    seconds = {"processes": climbed(design, data, here, Processes(2))}
    killed: list[int] = []
    threading.Thread(target=kill_one, args=(killed,), daemon=True).start()
    seconds["ray"] = climbed(design, data, there, RayTasks("local", 2), here / "calibration.json")
    again_from_half(design, data, there, half, RayTasks("local", 2))
    found = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {n_cores()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "versions": {name: version(name) for name in ("torch", "ray")},
        "rungs": [family.plan(width).name for width in WIDTHS],
        "trials": len(results(here)[0]),
        "seconds": seconds,
        "processes_killed": len(killed),
        "same_bits": results(there) == results(here),
        "same_bits_after_half": results(half) == results(here),
    }
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
