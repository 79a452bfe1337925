"""muTransfer on real text: tune a proxy of width 32, then see where the best learning rate is at 2, 4 and 8 times it.

    python benchmarks/mutransfer.py --folder runs/mutransfer --out benchmarks/results/DATE-mutransfer.json

50 minutes of one thread on two cores that other work shared. The folder keeps every finished trial, so the same command
goes on after an interruption. Stage 1 is what `cerebras-gpt tune` does: learning rate, init std and embedding scale on
the proxy, under muP. Stage 2 trains every width at eight learning rates, in muP and in SP with the same tuned init std
and embedding scale, so that nothing but the rules for the width differs. The best rate is the lowest point of the
parabola through the best three.
"""

import argparse
import json
import math
import platform
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import matplotlib
import numpy as np
import torch

from cerebras_gpt.data.corpora import CORPORA
from cerebras_gpt.data.held_out import split_documents
from cerebras_gpt.data.shards import pack
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.plan.families import PARAMETRIZATIONS, mup
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.report.figures import COLOURS, STYLE, colour_of
from cerebras_gpt.report.tune_figures import log_axis
from cerebras_gpt.text.tokenizer import train_tokenizer
from cerebras_gpt.train.crew import Processes
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.search import Proxy, Search, Space
from cerebras_gpt.train.trial import Trial, outcomes
from cerebras_gpt.tune import table, tune

WIDTHS = (32, 64, 128, 256)
RATES = tuple(2.0**octave for octave in range(-10, -2))
D_HEAD, N_LAYERS, SEQ_LEN, BATCH_SIZE, STEPS = 32, 2, 128, 8, 256
VOCAB_SIZE, N_SAMPLES = 1024, 40
EXECUTION = Execution("bfloat16", BATCH_SIZE)
TITLES = {"sp": "standard parametrization", "mup": "maximal update parametrization"}


def packed(folder):
    if not folder.exists():
        documents = list(CORPORA["sotu"].documents())
        parts = [part.text for part in split_documents(documents, 0.05).parts if part.split == "train"]
        pack(documents, train_tokenizer(parts, VOCAB_SIZE), folder)
    return folder


def plan_at(d_model):
    architecture = Architecture(d_model, N_LAYERS, d_model // D_HEAD, VOCAB_SIZE, SEQ_LEN)
    return Plan(f"width {d_model}", architecture, mup(architecture), BATCH_SIZE, STEPS, STEPS // 20, 6e-3)


def trial(family, d_model, rate, base):
    plan = plan_at(d_model)
    parametrization = PARAMETRIZATIONS[family](plan.architecture, base)
    return Trial(
        f"{family} {d_model} 2^{math.log2(rate):g}", replace(plan, parametrization=parametrization, peak_lr=rate)
    )


def best_octave(losses):
    """Where the parabola through the best rate and its neighbours is lowest, in log2; None at the end of the grid."""
    octaves, values = np.log2(RATES), np.array(losses)
    i = int(np.argmin(values))
    if not 0 < i < len(values) - 1 or not np.isfinite(values[i - 1 : i + 2]).all():
        return None
    a, b, _ = np.polyfit(octaves[i - 1 : i + 2], values[i - 1 : i + 2], 2)
    return float(-b / (2 * a))


def summary(losses):
    """By width: the best rate, how far it moved from the proxy's, and what using the proxy's rate costs."""
    first = losses[WIDTHS[0]]
    octave, proxy_index = best_octave(first), int(np.argmin(first))
    found = {}
    for width in WIDTHS:
        here = best_octave(losses[width])
        found[width] = {
            "best_log2_lr": here,
            "best_loss": min(losses[width]),
            "drift_octaves": None if here is None or octave is None else here - octave,
            "cost_of_the_proxys_lr": losses[width][proxy_index] - min(losses[width]),
        }
    return found


def draw(results, path):
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(9.0, 3.8), layout="constrained")
        all_losses = [x for family in results.values() for losses in family["losses"].values() for x in losses]
        top = np.quantile(all_losses, 0.85)
        for ax, (family, title) in zip(figure.subplots(1, 2, sharey=True), TITLES.items(), strict=True):
            for i, width in enumerate(WIDTHS):
                losses = results[family]["losses"][width]
                ax.plot(RATES, losses, color=colour_of(i), linewidth=1.5, marker=".", label=f"width {width}")
                octave = best_octave(losses)
                if octave is not None:
                    height = np.interp(octave, np.log2(RATES), losses)
                    ax.plot(2**octave, height, "o", ms=8, mfc="none", mec=colour_of(i), mew=1.6)
            ax.set_title(title, loc="left", fontsize=10, color=COLOURS["ink"])
            log_axis(ax, "x", (RATES[0], RATES[-1]), "peak learning rate")
            ax.set_ylim(min(all_losses) - 0.05, top)
        figure.axes[0].set_ylabel("held-out nats per token")
        figure.axes[0].legend(frameon=False)
        figure.savefig(path, dpi=160, facecolor="white")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("runs/mutransfer"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, default=Path("docs/mutransfer.png"))
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    started = time.monotonic()
    data = packed(given.folder / "data")
    search = Search(Proxy(plan_at(WIDTHS[0])), Space(), N_SAMPLES)
    tuning = tune(search, data, given.folder, Processes(given.workers), EXECUTION)
    print(table(tuning), flush=True)
    base = tuning.tuned.base
    results, seconds = {}, tuning.tuned.seconds
    for width in WIDTHS:
        trials = [trial(family, width, rate, base) for family in TITLES for rate in RATES]
        found = outcomes(
            trials, data, given.folder / "grid.jsonl", Processes(given.workers), EXECUTION, f"width {width}"
        )
        seconds += sum(outcome.seconds for outcome in found)
        for i, family in enumerate(TITLES):
            here = found[i * len(RATES) : (i + 1) * len(RATES)]
            results.setdefault(family, {"losses": {}})["losses"][width] = [outcome.held_out for outcome in here]
    for family in results.values():
        family["by_width"] = summary(family["losses"])
    written = {
        "date": date.today().isoformat(),
        "command": "python benchmarks/mutransfer.py",
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, 1 thread a worker, {torch.backends.cpu.get_cpu_capability()}",
        "workers": given.workers,
        "training_seconds": round(seconds),
        "seconds_of_this_call": round(time.monotonic() - started),
        "widths": WIDTHS,
        "log2_lr": [math.log2(rate) for rate in RATES],
        "tokens_per_trial": plan_at(WIDTHS[0]).tokens,
        "tuned": json.loads(tuning.tuned.to_json()),
        "results": results,
    }
    given.out.write_text(json.dumps(written, indent=1) + "\n")
    draw(results, given.picture)
    print(json.dumps({family: found["by_width"] for family, found in results.items()}, indent=1))


if __name__ == "__main__":
    main()
