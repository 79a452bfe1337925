"""How likely given ids are, at any length: overlapping windows, each id scored once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.loss import exact_dtype, rows_at_a_time, token_losses


class Window(NamedTuple):
    """The model reads ids[start : end - 1] and is asked for ids[first : end]."""

    start: int
    first: int
    end: int


def windows(n_ids: int, first: int, seq_len: int, stride: int = 0) -> Iterator[Window]:
    """Windows that score every id from `first` on once, `stride` ids each, given a context's rest before them.

    Stride 0 is half a context, so every id has at least half a context or all there is before it.

    >>> list(windows(n_ids=9, first=1, seq_len=4))
    [Window(start=0, first=1, end=5), Window(start=2, first=5, end=7), Window(start=4, first=7, end=9)]
    """
    stride = stride or max(1, seq_len // 2)
    if not 1 <= stride <= seq_len:
        raise ValueError(f"stride is {stride}; it must be 1 to {seq_len}, the window, or 0 for half of it")
    while first < n_ids:
        end = min(n_ids, max(seq_len + 1, first + stride))
        yield Window(max(0, end - 1 - seq_len), first, end)
        first = end


@torch.inference_mode()
def token_nats(model: GPT, ids: Sequence[int], first: int = 1, stride: int = 0) -> Tensor:
    """Minus the log-probability of each id from `first` (at least 1) on: N ids -> (N - first,) in float64."""
    weight = model.head_table
    tokens = torch.tensor(ids, dtype=torch.long, device=weight.device)  # (N,)
    nats = [torch.zeros(0, dtype=torch.float64)]
    for start, a, end in windows(len(ids), first, model.architecture.seq_len, stride):
        hidden = model.hidden(tokens[None, start : end - 1], dtype=weight.dtype)[0]  # (T, C)
        nats.append(token_losses(hidden[a - 1 - start :], weight, tokens[a:end]).cpu().double())  # (end - a,)
    return torch.cat(nats)


class Continuation(NamedTuple):
    """Ids of which those from `first` (at least 1) on are asked for."""

    ids: tuple[int, ...]
    first: int


class Likelihood(NamedTuple):
    """What a model thinks of one continuation."""

    logprob: float
    """Natural logarithm of its probability."""
    is_greedy: bool
    """Whether each of its ids is the likeliest at its place."""


@torch.inference_mode()
def likelihoods(model: GPT, asked: Sequence[Continuation]) -> list[Likelihood]:
    """One batch: each continuation given all before it that fits in the context, cut on the left.

    Rows are padded on the right, where a causal model does not look. A continuation longer than the context is read
    in windows, as `token_nats` does.
    """
    length = model.architecture.seq_len
    rows = [piece for one in asked for piece in _pieces(one, length)]
    width = max(len(ids) - 1 for ids, _ in rows)
    tokens = torch.tensor([[*ids[:-1], *[0] * (width + 1 - len(ids))] for ids, _ in rows])  # (B, T)
    weight = model.head_table
    hidden = model.hidden(tokens.to(weight.device), dtype=weight.dtype)  # (B, T, C)
    at = [(b, t) for b, (ids, first) in enumerate(rows) for t in range(first - 1, len(ids) - 1)]
    targets = torch.tensor([rows[b][0][t + 1] for b, t in at], device=weight.device)  # (N,)
    logprobs, best = _targets(hidden[tuple(torch.tensor(at, device=weight.device).T)], weight, targets)
    owner = torch.tensor([i for i, one in enumerate(asked) for _ in range(len(one.ids) - one.first)])  # (N,)
    sums = torch.zeros(len(asked), dtype=torch.float64).index_add(0, owner, logprobs)  # (R,)
    misses = torch.zeros(len(asked), dtype=torch.long).index_add(0, owner, (~best).long())  # (R,)
    return [Likelihood(float(s), not n) for s, n in zip(sums, misses, strict=True)]


def _pieces(one: Continuation, seq_len: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Rows of at most seq_len + 1 ids, each with the place from which it is asked."""
    if len(one.ids) - one.first <= seq_len:
        start = max(0, len(one.ids) - 1 - seq_len)
        yield one.ids[start:], one.first - start
        return
    for start, first, end in windows(len(one.ids), one.first, seq_len):
        yield one.ids[start:end], first - start


def _targets(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and whether it is the likeliest: (N, C), (V, C), (N,) -> (N,) each."""
    found = []
    n = rows_at_a_time(len(weight), weight.device)
    for i in range(0, len(targets), n):
        logits = torch.nn.functional.linear(hidden[i : i + n], weight)  # (n, V)
        logits, t = logits.to(exact_dtype(logits)), targets[i : i + n]
        mine = logits.gather(1, t[:, None])[:, 0]  # (n,)
        found.append((mine - logits.logsumexp(-1), logits.argmax(-1) == t))
    logprobs, best = (torch.cat(values).cpu() for values in zip(*found, strict=True))
    return logprobs.double(), best
