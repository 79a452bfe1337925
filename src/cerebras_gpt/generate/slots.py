"""Keys and values of many sequences, each in a slot of its own, in memory that is allocated once."""

import math
import mmap

import torch
from torch import Tensor

from cerebras_gpt.generate.weights import LANES
from cerebras_gpt.model.architecture import Architecture

LINE = 64
"""Bytes that a processor fetches together."""
PAGE = 64
"""Prompts are read in pieces of this many tokens that start at its multiples, and kept for others in such pieces."""


def reach(n_tokens: int, seq_len: int) -> int:
    """How many cached positions a token sees, masked ones included: PAGE times a power of two, or the whole context.

    A function of the token's own position, so that sums over the past never depend on who else is there.

    >>> [reach(n, seq_len=600) for n in (1, 64, 65, 200, 513, 600)]
    [64, 64, 128, 256, 640, 640]
    """
    end = PAGE
    while end < n_tokens:
        end *= 2
    return min(end, -(-seq_len // PAGE) * PAGE)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that take no memory, nor time, until something is written there: on a CPU the system's own."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # Not from numpy, which may find memory that was used before and clear it: all of it is taken then.
    n_bytes = math.prod(shape) * dtype.itemsize
    if not hasattr(mmap, "MAP_PRIVATE"):
        return torch.frombuffer(mmap.mmap(-1, n_bytes), dtype=dtype).view(shape)
    memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # attention reads much of it in short pieces: fewer addresses to look up
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


class SlotCache:
    """One (L, 2, R, H, S, D) tensor of R slots; a slot also remembers which ids its first pages were made from."""

    def __init__(
        self, architecture: Architecture, n_slots: int, n_tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.n_slots, self.n_positions = n_slots, reach(n_tokens, architecture.seq_len)
        # Zeros, not empty: a masked position has weight 0, and 0 times a stray NaN would still be NaN.
        self.kv = _zeros(self._shape(architecture), dtype, device)
        self.pages: list[tuple[int, ...]] = [()] * n_slots
        self.used = [0] * n_slots
        """When each slot was last taken, in takes."""

    def _shape(self, of: Architecture) -> tuple[int, ...]:
        return of.n_layers, 2, self.n_slots, of.n_heads, self.n_positions, of.d_head

    def held(self, slot: int, n: int) -> Tensor:
        """What a slot holds of its first n positions, whole pages."""
        return self.kv[:, :, slot, :, :n]

    def common(self, slot: int, ids: tuple[int, ...]) -> int:
        """How many of these ids a slot already holds the keys and values of, in whole pages."""
        pages, n = self.pages[slot], 0
        while n + PAGE <= min(len(ids), len(pages)) and pages[n : n + PAGE] == ids[n : n + PAGE]:
            n += PAGE
        return n

    def take(self, slot: int, ids: tuple[int, ...]) -> int:
        """Gives a slot the longest known beginning of these ids, its own or copied; how many they are."""
        source = max(range(self.n_slots), key=lambda other: (self.common(other, ids), other == slot))
        n = self.common(source, ids)
        if source != slot:
            self.held(slot, n).copy_(self.held(source, n))
        self.pages[slot], self.used[slot] = ids[:n], max(self.used) + 1
        return n

    def learn(self, slot: int, ids: tuple[int, ...]) -> None:
        """Remembers that a slot's first positions were read from these ids; only whole pages count."""
        self.pages[slot] = ids[: len(ids) // PAGE * PAGE]

    def wipe(self, slot: int) -> None:
        """Forgets everything of a slot, numbers that are not finite included."""
        self.held(slot, self.n_positions).zero_()
        self.pages[slot] = ()


class PageCache(SlotCache):
    """The same by pages, (R, P, L, 2, H, PAGE, D): what a token reads lies together, what is not used takes no memory.

    A head's width is filled up to LANES; what a page holds where, the kernel knows (generate/kernels/attention.h).
    """

    def _shape(self, of: Architecture) -> tuple[int, ...]:
        width = of.d_head + -of.d_head % LANES
        return self.n_slots, self.n_positions // PAGE, of.n_layers, 2, of.n_heads, PAGE, width

    def held(self, slot: int, n: int) -> Tensor:
        """What a slot holds of its first n positions, whole pages."""
        return self.kv[slot, : n // PAGE]
