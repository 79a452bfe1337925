"""The loss on text that training never saw, in nats per token and bits per byte."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from cerebras_gpt.data.batches import HeldOutWindows
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.loss import token_losses
from cerebras_gpt.train.execution import Execution


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
    model: GPT, windows: HeldOutWindows, execution: Execution, poll: Callable[[], None] = lambda: None
) -> HeldOutLoss:
    """The mean over every scored token of the windows; `poll` is called between batches, and may raise."""
    nats = 0.0
    for batch in windows:
        poll()
        ids, targets = (tensor.to(execution.device) for tensor in batch)
        hidden = model.hidden(ids, dtype=execution.torch_dtype)  # (B, T, C)
        nats += token_losses(hidden, model.head_table, targets).double().sum().item()
    return HeldOutLoss(nats / windows.n_targets, nats / math.log(2) / windows.n_bytes)
