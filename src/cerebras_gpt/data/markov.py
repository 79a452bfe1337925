"""A made-up language for checks that need tokens and no text: Zipf's frequencies, and words that follow words."""

from collections.abc import Sequence

import numpy as np
import torch

from cerebras_gpt.data.batches import Batch

N_SUCCESSORS = 4
"""Tokens that may follow a token by the rule."""

RULE = 0.75
"""How often the rule decides; else the frequencies alone."""


class MarkovBatches:
    """Batches of a Markov chain with Zipf's frequencies: like PackedBatches a pure function of (seed, step).

    The language (who follows whom) is the same for every seed, so that only the sample differs.
    """

    def __init__(self, vocab_size: int, seq_len: int, batch_size: int, seed: int) -> None:
        self.vocab_size, self.seq_len, self.batch_size, self.seed = vocab_size, seq_len, batch_size, seed
        weights = 1 / np.arange(1, vocab_size + 1)
        self.frequencies = weights / weights.sum()  # (V,)
        language = np.random.default_rng(0)
        self.successors = language.choice(vocab_size, (vocab_size, N_SUCCESSORS), p=self.frequencies)  # (V, 4)

    def __getitem__(self, step: int) -> Batch:
        """The global batch of a step: (B, T)."""
        return self.rows(step, range(self.batch_size))

    def rows(self, step: int, rows: Sequence[int]) -> Batch:
        """Only these rows of the global batch of a step: (len(rows), T)."""
        tokens = torch.from_numpy(self._walks(step)[list(rows)])  # (b, T + 1)
        return Batch(tokens[:, :-1], tokens[:, 1:])

    def _walks(self, step: int) -> np.ndarray:
        """One walk through the language a row: (B, T + 1)."""
        chance = np.random.default_rng((self.seed, step))
        shape = (self.seq_len + 1, self.batch_size)
        free = chance.choice(self.vocab_size, shape, p=self.frequencies)
        follows, which = chance.random(shape) < RULE, chance.integers(0, N_SUCCESSORS, shape)
        walks = free.copy()
        for t in range(1, len(walks)):
            walks[t] = np.where(follows[t], self.successors[walks[t - 1], which[t]], free[t])
        return walks.T
