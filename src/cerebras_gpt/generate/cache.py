"""Keys and values of the past, kept so that each new token costs one position instead of all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cerebras_gpt.model.architecture import Architecture


class Span(NamedTuple):
    """Where one forward pass writes and how far it reads, the same for every layer."""

    slots: Tensor
    """Slot, which is also the position, of each new token: (B, T)."""
    end: int
    """Slots to read, up to the longest row's last."""
    mask: Tensor | None
    """Which slots each new token sees: (B, 1, T, end), None if simply causal."""
    start: int | None
    """First slot if all rows write to the same ones, so that a plain slice does."""


class KVCache:
    """The past of a batch whose rows may differ in length: one (L, 2, B, H, S, D) tensor, allocated once.

    Every row starts at slot 0 and grows to the right, so a token has the same position, and sees the same past, as
    in a batch of its own. Prompts of different lengths are filled to the right with any id: a pass runs over the
    filled rectangle, then `advance` says how many tokens of each row were real, and the rest is overwritten.
        logits = model(ids, cache)      # ids (B, T)
        cache.advance([T] * B)
    """

    def __init__(
        self,
        architecture: Architecture,
        batch_size: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        assert 1 <= capacity <= architecture.seq_len
        shape = (architecture.n_layers, 2, batch_size, architecture.n_heads, capacity, architecture.d_head)
        # Zeros, not empty: a masked slot has weight 0, and 0 times a stray NaN would still be NaN.
        self.kv = torch.zeros(shape, dtype=dtype, device=device)  # (L, 2, B, H, S, D)
        self.lengths = [0] * batch_size
        self._span: Span | None = None

    @property
    def capacity(self) -> int:
        """Tokens that fit in a row."""
        return self.kv.shape[4]

    def positions(self, n_tokens: int) -> Tensor:
        """Positions of the next n_tokens, and where the layers of this pass put them: (B, T)."""
        end = max(self.lengths) + n_tokens
        assert end <= self.capacity
        device = self.kv.device
        starts = torch.tensor(self.lengths, device=device)[:, None]  # (B, 1)
        slots = starts + torch.arange(n_tokens, device=device)  # (B, T)
        aligned = min(self.lengths) == max(self.lengths)
        mask = None
        if not aligned or (self.lengths[0] > 0 and n_tokens > 1):
            mask = torch.arange(end, device=device) <= slots[:, None, :, None]  # (B, 1, T, end)
        self._span = Span(slots, end, mask, self.lengths[0] if aligned else None)
        return slots

    def layer(self, index: int) -> "LayerView":
        """The part of one layer."""
        assert self._span is not None
        return LayerView(self.kv[index], self._span)

    def advance(self, n_tokens: Sequence[int]) -> None:
        """Counts the tokens of each row that the last pass made real."""
        self.lengths = [length + n for length, n in zip(self.lengths, n_tokens, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        """Drops every row but these, in this order."""
        self.kv = self.kv[:, :, list(rows)]  # (L, 2, B', H, S, D)
        self.lengths = [self.lengths[row] for row in rows]


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer of a cache during one forward pass."""

    kv: Tensor
    """Keys and values: (2, B, H, S, D)."""
    span: Span

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Takes (B, H, T, D) each; gives all keys and values (B, H, S + T, D) and the mask, None if simply causal."""
        slots, end, mask, start = self.span
        if start is not None:
            self.kv[0, :, :, start:end], self.kv[1, :, :, start:end] = k, v
        else:
            rows = torch.arange(len(slots), device=slots.device)[:, None]  # (B, 1)
            self.kv[0][rows, :, slots] = k.transpose(1, 2)  # (B, T, H, D)
            self.kv[1][rows, :, slots] = v.transpose(1, 2)  # (B, T, H, D)
        return self.kv[0, :, :, :end], self.kv[1, :, :, :end], mask
