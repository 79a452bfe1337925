"""T6: the ordered samples of a global batch are the same for any number of processes, micro-batch and resumption."""

import random
from collections import Counter

import numpy as np

from cerebras_gpt.data.batches import PackedBatches
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.distributed import World

WORLD_SIZES = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64, 120, 960)
EPOCHS = 3


class Counting(Shards):
    """A split whose tokens are 0, 1, 2, ..., so that a batch shows where it comes from."""

    def __init__(self, n_tokens):
        self.n_tokens, self.split = n_tokens, "train"
        self._starts, self._arrays = [0, n_tokens], [np.arange(n_tokens)]


def drawn(draw):
    """One case: a text, a batch, two numbers of processes, a step to stop at."""
    seq_len, n_samples = draw.randint(1, 12), draw.randint(2, 60)
    return {
        "n_tokens": n_samples * seq_len + draw.randint(1, seq_len),
        "seq_len": seq_len,
        "batch_size": draw.randint(1, 16),
        "seed": draw.getrandbits(63),
        "before": draw.choice(WORLD_SIZES),
        "after": draw.choice(WORLD_SIZES),
        "micro": draw.randint(1, 8),
        "stop": draw.random(),
    }


def put_together(batches, step, size, micro):
    """The first token of each row of a global batch, from the parts that its processes see, in global order."""
    order, seen = [], []
    for rank in range(size):
        rows = World(rank, size).share(range(batches.batch_size))
        for first in range(0, len(rows), micro):  # an empty share has no micro-batch
            part = rows[first : first + micro]
            order.extend(part)
            seen.extend(batches.rows(step, part).ids[:, 0].tolist())
    if sorted(order) != list(range(batches.batch_size)):
        return None
    return [start for _, start in sorted(zip(order, seen, strict=True))]


def problems(case):
    """What is wrong in one case."""
    batches = PackedBatches(Counting(case["n_tokens"]), case["seq_len"], case["batch_size"], case["seed"])
    size, n = case["batch_size"], -(-EPOCHS * batches.n_samples // case["batch_size"])
    starts = batches._starts(np.arange(n * size)).tolist()
    stop = int(case["stop"] * n)
    again = PackedBatches(Counting(case["n_tokens"]), case["seq_len"], size, case["seed"])
    found = []
    for step, world in ((max(0, stop - 1), case["before"]), (stop, case["after"])):
        if put_together(again, step, world, case["micro"]) != starts[step * size : (step + 1) * size]:
            found.append(f"another order at step {step} of {world} processes")
    return found + lost_or_doubled(starts, batches)


def lost_or_doubled(starts, batches):
    """Whether an epoch has a sample not exactly once."""
    n = batches.n_samples
    epochs = [Counter(starts[epoch * n : (epoch + 1) * n]) for epoch in range(EPOCHS)]
    return [f"epoch {n} has a sample twice" for n, epoch in enumerate(epochs) if max(epoch.values()) > 1] + [
        f"epoch {number} lacks samples" for number, epoch in enumerate(epochs) if len(epoch) != n
    ]


def campaign(report, folder, cases, seed):
    """As many drawn cases as asked for; the case itself is what a failure is replayed from."""
    draw = random.Random(seed)
    for number in range(cases):
        case = drawn(draw)
        report.case(f"{number} {case}", problems(case))
    report.figures["cases"] = cases
