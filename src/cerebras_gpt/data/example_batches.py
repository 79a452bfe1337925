"""Batches of examples for tuning: only answers count, rows of like length go together, pure functions of the step."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from cerebras_gpt.data.batches import Batch
from cerebras_gpt.data.examples import Example
from cerebras_gpt.data.order import epoch_key, permuted
from cerebras_gpt.model.loss import IGNORED
from cerebras_gpt.text.tokenizer import Tokenizer

POOL = 32
"""Batches whose rows are sorted by length together: more saves more padding, fewer mix better."""

LENGTHS = 16
"""Rows are filled to multiples of it: memory kept by the process fits again when shapes recur."""


class Sample(NamedTuple):
    """An example in ids."""

    ids: list[int]
    """Prompt, answer, end of text."""
    n_given: int
    """Ids of the prompt, which are not learned."""
    n_cut: int
    """Ids that the middle of the prompt lost, for the window is not longer."""

    @property
    def n_targets(self) -> int:
        """Ids that are learned: the answer and the end of text."""
        return len(self.ids) - self.n_given


def shortened(ids: list[int], room: int) -> list[int]:
    """Ids without their middle, if they are more than there is room for: beginning and end say most.

    >>> shortened([1, 2, 3, 4, 5], room=3)
    [1, 4, 5]
    """
    if len(ids) <= room:
        return ids
    return ids[: room // 2] + ids[len(ids) - (room - room // 2) :]


def prompt_ids(prompt: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of a prompt; an empty one is the end of the text before it."""
    return tokenizer.encode(prompt) or [tokenizer.end_of_text]


def sample(example: Example, tokenizer: Tokenizer, seq_len: int) -> Sample:
    """Prompt, answer and end of text as at most seq_len + 1 ids; raises ValueError if the answer alone is longer."""
    given, answer = prompt_ids(example.prompt, tokenizer), [*tokenizer.encode(example.answer), tokenizer.end_of_text]
    room = seq_len + 1 - len(answer)
    if room < 1:
        raise ValueError(f"the answer has {len(answer) - 1} tokens, more than the window of {seq_len} can hold")
    kept = shortened(given, room)
    return Sample(kept + answer, len(kept), len(given) - len(kept))


def padded(samples: Sequence[Sample], filler: int, most: int) -> Batch:
    """Samples as rows of about the longest one's length, at most as many as given, filled on the right: (B, T)."""
    T = min(most, -(-(max(len(sample.ids) for sample in samples) - 1) // LENGTHS) * LENGTHS)
    ids, targets = np.full((len(samples), T), filler), np.full((len(samples), T), IGNORED)
    for row, (tokens, n_given, _) in enumerate(samples):
        ids[row, : len(tokens) - 1] = tokens[:-1]
        targets[row, n_given - 1 : len(tokens) - 1] = tokens[n_given:]
    return Batch(torch.from_numpy(ids), torch.from_numpy(targets))


class ExampleBatches:
    """The training batches of some samples: `rows(step, ...)` depends on the seed and the step alone.

    Each epoch permutes the samples, sorts pools of neighbours by length so that little is padded, and permutes the
    batches. An epoch's last batch is filled up from its beginning.
    """

    def __init__(self, samples: Sequence[Sample], batch_size: int, seed: int, filler: int) -> None:
        assert samples
        self.samples, self.batch_size, self.seed, self.filler = samples, batch_size, seed, filler
        self.steps_per_epoch = -(-len(samples) // batch_size)
        self._lengths = np.array([len(sample.ids) for sample in samples])
        self._order = lru_cache(maxsize=2)(self._epoch)

    def rows(self, step: int, rows: Sequence[int]) -> Batch:
        """These rows of the global batch of a step, about as long as the longest of them: (len(rows), T)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        chosen = self._order(epoch)[index]
        return padded([self.samples[chosen[row]] for row in rows], self.filler, int(self._lengths.max()) - 1)

    def _epoch(self, epoch: int) -> np.ndarray:
        """Which samples make each batch: (steps_per_epoch, batch_size)."""
        key, n = epoch_key(self.seed, epoch), len(self.samples)
        places = np.arange(self.steps_per_epoch * self.batch_size) % n
        order = permuted(places, n, key.rounds)
        size = POOL * self.batch_size
        pools = [order[i : i + size] for i in range(0, len(order), size)]
        batches = np.concatenate([pool[np.argsort(self._lengths[pool], kind="stable")] for pool in pools])
        mixed = permuted(np.arange(self.steps_per_epoch), self.steps_per_epoch, key.rounds)
        return batches.reshape(self.steps_per_epoch, self.batch_size)[mixed]


def by_length(samples: Sequence[Sample], batch_size: int, filler: int) -> Iterator[Batch]:
    """Every sample once, rows of like length together, the longest first: what a held-out part is scored with."""
    order = sorted(samples, key=lambda sample: -len(sample.ids))
    most = len(order[0].ids) - 1 if order else 0
    return (padded(order[i : i + batch_size], filler, most) for i in range(0, len(order), batch_size))
