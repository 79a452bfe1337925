"""Tiny Shakespeare by characters: ours against nanoGPT's own command for CPUs.

    python benchmarks/train_shakespeare.py --text input.txt --nanogpt CHECKOUT --out FILE --picture PNG
    python benchmarks/train_shakespeare.py --text input.txt --long --out FILE --picture PNG

The text is ASCII, so our byte tokens (256 and end of text) are its characters; the split is nanoGPT's, the first 90 %
of the characters. nanoGPT's command is that of its README for computers without a GPU. Seconds are of whole processes:
start, import, calibration, training and every evaluation on the way. One evaluation judges all: windows of each model's
own length, side by side over the whole held-out part, all positions. nanoGPT's own estimate, of random windows, is
beside it. On the way every eighth window is scored; nanoGPT tells its own estimate there.
"""

import argparse
import json
import math
import os
import pickle
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

from cerebras_gpt.process import bind_threads, free_cores, keep_memory

bind_threads()  # before torch
keep_memory()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

TRAIN_SHARE = 0.9
TARGETS = {"nanoGPT, CPU command": 1.88, "nanoGPT, A100": 1.4697}
COMMAND = (
    "python train.py config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 "
    "--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 "
    "--dropout=0.0"
)


@dataclass(frozen=True)
class Run:
    """A run of ours; heads, rate, std and scales follow from the ladder's base by muP."""

    d_model: int
    n_layers: int
    seq_len: int
    batch_size: int
    steps: int
    d_head: int = 8
    peak_lr: float = 0.02
    weight_decay: float = 0.1
    final_lr_fraction: float = 0.1
    beta2: float = 0.95
    looks: int = 8
    """Evaluations on the way."""
    averaged: float = 0.0
    """Share of the run, at its end, whose weights are averaged for the evaluation; 0 for the last weights alone."""


QUICK = Run(128, 2, 64, 8, 1300, d_head=32, beta2=0.99)
LONG = Run(192, 6, 256, 16, 2400, 32, 0.014, weight_decay=0.3, final_lr_fraction=0.0, beta2=0.99, looks=16)
"""For what nanoGPT reaches on an A100 with 10.6M parameters, dropout and 82M characters."""


def halves(text):
    """The training and the held-out text, cut where nanoGPT cuts."""
    cut = int(len(text) * TRAIN_SHARE)
    return text[:cut], text[cut:]


def packed(text, folder):
    """The pack of our byte tokens, cut at the same character."""
    from cerebras_gpt.data.shards import pack_ids
    from cerebras_gpt.data.token_documents import TokenDocument
    from cerebras_gpt.text.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([text], 257)
    ids = np.array(tokenizer.encode(text))
    if len(ids) != len(text):
        raise ValueError(f"{len(text):,} characters are {len(ids):,} bytes; give a text in ASCII")
    pack_ids([TokenDocument("text", ids)], tokenizer, folder, 1 - int(len(text) * TRAIN_SHARE) / len(text))
    return folder


