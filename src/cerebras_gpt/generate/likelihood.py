"""How likely given ids are, at any length: overlapping windows, each id scored once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.loss import token_losses


class Window(NamedTuple):
    """The model reads ids[start : end - 1] and is asked for ids[first : end]."""

    start: int
    first: int
    end: int


def windows(n_ids: int, first: int, seq_len: int) -> Iterator[Window]:
    """Windows that score every id from `first` on once, given at least half a context or all there is before it.

    >>> list(windows(n_ids=9, first=1, seq_len=4))
    [Window(start=0, first=1, end=5), Window(start=2, first=5, end=7), Window(start=4, first=7, end=9)]
    """
    while first < n_ids:
        end = min(n_ids, max(seq_len + 1, first + max(1, seq_len // 2)))
        yield Window(max(0, end - 1 - seq_len), first, end)
        first = end


@torch.inference_mode()
def token_nats(model: GPT, ids: Sequence[int], first: int = 1) -> Tensor:
    """Minus the log-probability of each id from `first` (at least 1) on: N ids -> (N - first,) in float64."""
    weight = model.head_table
    tokens = torch.tensor(ids, dtype=torch.long, device=weight.device)  # (N,)
    nats = [torch.zeros(0, dtype=torch.float64)]
    for start, a, end in windows(len(ids), first, model.architecture.seq_len):
        hidden = model.hidden(tokens[None, start : end - 1], dtype=weight.dtype)[0]  # (T, C)
        nats.append(token_losses(hidden[a - 1 - start :], weight, tokens[a:end]).cpu().double())  # (end - a,)
    return torch.cat(nats)
