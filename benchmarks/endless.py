"""Text without end through a window of fixed length: what reading again and attention sinks buy.

    python benchmarks/endless.py --run runs/quickstart --data runs/quickstart/data \\
        --out benchmarks/results/DATE-endless.json --picture docs/endless.png

Held-out text streams through the network, which never sees more than its window. Read again: when the window is full
its last half is read anew, at the first positions; with sinks, after the first tokens of the stream (what `generate
--slide` does). Rolling: the oldest keys and values are dropped and nothing is read again; with sinks the first
ones stay (Xiao et al. 2024). With learned positions there is none beyond the last, so every new token
of a rolling cache gets it.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from cerebras_gpt import checkpoint
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.report.figures import STYLE, blank, colour_of

BUCKET = 64


class RollingCache:
    """Keys and values of one layer after another: the first `n_sinks` and the newest, `capacity` in all."""

    def __init__(self, capacity: int, n_sinks: int) -> None:
        self.capacity, self.n_sinks, self.n_seen = capacity, n_sinks, 0
        self.kv: dict[int, tuple[Tensor, Tensor]] = {}

    def positions(self, n_tokens: int) -> Tensor:
        assert n_tokens == 1
        return torch.tensor([min(self.n_seen, self.capacity - 1)])

    def layer(self, index: int) -> "RollingLayer":
        return RollingLayer(self, index)

    def cut(self, x: Tensor) -> Tensor:
        """(B, H, S, D) -> at most the capacity of S."""
        if x.shape[2] <= self.capacity:
            return x
        return torch.cat([x[:, :, : self.n_sinks], x[:, :, x.shape[2] - self.capacity + self.n_sinks :]], 2)


class RollingLayer:
    def __init__(self, cache: RollingCache, index: int) -> None:
        self.cache, self.index = cache, index

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, None]:
        old = self.cache.kv.get(self.index)
        if old is not None:
            k, v = (self.cache.cut(torch.cat(pair, 2)) for pair in zip(old, (k, v), strict=True))
        self.cache.kv[self.index] = k, v
        return k, v, None


def rolling(model: GPT, ids: Tensor, n_sinks: int) -> Tensor:
    """Loss of each token of streams, one token at a time: (B, N) -> (B, N - 1)."""
    cache, nats = RollingCache(model.architecture.seq_len, n_sinks), []
    for t in range(ids.shape[1] - 1):
        logits = model(ids[:, t : t + 1], cache)[:, 0].double()  # (B, V)
        nats.append(-logits.log_softmax(-1).gather(1, ids[:, t + 1 : t + 2])[:, 0])
        cache.n_seen += 1
    return torch.stack(nats, 1)


def read_again(model: GPT, ids: Tensor, n_sinks: int) -> Tensor:
    """The same where a full window goes on from the sinks and its last half."""
    T, N = model.architecture.seq_len, ids.shape[1]
    nats, start, done = [], 0, 0
    while done < N - 1:
        sinks = min(n_sinks, start)
        end = min(N - 1, start + T - sinks)
        window = torch.cat([ids[:, :sinks], ids[:, start:end]], 1)  # (B, <= T)
        logs = model(window).double().log_softmax(-1)[:, sinks + done - start :]
        nats.append(-logs.gather(2, ids[:, done + 1 : end + 1, None])[..., 0])
        start, done = end + 1 - T // 2, end
    return torch.cat(nats, 1)


WAYS: dict[str, Callable[[GPT, Tensor], Tensor]] = {
    "read again, no sinks": lambda model, ids: read_again(model, ids, 0),
    "read again, 4 sinks": lambda model, ids: read_again(model, ids, 4),
    "rolling, no sinks": lambda model, ids: rolling(model, ids, 0),
    "rolling, 4 sinks": lambda model, ids: rolling(model, ids, 4),
    "rolling, 16 sinks": lambda model, ids: rolling(model, ids, 16),
}


@torch.inference_mode()
def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Every way on the same streams."""
    model = checkpoint.load_model(checkpoint.resolve(arguments.run))
    held_out, T = Shards.open(arguments.data, "val"), model.architecture.seq_len
    B, N = arguments.streams, arguments.windows * T + 1
    starts = torch.linspace(0, held_out.n_tokens - N, B).long().tolist()
    ids = torch.stack([torch.as_tensor(held_out.tokens(start, N).astype("int64")) for start in starts])  # (B, N)
    ways = {}
    for name, run in WAYS.items():
        began = time.perf_counter()
        nats = run(model, ids).mean(0)  # (N - 1,)
        ways[name] = {
            "nats_beyond_the_window": float(nats[T:].mean()),
            "seconds": round(time.perf_counter() - began, 2),
            "by_token": [round(float(bucket.mean()), 4) for bucket in nats.split(BUCKET)],
        }
        print(name, round(float(nats[T:].mean()), 4), flush=True)
    facts = {"window": T, "streams": B, "tokens": N - 1, "bucket": BUCKET, "ways": ways}
    return {**facts, "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"}


def draw(found: dict, path: Path) -> None:
    """Loss against the place in the stream."""
    with matplotlib.rc_context(STYLE):
        figure, ax = blank(8.0, 4.2, "tokens of the stream, in windows of the network", "held-out loss, nats per token")
        for i, (name, values) in enumerate(found["ways"].items()):
            x = [found["bucket"] * (n + 0.5) / found["window"] for n in range(len(values["by_token"]))]
            ax.plot(x, values["by_token"], color=colour_of(i), linewidth=1.4, label=name)
        ax.legend(frameon=False, fontsize=8)
        figure.savefig(path, dpi=90, facecolor="white")


def main() -> None:
    """Measures, writes, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--windows", type=int, default=4, help="length of a stream")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    arguments = parser.parse_args()
    found = measure(arguments)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    draw(found, arguments.picture)


if __name__ == "__main__":
    main()