def plan_of(run, vocab_size=257):
    """The plan of a run of ours."""
    from cerebras_gpt.ladder import SMALL_BASE
    from cerebras_gpt.model.architecture import Architecture
    from cerebras_gpt.plan.families import mup
    from cerebras_gpt.plan.plan import Plan

    shape = Architecture(run.d_model, run.n_layers, run.d_model // run.d_head, vocab_size, run.seq_len)
    return Plan(
        "shakespeare",
        shape,
        mup(shape, SMALL_BASE),
        run.batch_size,
        run.steps,
        max(1, run.steps // 20),
        run.peak_lr,
        final_lr_fraction=run.final_lr_fraction,
        betas=(0.9, run.beta2),
        weight_decay=run.weight_decay,
        evaluations=1,
        saves=1,
    )


@torch.no_grad()
def loss_of(logits_of, ids, seq_len, every=1):
    """Nats per character over windows that lie side by side, all positions."""
    n = (len(ids) - 1) // seq_len
    x, y = (ids[first : first + n * seq_len].view(n, seq_len)[::every] for first in (0, 1))  # (N, T)
    parts = zip(x.split(64), y.split(64), strict=True)
    total = sum(F.cross_entropy(logits_of(a).flatten(0, 1), b.flatten(), reduction="sum").item() for a, b in parts)
    return total / x.numel()


class Clock:
    """Wall time since it was made, and what the processes that ended since then took of the processors."""

    def __init__(self):
        self.started, self.before = time.time(), self.taken()

    def taken(self):
        """Seconds of processors of all children that have ended."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def told(self):
        """Both figures."""
        seconds = {"seconds": time.time() - self.started, "processor seconds": self.taken() - self.before}
        return {name: round(value, 2) for name, value in seconds.items()}


class Average:
    """The mean of the weights of the end of a run."""

    def __init__(self, first_step):
        self.first_step, self.n, self.means = first_step, 0, []

    def __call__(self, trainer):
        """Takes the weights in."""
        if trainer.step < self.first_step:
            return
        self.n += 1
        weights = [parameter.detach() for parameter in trainer.model.parameters()]
        if self.n == 1:
            self.means = [weight.clone() for weight in weights]
        torch._foreach_lerp_(self.means, weights, 1 / self.n)

    def put_into(self, model):
        """Replaces the weights of a model by their means."""
        for parameter, mean in zip(model.parameters(), self.means, strict=True):
            parameter.data.copy_(mean)


def child(run, folder):
    """Trains a run of ours and writes what it saw: one line for each look, with the time of day."""
    from cerebras_gpt.data.shards import Shards
    from cerebras_gpt.distributed import World
    from cerebras_gpt.train.pretrain import pretrain
    from cerebras_gpt.train.trainer import Hook

    data, plan = folder / "data", plan_of(run)
    held_out = Shards.open(data, "val")
    ids = torch.from_numpy(held_out.tokens(0, held_out.n_tokens - 1).astype(np.int64))  # without the end of text

    def tell(step, loss, kind="look"):
        with (folder / "looks.jsonl").open("a") as file:
            file.write(json.dumps({"kind": kind, "at": time.time(), "step": step, "loss": loss}) + "\n")

    def look(trainer):
        if trainer.step < plan.steps:
            tell(trainer.step, loss_of(trainer.model, ids, run.seq_len, every=8))

    average = Average(plan.steps * (1 - run.averaged) if run.averaged else math.inf)
    hooks = [Hook(max(1, plan.steps // run.looks), look), Hook(max(1, plan.steps // 200), average)]
    trainer = pretrain(plan, data, folder / "run", World(), hooks)
    tell(trainer.step, loss_of(trainer.model, ids, run.seq_len), "last")
    if average.n:
        average.put_into(trainer.model)
        tell(trainer.step, loss_of(trainer.model, ids, run.seq_len), "averaged")


def ours(run, text, folder):
    """Seconds, curve and losses of a run of ours, in a process of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    packed(text, folder / "data")
    settings = json.dumps(asdict(run))
    clock = Clock()
    command = [sys.executable, __file__, "--child", settings, "--work", str(folder)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    times = clock.told()
    looks = [json.loads(line) for line in (folder / "looks.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    finals = {row["kind"]: row["loss"] for row in looks if row["kind"] != "look"}
    plan = plan_of(run)
    return {
        "settings": asdict(run),
        "parameters": plan.architecture.n_parameters,
        "tokens": plan.tokens,
        **times,
        "seconds in updates": [row["seconds"] for row in rows if row["kind"] == "train"][-1],
        "loss": round(min(finals.values()), 4),
        "losses": {kind: round(loss, 4) for kind, loss in finals.items()},
        "window": run.seq_len,
        "half a window of context": round([row["loss"] for row in rows if row["kind"] == "held_out"][-1], 4),
        "curve": [[round(row["at"] - clock.started, 2), round(row["loss"], 4)] for row in looks],
    }


def prepared(checkout, text, folder):
    """A copy of nanoGPT with the files that its prepare.py would write; gives the character table."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".git", "out-*"))
    letters = sorted(set(text))
    table = {letter: i for i, letter in enumerate(letters)}
    data = folder / "data" / "shakespeare_char"
    for name, part in zip(("train", "val"), halves(text), strict=True):
        np.array([table[letter] for letter in part], np.uint16).tofile(data / f"{name}.bin")
    meta = {"vocab_size": len(letters), "itos": dict(enumerate(letters)), "stoi": table}
    (data / "meta.pkl").write_bytes(pickle.dumps(meta))
    return table


def theirs(checkout, text, folder):
    """The same of nanoGPT's command."""
    table = prepared(checkout, text, folder)
    curve, clock = [], Clock()
    command = [sys.executable, *COMMAND.split()[1:]]
    env = {key: value for key, value in os.environ.items() if key not in ("OMP_PROC_BIND", "OMP_PLACES")}
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, bufsize=1, env=env) as process:
        for line in process.stdout:
            if line.startswith("step "):
                curve.append([round(time.time() - clock.started, 2), float(line.rpartition(" ")[2])])
    if process.returncode:
        raise RuntimeError(f"nanoGPT ended with {process.returncode}")
    times = clock.told()
    loss = loss_of_theirs(folder, torch.tensor([table[letter] for letter in halves(text)[1]]))
    return {
        "command": COMMAND,
        **times,
        "loss": round(loss, 4),
        "window": 64,
        "its own estimate": min(found for _, found in curve),
        "curve": curve,
    }


def loss_of_theirs(folder, ids):
    """The common evaluation of the best checkpoint that nanoGPT kept."""
    sys.path.insert(0, str(folder))
    try:
        from model import GPT, GPTConfig
    finally:
        sys.path.remove(str(folder))
    kept = torch.load(folder / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
    model = GPT(GPTConfig(**kept["model_args"]))
    model.load_state_dict(kept["model"])
    return loss_of(lambda x: model.eval()(x, x)[0], ids, 64)  # with targets it gives the logits of all positions


def draw(found, path):
    """Both curves: seconds against nats per character."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    names = {"nanogpt": ("nanoGPT, its own estimate", "#b4540a"), "quick": ("ours, quick", "#0b7a75")}
    names["long"] = ("ours, long", "#3b5bdb")
    for name, (label, colour) in names.items():
        if name in found:
            axes.plot(*zip(*found[name]["curve"], strict=True), ".-", color=colour, label=label)
    for label, loss in TARGETS.items():
        axes.axhline(loss, color="#6e7781", linewidth=0.8, linestyle=":")
        axes.annotate(f"{loss:g} ({label})", (0.01, loss), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    axes.set(xscale="log", xlabel="seconds from the start of the process", ylabel="held-out loss, nats a character")
    axes.set_ylim(1.4, 3.0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--long", action="store_true", help="train for nanoGPT's figure on an A100; kept in --out")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--try", dest="tried", type=json.loads, help="settings of a run as JSON; printed, not kept")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return child(Run(**given.child), given.work)
    text = given.text.read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        if given.tried:
            free_cores()
            return print(json.dumps(ours(Run(**given.tried), text, Path(folder) / "ours")))
        found = json.loads(given.out.read_text()) if given.out.exists() else {}
        if given.long:
            free_cores()
            found["long"] = ours(LONG, text, Path(folder) / "ours")
        else:
            found |= measured(given, text, Path(folder))
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    if given.picture:
        draw(found, given.picture)
    return None


def measured(given, text, folder):
    """What was asked for."""
    found = {
        "date": date.today().isoformat(),
        "command": "python benchmarks/train_shakespeare.py --text input.txt --nanogpt CHECKOUT",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    free_cores()  # what is started here would inherit the one core that this thread was bound to
    ours(replace(QUICK, steps=40), text, folder / "ours")  # the calibration of this shape is remembered
    pairs = []
    for _ in range(given.rounds):
        pairs.append((theirs(given.nanogpt, text, folder / "nanogpt"), ours(QUICK, text, folder / "ours")))
        print(*(f"{one['seconds']} s {one['loss']}" for one in pairs[-1]), file=sys.stderr, flush=True)
    found["nanogpt"], found["quick"] = pairs[-1]
    for name in ("seconds", "processor seconds"):
        ratios = [round(theirs_now[name] / ours_now[name], 2) for theirs_now, ours_now in pairs]
        found[f"times fewer {name}"] = {"each": ratios, "median": statistics.median(ratios)}
    return found


if __name__ == "__main__":
    main()
