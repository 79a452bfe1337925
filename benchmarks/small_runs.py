"""The law behind `plan --minutes`: trains small models on the built-in corpora, fits, and says how far it is off.

    python benchmarks/small_runs.py --out benchmarks/results/DATE-small-runs.json          (about 20 minutes on 2 cores)
    python benchmarks/small_runs.py --out FILE --grid "sotu:192x2x600 sotu:192x3x600"      (runs of your choice)

A run is corpus:width x layers x steps of 2,048 tokens, with the recipe of `plan --minutes`. All corpora share one law
up to a factor for how hard each text is. The band is how far off a prediction is that starts from the shortest run of
the same shape, as `plan --minutes` does from its pilot. Runs already in FILE are not repeated.
"""

import argparse
import json
import math
import platform
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

from cerebras_gpt.process import bind_threads, keep_memory

bind_threads()  # before torch
keep_memory()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy.optimize import least_squares  # noqa: E402

from cerebras_gpt.data.corpora import CORPORA  # noqa: E402
from cerebras_gpt.data.held_out import split_documents  # noqa: E402
from cerebras_gpt.data.shards import Shards, pack  # noqa: E402
from cerebras_gpt.distributed import World  # noqa: E402
from cerebras_gpt.plan.budget import WARMUP_FRACTION, Text, small_plan, vocabulary_for  # noqa: E402
from cerebras_gpt.plan.families import mup  # noqa: E402
from cerebras_gpt.plan.laws import effective_tokens  # noqa: E402
from cerebras_gpt.text.tokenizer import train_tokenizer  # noqa: E402
from cerebras_gpt.train.calibrate import Calibration, keep  # noqa: E402
from cerebras_gpt.train.execution import Execution  # noqa: E402
from cerebras_gpt.train.pilot import held_out_bits  # noqa: E402
from cerebras_gpt.train.pretrain import pretrain  # noqa: E402

GRID = (
    "sotu:128x2x100 sotu:192x2x100 sotu:256x3x100 sotu:64x2x100 wiki:128x2x100 wiki:192x2x100 "
    "sotu:128x2x400 sotu:192x2x1200 wiki:128x2x1200 sotu:64x2x1200 sotu:256x3x500 sotu:128x2x1600"
)


def packed(corpus, folder):
    if not (folder / corpus).exists():
        documents = list(CORPORA[corpus].documents())
        parts = [part.text for part in split_documents(documents, 0.05).parts if part.split == "train"]
        tokenizer = train_tokenizer(parts, vocabulary_for(sum(len(text.encode()) for text in parts)))
        pack(documents, tokenizer, folder / corpus)
    return folder / corpus


def run(name, folder):
    corpus, shape = name.split(":")
    d_model, n_layers, steps = map(int, shape.split("x"))
    data = packed(corpus, folder)
    shards = Shards.open(data, "train")
    plan = small_plan(d_model, Text(shards.vocab_size, shards.n_tokens, shards.n_bytes), steps)
    architecture = replace(plan.architecture, n_layers=n_layers)
    plan = replace(
        plan,
        architecture=architecture,
        parametrization=mup(architecture),
        warmup_steps=max(1, round(WARMUP_FRACTION * steps)),
        evaluations=1,
        saves=1,
    )
    out = folder / name.replace(":", "-")
    keep(Calibration(Execution("bfloat16", plan.batch_size), 1.0, 1e12, 1.0), out)
    trainer = pretrain(plan, data, out, World())
    return {
        "corpus": corpus,
        "d_model": d_model,
        "n_layers": n_layers,
        "n_parameters": architecture.n_parameters,
        "tokens": plan.tokens,
        "unique_tokens": shards.n_tokens,
        "bits_per_byte": held_out_bits(out),
        "seconds": round(trainer.seconds, 1),
    }


def law(constants, runs):
    """Log bits per byte of every run: E + A / N^alpha + B / D^beta, times a factor per corpus but the first."""
    log_e, log_a, alpha, log_b, beta, *factors = constants
    corpora = sorted({r["corpus"] for r in runs})
    scale = dict(zip(corpora, [0.0, *factors], strict=True))
    n = np.array([r["n_parameters"] for r in runs]) / 1e6
    d = np.array([effective_tokens(r["tokens"], r["unique_tokens"]) for r in runs]) / 1e6
    value = np.exp(log_e) + np.exp(log_a) * n**-alpha + np.exp(log_b) * d**-beta
    return np.log(value) + np.array([scale[r["corpus"]] for r in runs])


def fit(runs):
    measured = np.log([r["bits_per_byte"] for r in runs])
    n_factors = len({r["corpus"] for r in runs}) - 1
    starts = [
        [math.log(e), math.log(0.2), a, math.log(0.5), b] + [0.0] * n_factors
        for e in (0.3, 0.6, 0.9)
        for a in (0.2, 0.5)
        for b in (0.2, 0.5)
    ]
    # Sizes from 0.6M to 4.5M hardly differ at these token counts, so alpha is not pinned down: at most 1.
    bounds = ([-3, -6, 0.02, -6, 0.02] + [-1] * n_factors, [1, 3, 1, 3, 2] + [1] * n_factors)
    fits = [least_squares(lambda c: law(c, runs) - measured, start, bounds=bounds) for start in starts]
    return min(fits, key=lambda found: found.cost).x


def pilot_errors(constants, runs):
    """Relative error of each run predicted from the shortest run of its shape and corpus."""
    expected, errors = law(constants, runs), []
    for i, longer in enumerate(runs):
        same = [j for j, r in enumerate(runs) if all(r[k] == longer[k] for k in ("corpus", "d_model", "n_layers"))]
        j = min(same, key=lambda j: runs[j]["tokens"])
        if j != i and longer["tokens"] >= 8 * runs[j]["tokens"]:
            predicted = runs[j]["bits_per_byte"] * math.exp(expected[i] - expected[j])
            errors.append(predicted / longer["bits_per_byte"] - 1)
    return errors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--grid", default=GRID)
    given = parser.parse_args()
    found = json.loads(given.out.read_text()) if given.out.exists() else {"runs": {}}
    found |= {
        "date": date.today().isoformat(),
        "command": "python benchmarks/small_runs.py",
        "torch": torch.__version__,
    }
    found["machine"] = (
        f"{platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in given.grid.split():
            if name not in found["runs"]:
                found["runs"][name] = run(name, Path(folder))
                print(name, found["runs"][name]["bits_per_byte"], flush=True)
                given.out.write_text(json.dumps(found, indent=1) + "\n")
    runs = list(found["runs"].values())
    if len(runs) > 8:
        c = fit(runs)
        e, a, alpha, b, beta = math.exp(c[0]), math.exp(c[1]), c[2], math.exp(c[3]), c[4]
        residual = law(c, runs) - np.log([r["bits_per_byte"] for r in runs])
        errors = pilot_errors(c, runs)
        found["law"] = {"E": e, "A": a * 1e6**alpha, "alpha": alpha, "B": b * 1e6**beta, "beta": beta}
        found["rms_residual"] = float(np.sqrt(np.mean(residual**2)))
        found["pilot_errors"] = errors
        found["band"] = 1.645 * float(np.sqrt(np.mean(np.square(errors))))
        given.out.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps({key: found[key] for key in ("law", "rms_residual", "band")}, indent=1))


if __name__ == "__main__":
    main()
