"""The loss on text that training never saw, in nats per token and bits per byte."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from cerebras_gpt.data.batches import HeldOutWindows
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.distributed import World
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.loss import token_losses
from cerebras_gpt.train.execution import Execution, settle


class Scoring(NamedTuple):
    """How much held-out text is scored, and how."""

    n_tokens: int
    """About how many tokens, spread over all of them: all, unless there are more."""
    overlap: int
    """Windows that each token lies in: 2 gives every token at least half a window of context."""

    def windows(self, held_out: Shards, seq_len: int, batch_size: int) -> HeldOutWindows:
        """The windows to score."""
        every = -(-held_out.n_tokens // self.n_tokens)
        return HeldOutWindows(held_out, seq_len, seq_len // self.overlap, batch_size, every)


AT_THE_END = Scoring(2**18, overlap=2)
"""How a finished run is scored."""


class HeldOutLoss(NamedTuple):
    """The same loss in both units."""

    loss: float
    """Nats per token."""
    bits_per_byte: float
    """Nats of all tokens, end-of-text included, over ln 2 and the bytes of the text: comparable between tokenizers."""


@torch.no_grad()
def held_out_loss(
    model: GPT,
    windows: HeldOutWindows,
    execution: Execution,
    world: World = World(),  # noqa: B008  (it is frozen)
    poll: Callable[[], None] = lambda: None,
) -> HeldOutLoss:
    """The mean over every scored token of the windows; many processes share them and all get the same bits.

    A model in shares computes on all its processes at once, so there each of them scores everything. `poll` is called
    between batches, and may raise.
    """
    nats = torch.zeros(len(windows), dtype=torch.float64)  # by batch; each is found by one process, the sum is exact
    mine = World() if execution.is_sharded else world
    for index in mine.share(range(len(windows))):
        poll()
        ids, targets = (tensor.to(execution.device) for tensor in windows[index])
        hidden = model.hidden(ids, dtype=execution.torch_dtype)  # (B, T, C)
        nats[index] = token_losses(hidden, model.head_table, targets).double().sum().item()
    settle(model)
    mine.sum_([nats])
    total = sum(nats.tolist())
    return HeldOutLoss(total / windows.n_targets, total / math.log(2) / windows.n_bytes)
