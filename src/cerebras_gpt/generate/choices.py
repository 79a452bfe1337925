"""How likely each of a few continuations is: the prompt is read once, whatever the number of choices."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cerebras_gpt.generate.cache import KVCache
from cerebras_gpt.model.gpt import GPT

ROWS = 256
"""Prompts times choices that are computed together."""


@torch.inference_mode()
def choice_nats(model: GPT, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[int]]) -> Tensor:
    """Minus the log-probability of every choice after every prompt: N prompts, K choices -> (N, K) in float64.

    A prompt and the longest choice together must fit in the window. Prompts of like length are computed together, the
    longest first: what comes later then fits into the memory that was.
    """
    nats = torch.empty(len(prompts), len(choices), dtype=torch.float64)
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    n_together = max(1, ROWS // len(choices))
    for i in range(0, len(order), n_together):
        rows = order[i : i + n_together]
        nats[rows] = _nats(model, [prompts[row] for row in rows], choices)
    return nats


def _nats(model: GPT, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[int]]) -> Tensor:
    """The same for prompts that are computed at once: (n, K)."""
    table, lengths, n_inputs = model.head_table, [len(ids) for ids in prompts], max(map(len, choices)) - 1
    cache = KVCache(model.architecture, len(prompts), max(lengths) + n_inputs, table.dtype, table.device)
    ids = torch.tensor([[*prompt, *[0] * (max(lengths) - len(prompt))] for prompt in prompts], device=table.device)
    hidden = model.hidden(ids, cache, table.dtype)  # (n, T, C)
    cache.advance(lengths)
    n, K = len(prompts), len(choices)
    last = hidden[range(n), [length - 1 for length in lengths]]  # (n, C)
    first = _log_probabilities(model, last)[:, [choice[0] for choice in choices]]  # (n, K)
    if n_inputs == 0:
        return -first.cpu()
    cache.keep([row for row in range(n) for _ in range(K)])
    filled = torch.tensor([[*choice, *[0] * (n_inputs + 1 - len(choice))] for choice in choices], device=table.device)
    later = model.hidden(filled[:, :-1].repeat(n, 1), cache, table.dtype)  # (n K, T, C)
    wanted = filled[:, 1:].repeat(n, 1)[..., None]  # (n K, T, 1)
    each = [_log_probabilities(model, later[:, t]).gather(-1, wanted[:, t]) for t in range(n_inputs)]  # T of (n K, 1)
    rest = torch.cat(each, -1)  # (n K, T)
    counted = torch.tensor([[t < len(choice) - 1 for t in range(n_inputs)] for choice in choices], device=table.device)
    return -(first + (rest.view(n, K, n_inputs) * counted).sum(-1)).cpu()


def _log_probabilities(model: GPT, hidden: Tensor) -> Tensor:
    """(..., C) -> (..., V) in float64."""
    return torch.log_softmax(model.logits(hidden).double(), -1)
