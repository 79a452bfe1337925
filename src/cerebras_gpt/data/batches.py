"""Batches of token windows: for training a pure function of the step, for evaluation every token once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cerebras_gpt.data.order import epoch_key, permuted
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.model.loss import IGNORED


class Batch(NamedTuple):
    """Inputs and the targets that belong to them."""

    ids: Tensor
    """(B, T) int64."""
    targets: Tensor
    """(B, T) int64, -100 where there is none."""


class PackedBatches:
    """The training batches of a split: `batches[step]` depends on the seed and the step alone.

    A sample is seq_len + 1 consecutive tokens of the concatenated documents, as in the paper (Dey et al. 2023): windows
    cross documents, and neighbours share one token, the label of the one and the first input of the other. Each epoch
    shifts the windows by an offset of its own and permutes them.
    """

    def __init__(self, shards: Shards, seq_len: int, batch_size: int, seed: int) -> None:
        if shards.n_tokens < seq_len + 1:
            raise ValueError(
                f"the {shards.split} split has {shards.n_tokens} tokens; one window needs seq_len + 1 = {seq_len + 1}; "
                "give more text or a smaller seq_len"
            )
        self.shards, self.seq_len, self.batch_size, self.seed = shards, seq_len, batch_size, seed
        # The same number of windows in every epoch, so that any offset below seq_len fits.
        self.n_samples = max(1, (shards.n_tokens - seq_len) // seq_len)
        self._n_offsets = min(seq_len, shards.n_tokens - self.n_samples * seq_len)

    def __getitem__(self, step: int) -> Batch:
        """The global batch of a step: (B, T)."""
        return self.rows(step, range(self.batch_size))

    def rows(self, step: int, rows: Sequence[int]) -> Batch:
        """Only these rows of the global batch of a step: (len(rows), T)."""
        starts = self._starts(step * self.batch_size + np.asarray(rows, np.int64))
        windows = np.empty((len(starts), self.seq_len + 1), np.int64)
        for row, start in enumerate(starts.tolist()):
            windows[row] = self.shards.tokens(start, self.seq_len + 1)
        tokens = torch.from_numpy(windows)  # (B, T + 1)
        return Batch(tokens[:, :-1], tokens[:, 1:])

    def _starts(self, samples: np.ndarray) -> np.ndarray:
        """The first token of each sample of the endless sequence of epochs: (N,) -> (N,)."""
        epochs, indices = np.divmod(samples, self.n_samples)
        starts = np.empty_like(samples)
        for epoch in dict.fromkeys(epochs.tolist()):
            key = epoch_key(self.seed, epoch)
            here = epochs == epoch
            windows = permuted(indices[here], self.n_samples, key.rounds)
            starts[here] = windows * self.seq_len + key.offset % self._n_offsets
        return starts


class HeldOutWindows:
    """A split in order, in overlapping windows that predict every token but the first exactly once.

    Windows advance by `stride`; what an earlier window has predicted is ignored in the later one, where it serves as
    context. A stride of seq_len is the quickest, a smaller one gives each token more context.
    """

    def __init__(
        self, shards: Shards, seq_len: int, stride: int, batch_size: int, max_tokens: int | None = None
    ) -> None:
        if not 1 <= stride <= seq_len:
            raise ValueError(f"stride must be from 1 to seq_len = {seq_len}, not {stride}")
        self.shards, self.seq_len, self.stride, self.batch_size = shards, seq_len, stride, batch_size
        self.n_tokens = shards.n_tokens if max_tokens is None else min(max_tokens, shards.n_tokens)
        if self.n_tokens < 2:
            raise ValueError(f"{self.n_tokens} held-out tokens leave nothing to predict; give 2 or more")

    @property
    def n_targets(self) -> int:
        """How many tokens are predicted."""
        return self.n_tokens - 1

    @property
    def n_windows(self) -> int:
        """How many windows that takes."""
        return 1 - min(0, self.seq_len - self.n_targets) // self.stride

    @property
    def n_bytes(self) -> int:
        """Bytes of the text that the windows cover."""
        if self.n_tokens == self.shards.n_tokens:
            return self.shards.n_bytes
        return len(self.shards.tokenizer.decode_bytes(self.shards.tokens(0, self.n_tokens).tolist()))

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-self.n_windows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Batch:
        """One batch, so that several processes can share them: (B, T), the last one perhaps with fewer rows."""
        first = index * self.batch_size
        n_rows = min(self.batch_size, self.n_windows - first)
        ids = np.full((n_rows, self.seq_len), self.shards.tokenizer.end_of_text)
        targets = np.full((n_rows, self.seq_len), IGNORED)
        for row in range(n_rows):
            start = (first + row) * self.stride
            window = self.shards.tokens(start, min(self.seq_len + 1, self.n_tokens - start))
            n_seen = self.seq_len - self.stride if start else 0
            ids[row, : len(window) - 1] = window[:-1]
            targets[row, n_seen : len(window) - 1] = window[n_seen + 1 :]
        return Batch(torch.from_numpy(ids), torch.from_numpy(targets))
