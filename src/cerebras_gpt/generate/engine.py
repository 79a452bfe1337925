"""Ids in, ids out: a batch of prompts is continued token by token with a cache."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from cerebras_gpt.config import unknown
from cerebras_gpt.generate.cache import KVCache
from cerebras_gpt.generate.sampling import Sampling, next_tokens
from cerebras_gpt.model.gpt import GPT

Overflow = Literal["stop", "slide"]
"""When the context is full: end the sequence, or go on from the last half of the context."""
Finish = Literal["end", "length", "context", "cancelled"]
"""A stop id came, max_tokens were made, the context is full, or the caller has enough."""


@dataclass
class Continuation:
    """One prompt and what follows it so far."""

    ids: list[int]
    """The prompt's ids, then the new ones."""
    generator: torch.Generator
    n_new: int = 0
    start: int = 0
    """First id the model still sees; grows when the context slides."""
    finish: Finish | None = None

    @property
    def window(self) -> list[int]:
        """The ids the model sees."""
        return self.ids[self.start :]

    @property
    def n_window(self) -> int:
        """How many ids the model sees."""
        return len(self.ids) - self.start


class Generation:
    """A batch of prompts being continued; a sequence's ids do not depend on the others."""

    def __init__(
        self,
        model: GPT,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        max_tokens: int,
        stop_ids: Collection[int] = (),
        overflow: Overflow = "stop",
    ) -> None:
        check(prompts, max_tokens, overflow, model.architecture.seq_len)
        self.model, self.sampling, self.max_tokens = model, sampling, max_tokens
        self.stop_ids, self.overflow = frozenset(stop_ids), overflow
        self.continuations = [Continuation(list(ids), sampling.generator(i)) for i, ids in enumerate(prompts)]
        self._rows = list(range(len(prompts)))  # which continuation each row of the cache belongs to
        self._cache: KVCache | None = None

    @property
    def is_finished(self) -> bool:
        """Whether no sequence goes on."""
        return all(continuation.finish for continuation in self.continuations)

    def cancel(self, index: int) -> None:
        """Ends one sequence before the next step, if it has not ended by itself."""
        continuation = self.continuations[index]
        continuation.finish = continuation.finish or "cancelled"

    @torch.inference_mode()
    def step(self) -> list[int | None]:
        """The next token of each sequence, a stop id included; None for those that had finished before."""
        assert not self.is_finished
        self._drop_finished()
        rows = [self.continuations[index] for index in self._rows]
        logits = self.model.logits(self._last_hidden(rows))  # (B, V)
        new = next_tokens(logits, [row.ids for row in rows], self.sampling, [row.generator for row in rows])
        tokens: list[int | None] = [None] * len(self.continuations)
        for index, row, token in zip(self._rows, rows, new, strict=True):
            tokens[index] = token
            row.ids.append(token)
            row.n_new += 1
            row.finish = self._finish(row)
        return tokens

    def _finish(self, row: Continuation) -> Finish | None:
        if row.ids[-1] in self.stop_ids:
            return "end"
        if row.n_new == self.max_tokens:
            return "length"
        if self.overflow == "stop" and row.n_window > self.model.architecture.seq_len:
            return "context"
        return None

    def _drop_finished(self) -> None:
        going = [row for row, index in enumerate(self._rows) if self.continuations[index].finish is None]
        if len(going) == len(self._rows):
            return
        self._rows = [self._rows[row] for row in going]
        if self._cache is not None:
            self._cache.keep(going)

    def _last_hidden(self, rows: list[Continuation]) -> Tensor:
        """Hidden state of each row's newest id, which is the only one whose logits are needed: (B, C)."""
        if self._cache is None or max(row.n_window for row in rows) > self._cache.capacity:
            return self._prefill(rows)
        ids = torch.tensor([row.ids[-1:] for row in rows], device=self._cache.kv.device)  # (B, 1)
        hidden = self.model.hidden(ids, self._cache, self._cache.kv.dtype)[:, 0]  # (B, C)
        self._cache.advance([1] * len(rows))
        return hidden

    def _prefill(self, rows: list[Continuation]) -> Tensor:
        """Runs all that each row sees in one pass, full windows first cut to their last half: (B, C)."""
        seq_len, weight = self.model.architecture.seq_len, self.model.head_table
        for row in rows:
            if row.n_window > seq_len:
                row.start = len(row.ids) - max(1, seq_len // 2)
        lengths = [row.n_window for row in rows]
        longest, left = max(lengths), self.max_tokens - min(row.n_new for row in rows)
        self._cache = KVCache(
            self.model.architecture, len(rows), min(seq_len, longest + left), weight.dtype, weight.device
        )
        ids = torch.tensor([row.window + [0] * (longest - row.n_window) for row in rows])  # (B, T)
        hidden = self.model.hidden(ids.to(weight.device), self._cache, weight.dtype)  # (B, T, C)
        self._cache.advance(lengths)
        return hidden[range(len(rows)), [length - 1 for length in lengths]]  # (B, C)


def check(prompts: Sequence[Sequence[int]], max_tokens: int, overflow: str, seq_len: int) -> None:
    """Refuses what cannot be generated, in one line that says what to do."""
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; it must be at least 1")
    if overflow not in get_args(Overflow):
        raise ValueError(unknown("overflow", overflow, get_args(Overflow)))
    longest = max(map(len, prompts), default=1)
    if longest > seq_len:
        raise ValueError(f"a prompt has {longest} tokens, the context holds {seq_len}; keep at most its last {seq_len}")
    if not all(prompts):
        raise ValueError("a prompt has no tokens; start it with the end-of-text token")


def generate_ids(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    max_tokens: int,
    stop_ids: Collection[int] = (),
    overflow: Overflow = "stop",
) -> Iterator[list[int | None]]:
    """Steps of a batch, each with the new token of every sequence, or None once it has finished."""
    generation = Generation(model, prompts, sampling, max_tokens, stop_ids, overflow)
    return _steps(generation)


def _steps(generation: Generation) -> Iterator[list[int | None]]:
    while not generation.is_finished:
        yield generation.step()
