"""The loss's pass over logits on a GPU, by Triton, which torch's builds for GPUs bring; imported only there."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK, WARPS = 16384, 32
"""Logits that a program takes at a time, and its size: two of them fill a multiprocessor, so the rows of all lie in the
cache that they share when they are read again."""


@triton.jit  # type: ignore[untyped-decorator]
def _rows(logits, targets, nats, vocab_size: tl.constexpr, width: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row: its highest logit and the sum of its exponentials in one pass, the gradients in a second."""
    row = tl.program_id(0)
    start = logits + row.to(tl.int64) * width
    target = tl.load(targets + row)
    correct = tl.load(start + target).to(tl.float32)
    lanes = tl.arange(0, block)
    highest = float("-inf")
    total = 0.0
    for first in range(0, vocab_size, block):
        at = first + lanes
        x = tl.load(start + at, mask=at < vocab_size, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(x, 0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(x - higher), 0)
        highest = higher
    for first in range(0, width, block):
        at = first + lanes
        x = tl.load(start + at, mask=at < vocab_size, other=float("-inf")).to(tl.float32)
        p = tl.exp(x - highest) / total - tl.where(at == target, 1.0, 0.0)
        tl.store(start + at, p.to(logits.dtype.element_ty), mask=at < width)
    tl.store(nats + row, highest + tl.log(total) - correct)


def loss_rows(logits: Tensor, targets: Tensor, vocab_size: int) -> Tensor:
    """Gives the nats of each row; softmax minus one-hot takes the place of the logits: (N, padded V), (N,) -> (N,)."""
    nats = torch.empty(len(targets), dtype=torch.float32, device=logits.device)
    _rows[(len(targets),)](logits, targets, nats, vocab_size, logits.shape[1], block=BLOCK, num_warps=WARPS)
    return nats
