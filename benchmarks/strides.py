"""What strided perplexity buys and costs: the same held-out tokens scored with windows that advance by less and less.

    python benchmarks/strides.py --run runs/quickstart runs/quickstart/data --run work/general/run work/general/pack \\
        --out benchmarks/results/DATE-strides.json --picture docs/strides.png

Every stride scores each token once; the smaller, the more of a window stands before it, and the more passes it takes.
The error of a difference is that of the paired differences of tokens, which are taken as independent.
"""

import argparse
import json
import math
import platform
import time
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cerebras_gpt import checkpoint
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.generate.likelihood import token_nats
from cerebras_gpt.report.figures import STYLE, WIDE, colour_of


def measured(run: Path, data: Path, n_tokens: int) -> dict[str, object]:
    """Loss and time at every stride, from a whole window down to one token."""
    model = checkpoint.load_model(checkpoint.resolve(run)).eval()
    T = model.architecture.seq_len
    held_out = Shards.open(data, "val")
    ids = held_out.tokens(0, min(n_tokens, held_out.n_tokens)).tolist()
    found, usual = [], token_nats(model, ids, stride=T // 2)
    for stride in (T >> n for n in range(T.bit_length())):
        begun = time.perf_counter()
        nats = token_nats(model, ids, stride=stride)
        seconds, more = time.perf_counter() - begun, nats - usual
        found.append(
            {
                "stride": stride,
                "nats": nats.mean().item(),
                "perplexity": math.exp(nats.mean().item()),
                "more_than_half_window": more.mean().item(),
                "standard_error": more.std().item() / math.sqrt(len(more)),
                "seconds": round(seconds, 3),
                "tokens_per_second": round(len(nats) / seconds, 1),
            }
        )
        print(found[-1], flush=True)
    parameters = model.architecture.n_parameters
    return {"run": run.name, "parameters": parameters, "window": T, "held_out_tokens": len(ids), "strides": found}


def draw(runs: list[dict], path: Path) -> None:
    """Loss against stride, and below it the time of a thousand tokens."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 5.2), layout="constrained")
        axes: list[Axes] = list(figure.subplots(2, 1, sharex=True))
        for i, run in enumerate(runs):
            rows = run["strides"]
            x = [row["stride"] for row in rows]
            y = [row["more_than_half_window"] for row in rows]
            bars = [row["standard_error"] for row in rows]
            how = {"color": colour_of(i), "marker": "o", "markersize": 4, "linewidth": 1.4}
            axes[0].errorbar(x, y, yerr=bars, capsize=3, label=f"{run['parameters'] / 1e6:.2g}M, {run['run']}", **how)
            axes[1].plot(x, [1000 / row["tokens_per_second"] for row in rows], **how)
        axes[0].set_ylabel("more nats per token\nthan at half a window")
        axes[0].legend(frameon=False)
        axes[1].set_ylabel("seconds for 1,000 tokens")
        axes[1].set_yscale("log")
        axes[1].set_xscale("log", base=2)
        axes[1].set_xticks(x, [f"{stride:,}" for stride in x])
        axes[1].set_xlabel("tokens that each window scores")
        axes[1].invert_xaxis()
        figure.savefig(path, dpi=90, facecolor="white")


def main() -> None:
    """Measures, writes, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, nargs=2, action="append", required=True, metavar=("RUN", "DATA"))
    parser.add_argument("--tokens", type=int, default=10_000, help="held-out tokens that are scored")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    arguments = parser.parse_args()
    runs = [measured(run, data, arguments.tokens) for run, data in arguments.run]
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    arguments.out.write_text(json.dumps({"runs": runs, "machine": machine}, indent=1) + "\n", "utf-8")
    draw(runs, arguments.picture)


if __name__ == "__main__":
    main()
