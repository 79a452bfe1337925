"""Beam search: the likeliest text found by following a few candidates at once, long ones not held against them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cerebras_gpt.generate.cache import KVCache
from cerebras_gpt.model.gpt import GPT


@dataclass(frozen=True)
class Beam:
    """How wide the search is, and how length counts."""

    width: int = 4
    """Candidates that are followed; 1 is greedy."""
    length_penalty: float = 0.6
    """alpha of Wu et al. (2016, equation 14): 0 prefers short texts, 1 about compares means."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"beam width is {self.width}; it must be at least 1")
        if not 0 <= self.length_penalty <= 5:
            raise ValueError(f"length_penalty is {self.length_penalty}; it must be from 0 to 5")

    def score(self, log_probability: float, n_tokens: int) -> float:
        """What candidates are compared by: log-probability over ((5 + length) / 6)^alpha."""
        return float(log_probability / ((5 + n_tokens) / 6) ** self.length_penalty)


class Candidate(NamedTuple):
    """A beginning of the answer."""

    ids: list[int]
    log_probability: float


class Choice(NamedTuple):
    """A candidate that goes on from a row of the cache."""

    row: int
    candidate: Candidate


@torch.inference_mode()
def beam_search(model: GPT, prompt: Sequence[int], max_tokens: int, end: int, beam: Beam) -> list[int]:
    """The best continuation, without the end id; of max_tokens at most, fewer if the window ends before."""
    table, seq_len = model.head_table, model.architecture.seq_len
    n_new = min(max_tokens, seq_len + 1 - len(prompt))
    assert n_new >= 1
    cache = KVCache(model.architecture, 1, min(seq_len, len(prompt) + n_new), table.dtype, table.device)
    hidden = model.hidden(torch.tensor([list(prompt)], device=table.device), cache, table.dtype)[:, -1]  # (1, C)
    cache.advance([len(prompt)])
    alive, done = [Candidate([], 0.0)], list[Candidate]()
    for n_tokens in range(1, n_new + 1):
        choices, ended = step(model.logits(hidden), alive, end, beam.width)
        done += ended
        alive = [choice.candidate for choice in choices]
        if len(done) >= beam.width or n_tokens == n_new:
            break
        cache.keep([choice.row for choice in choices])
        last = torch.tensor([candidate.ids[-1:] for candidate in alive], device=table.device)  # (W, 1)
        hidden = model.hidden(last, cache, table.dtype)[:, 0]  # (W, C)
        cache.advance([1] * len(alive))
    scored = [(beam.score(p, len(ids) + 1), ids) for ids, p in done] or [(beam.score(p, len(i)), i) for i, p in alive]
    return max(scored, key=lambda pair: pair[0])[1]


def step(logits: Tensor, alive: Sequence[Candidate], end: int, width: int) -> tuple[list[Choice], list[Candidate]]:
    """The `width` best that go on, and those that ended among the `width` best of all: (W, V) -> candidates."""
    V = logits.shape[-1]
    before = torch.tensor([candidate.log_probability for candidate in alive], dtype=torch.float64)  # (W,)
    total = torch.log_softmax(logits.cpu().double(), -1) + before[:, None]  # (W, V)
    best = total.flatten().topk(min(2 * width, total.numel()))
    going: list[Choice] = []
    ended: list[Candidate] = []
    for place, (value, index) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        row, token = divmod(index, V)
        if token != end and len(going) < width:
            going.append(Choice(row, Candidate([*alive[row].ids, token], value)))
        elif token == end and place < width:
            ended.append(Candidate(alive[row].ids, value))
    return going, ended
