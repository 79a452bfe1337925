"""Batches of token windows: for training a pure function of the step, for evaluation every token once."""

from collections.abc import Iterator, Sequence
from functools import cached_property
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

    Windows advance by `stride`; what an earlier window predicts is ignored in the later one, where it serves as
    context. A stride of seq_len is the quickest, a smaller one gives each token more context. With `every` above 1
    only each so-many-th window counts: a quick look that is still spread over the whole text.
    """

    def __init__(self, shards: Shards, seq_len: int, stride: int, batch_size: int, every: int = 1) -> None:
        if not 1 <= stride <= seq_len:
            raise ValueError(f"stride must be from 1 to seq_len = {seq_len}, not {stride}")
        if shards.n_tokens < 2:
            raise ValueError(f"{shards.n_tokens} held-out tokens leave nothing to predict; give 2 or more")
        self.shards, self.seq_len, self.stride, self.batch_size = shards, seq_len, stride, batch_size
        self.every = every

    @property
    def n_windows(self) -> int:
        """How many windows are scored."""
        whole = 1 - min(0, self.seq_len - (self.shards.n_tokens - 1)) // self.stride
        return -(-whole // self.every)

    def _scored(self, window: int) -> range:
        """The tokens that a window predicts."""
        start = window * self.every * self.stride
        n_seen = self.seq_len - self.stride if start else 0
        return range(start + n_seen + 1, min(start + self.seq_len + 1, self.shards.n_tokens))

    @cached_property
    def n_targets(self) -> int:
        """How many tokens are predicted."""
        return sum(len(self._scored(window)) for window in range(self.n_windows))

    @cached_property
    def n_bytes(self) -> int:
        """Bytes of the text that is scored; of the whole text if no window is left out."""
        if self.every == 1:
            return self.shards.n_bytes
        spans = (self._scored(window) for window in range(self.n_windows))
        texts = (self.shards.tokens(span.start, len(span)).tolist() for span in spans)
        return sum(len(self.shards.tokenizer.decode_bytes(ids)) for ids in texts)

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
            scored = self._scored(first + row)
            start = (first + row) * self.every * self.stride
            window = self.shards.tokens(start, scored.stop - start)
            ids[row, : len(window) - 1] = window[:-1]
            targets[row, scored.start - start - 1 : len(window) - 1] = window[scored.start - start :]
        return Batch(torch.from_numpy(ids), torch.from_numpy(targets))
