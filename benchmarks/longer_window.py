"""What a longer window buys: learned positions interpolated to twice the window, then trained for some steps.

    python benchmarks/longer_window.py --run runs/quickstart --data runs/quickstart/data --steps 150 \\
        --out benchmarks/results/DATE-longer-window.json --picture docs/longer-window.png

Beside it: the run as it is, the run trained on for as many tokens at its own window (the fair one to beat), the longer
window before any training, and the learned rows with the last one repeated instead of interpolated.
"""

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from cerebras_gpt import checkpoint
from cerebras_gpt.data.batches import PackedBatches
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.distributed import World
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.loss import token_losses
from cerebras_gpt.model.positions import stretched
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.report.figures import STYLE, blank, colour_of
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.longer_window import begin, longer_plan
from cerebras_gpt.train.pretrain import go_on
from cerebras_gpt.train.trainer import Trainer

BUCKET = 32
"""Positions that are averaged for the picture."""


def repeated(model: GPT, seq_len: int) -> GPT:
    """A longer window whose new positions all begin as the last learned one."""
    made = stretched(model, seq_len)
    table = model.position_embedding.weight.detach()
    rows = torch.arange(seq_len).clamp(max=len(table) - 1)
    with torch.no_grad():
        made.position_embedding.weight.copy_(table[rows])
    return made


def trained(model: GPT, plan: Plan, data: Path, out: Path) -> GPT:
    """The network after the steps of the plan; goes on where it was stopped."""
    if not (out / "plan.json").exists():
        begin(model, plan, data, out)
    train = Shards.open(data, "train")
    batches = PackedBatches(train, plan.architecture.seq_len, plan.batch_size, plan.seed)
    go_on(Trainer(plan, model, batches, out, Execution(), World()))
    return checkpoint.load_model(checkpoint.resolve(out))


@torch.inference_mode()
def nats_by_place(model: GPT, ids: Tensor) -> Tensor:
    """Mean loss at each place of the window, over windows that lie side by side in the text: (N,) -> (T,).

    The mean over places is over the same tokens for windows of T and 2 T; a place alone is not.
    """
    T = model.architecture.seq_len
    n = (len(ids) - 1) // T
    rows = torch.stack([ids[i * T : i * T + T + 1] for i in range(n)])  # (n, T + 1)
    hidden = model.eval().hidden(rows[:, :-1])  # (n, T, C)
    return token_losses(hidden, model.head_table, rows[:, 1:]).view(n, T).double().mean(0)


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Every variant, trained and scored on the same held-out tokens."""
    folder = checkpoint.resolve(arguments.run)
    plan, short = Plan.load(folder), checkpoint.load_model(folder)
    T = plan.architecture.seq_len
    long_plan = replace(longer_plan(plan, 2 * T, arguments.steps), seed=1)
    short_plan = replace(long_plan, architecture=plan.architecture, batch_size=plan.batch_size)
    held_out = Shards.open(arguments.data, "val")
    ids = torch.as_tensor(held_out.tokens(0, min(arguments.tokens, held_out.n_tokens)).astype("int64"))
    variants: dict[str, Callable[[], GPT]] = {
        f"{T}, as it is": lambda: short,
        f"{T}, trained on": lambda: trained(short, short_plan, arguments.data, arguments.work / "short"),
        f"{2 * T}, interpolated, not trained": lambda: stretched(checkpoint.load_model(folder), 2 * T),
        f"{2 * T}, interpolated, trained": lambda: trained(
            stretched(checkpoint.load_model(folder), 2 * T), long_plan, arguments.data, arguments.work / "long"
        ),
        f"{2 * T}, last row repeated, trained": lambda: trained(
            repeated(checkpoint.load_model(folder), 2 * T), long_plan, arguments.data, arguments.work / "repeated"
        ),
    }
    by_variant = {}
    for name, make in variants.items():
        places = nats_by_place(make(), ids)
        by_variant[name] = {
            "nats": float(places.mean()),
            "by_place": [round(float(bucket.mean()), 4) for bucket in places.split(BUCKET)],
        }
        print(name, round(float(places.mean()), 4), flush=True)
    return {
        "run": plan.name,
        "steps": arguments.steps,
        "tokens_per_step": long_plan.tokens_per_step,
        "held_out_tokens": len(ids),
        "bucket": BUCKET,
        "variants": by_variant,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }


def draw(found: dict, path: Path) -> None:
    """Loss by place in the window, a line for each variant."""
    with matplotlib.rc_context(STYLE):
        figure, ax = blank(8.0, 4.2, "place in the window, tokens", "held-out loss, nats per token")
        for i, (name, values) in enumerate(found["variants"].items()):
            x = [found["bucket"] * (n + 0.5) for n in range(len(values["by_place"]))]
            ax.plot(x, values["by_place"], color=colour_of(i), linewidth=1.4, label=name)
        ax.set_ylim(top=min(ax.get_ylim()[1], 1.25 * ax.get_ylim()[0]))
        ax.legend(frameon=False, title="window of the network", fontsize=8)
        figure.savefig(path, dpi=90, facecolor="white")


def main() -> None:
    """Measures, writes, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--tokens", type=int, default=60_000, help="held-out tokens that are scored")
    parser.add_argument("--work", type=Path, default=Path("work/longer-window"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    arguments = parser.parse_args()
    found = measure(arguments)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    draw(found, arguments.picture)


if __name__ == "__main__":
    main()
