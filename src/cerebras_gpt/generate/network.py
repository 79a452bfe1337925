"""The network as the engine runs it: rows of single tokens in shapes whose results do not depend on the other rows.

A library of matrix products may choose another order of summation for another number of rows, so the same token can
get other bits among others than alone. Here a pass has one of a few numbers of rows, found equal, bit by bit, when
the network is made; attention sums over a span that follows from the token's own position alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cerebras_gpt.generate.slots import PAGE, SlotCache, reach
from cerebras_gpt.model.gpt import ACTIVATIONS, GPT, Block, Linear
from cerebras_gpt.process import memory_at_hand

ROWS = (4, 8, 16, 32, 64)
"""Numbers of rows of a pass that are tried, smallest first."""


ROW = 0.17
"""What a further row adds to the time of the smallest pass (benchmarks/speculative.py)."""


class Run(NamedTuple):
    """Consecutive rows that attend alike: B sequences in consecutive slots, T tokens of each."""

    first_row: int
    first_slot: int
    n_slots: int
    mask: Tensor
    """Which positions each token sees: (B, 1, T, S)."""


class Rows(NamedTuple):
    """The tokens of one pass, filled up to N rows of which the first are real."""

    ids: Tensor
    """(N,)."""
    positions: Tensor
    """(N,)."""
    slots: Tensor
    """Of the real rows."""
    runs: list[Run]


class Stretch(NamedTuple):
    """Ids of one prompt that follow each other."""

    ids: Sequence[int]
    slot: int
    start: int
    """The position of the first."""


class Network:
    """A model's weights, with the numbers of rows that give each row the same bits."""

    piece: int
    """Most tokens of one prompt that a pass reads."""

    def __init__(self, model: GPT, most_rows: int = 16) -> None:
        assert most_rows <= ROWS[-1]
        self.model, self.architecture = model, model.architecture
        self.dtype, self.device = model.head_table.dtype, model.head_table.device
        self.piece = PAGE
        candidates = [n for n in ROWS if n <= fitting(most_rows, ROWS)]
        self.decode_rows = self._equal_rows(candidates)
        self.prefill_rows = self._equal_pieces([n for n in ROWS if 16 <= n <= PAGE])

    def pass_cost(self, n_rows: int) -> float:
        """About how long a pass over so many rows takes, in passes over one, which has the smallest number already."""
        return 1 + ROW * (fitting(n_rows, self.decode_rows) - self.decode_rows[0])

    def slots(self, n_slots: int, n_tokens: int) -> SlotCache:
        """An empty cache."""
        return SlotCache(self.architecture, n_slots, n_tokens, self.dtype, self.device)

    def memory(self) -> int:
        """Bytes that slots could take where this network computes."""
        return memory_at_hand() if self.device.type == "cpu" else int(torch.cuda.mem_get_info()[0])

    def product(self, x: Tensor, layer: Linear) -> Tensor:
        """The one place of linear products, (N, n_in) -> (N, n_out): where kernels for a few rows would go."""
        return layer(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token: (N, C) -> (N, V)."""
        return self.model.logits(hidden)

    @torch.inference_mode()
    def hidden(self, rows: Rows, cache: SlotCache) -> Tensor:
        """Final hidden states, multiplied by the logit scale; keys and values go to the cache: (N, C)."""
        return self.through(rows.ids, rows.positions, lambda qkv, layer: mix(qkv, rows, cache.kv[layer], self.scale))

    def through(self, ids: Tensor, positions: Tensor, attention: Callable[[Tensor, int], Tensor]) -> Tensor:
        """The blocks around an attention of (N, 3, H, D) in a layer, which gives (N, C): (N,), (N,) -> (N, C)."""
        model = self.model
        x = model.token_embedding(ids) + model.position_embedding(positions)  # (N, C)
        x = (model.projection(x) * model.parametrization.embedding_scale).to(self.dtype)
        activation = ACTIVATIONS[self.architecture.activation]
        for index, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            N, H = len(x), self.architecture.n_heads
            qkv = self.product(block.norm_attention(x), block.attention.qkv).view(N, 3, H, -1)  # (N, 3, H, D)
            y = attention(qkv, index)  # (N, C)
            x = torch.add(x, self.product(y, block.attention.out), alpha=block.residual_scale)
            up = activation(self.product(block.norm_feed_forward(x), block.feed_forward.up))  # (N, F)
            x = torch.add(x, self.product(up, block.feed_forward.down), alpha=block.residual_scale)
        return model.norm(x) * model.parametrization.logit_scale

    @property
    def scale(self) -> float:
        """Of the products of queries and keys."""
        return self.model.parametrization.attention_scale

    def scores(self, rows: Rows, cache: SlotCache) -> Tensor:
        """Scores of every token after these rows; keys and values go to the cache: (N, V)."""
        return self.logits(self.hidden(rows, cache))

    def read(self, rows: Rows, cache: SlotCache) -> None:
        """Keys and values go to the cache; nothing else is asked for."""
        self.hidden(rows, cache)

    def decode(self, ids: Sequence[int], slots: Sequence[int], lengths: Sequence[int]) -> Rows:
        """One new token for each of these slots, in ascending order, which hold as many before it."""
        n_rows = fitting(len(ids), self.decode_rows)
        reaches = [reach(length + 1, self.architecture.seq_len) for length in lengths]
        runs, first = [], 0
        for row in range(1, len(ids) + 1):
            if row == len(ids) or slots[row] != slots[row - 1] + 1 or reaches[row] != reaches[first]:
                runs.append(Run(first, slots[first], row - first, self._mask(lengths[first:row], 1, reaches[first])))
                first = row
        return Rows(self._filled(ids, n_rows), self._filled(lengths, n_rows), self._tensor(slots), runs)

    def prefill(self, ids: Sequence[int], slot: int, start: int) -> Rows:
        """A piece of at most `piece` ids of one prompt, from a position that is a multiple of PAGE on."""
        assert start % PAGE == 0 and len(ids) <= self.piece
        n_rows = fitting(len(ids), self.prefill_rows)
        mask = self._mask([start], n_rows, reach(start + self.piece, self.architecture.seq_len))
        positions = [start + n for n in range(len(ids))]
        slots = self._tensor([slot] * len(ids))
        return Rows(self._filled(ids, n_rows), self._filled(positions, n_rows), slots, [Run(0, slot, 1, mask)])

    def follow(self, ids: Sequence[int], slots: Sequence[int], places: Sequence[int], cache: SlotCache) -> Tensor:
        """Scores after new tokens, of slots in ascending order and in each by their places: N tokens -> (N, V)."""
        most, found = self.decode_rows[-1], []
        for first in range(0, len(ids), most):
            part = slice(first, first + most)
            rows = self.decode(ids[part], slots[part], places[part])
            found.append(self.scores(rows, cache)[: len(rows.slots)])  # (n, V)
        return found[0] if len(found) == 1 else torch.cat(found)

    def advance(
        self,
        stretches: Sequence[Stretch],
        ids: Sequence[int],
        slots: Sequence[int],
        places: Sequence[int],
        cache: SlotCache,
    ) -> Tensor:
        """Reads these of prompts, then follows as `follow` does; the new tokens may come right after what is read."""
        for stretch in stretches:
            self.read(self.prefill(*stretch), cache)
        return self.follow(ids, slots, places, cache) if ids else torch.empty(0)

    def _mask(self, starts: Sequence[int], n_tokens: int, end: int) -> Tensor:
        """(B, 1, T, S)."""
        last = self._tensor(starts)[:, None] + torch.arange(n_tokens, device=self.device)  # (B, T)
        return torch.arange(end, device=self.device) <= last[:, None, :, None]

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.device)

    def _filled(self, values: Sequence[int], n_rows: int) -> Tensor:
        return self._tensor([*values, *[0] * (n_rows - len(values))])

    @torch.inference_mode()
    def _equal_rows(self, candidates: list[int]) -> tuple[int, ...]:
        """Those numbers of rows that give a row the bits that the largest gives it, wherever it stands."""
        cache, position = self.slots(candidates[-1], 2), min(1, self.architecture.seq_len - 1)
        past = torch.randn(cache.kv[:, :, :1].shape, generator=torch.Generator().manual_seed(0))
        cache.kv.copy_(past)
        found = {}
        for n in candidates:
            self.decode_rows = (n,)
            rows = self.decode([1] * n, range(n), [position] * n)
            found[n] = self.logits(self.hidden(rows, cache))  # (n, V)
        expected = found[candidates[-1]][:1]
        equal = tuple(n for n in candidates if torch.equal(found[n], expected.expand_as(found[n])))
        return equal or (1,)

    @torch.inference_mode()
    def _equal_pieces(self, candidates: list[int]) -> tuple[int, ...]:
        """Those lengths of a piece of a prompt whose tokens get the bits that a whole page gives them."""
        n_tokens = min(PAGE, self.architecture.seq_len)
        ids = [n * 7 % self.architecture.vocab_size for n in range(n_tokens)]
        found = {}
        for n in candidates:
            self.prefill_rows, cache = (n,), self.slots(1, n_tokens)
            hidden = self.hidden(self.prefill(ids[:n], 0, 0), cache)  # (n, C)
            found[n] = hidden[: min(n, n_tokens)]
        whole = found[candidates[-1]]
        equal = tuple(n for n in candidates if torch.equal(found[n], whole[: len(found[n])]))
        return equal or (PAGE,)


def fitting(n: int, sizes: Sequence[int]) -> int:
    """The smallest of the sizes that n fits in, or the largest of them."""
    return next((size for size in sizes if size >= n), sizes[-1])


def mix(qkv: Tensor, rows: Rows, kv: Tensor, scale: float) -> Tensor:
    """Keeps keys and values in a layer's slots, then mixes: (N, 3, H, D), (2, R, H, S, D) -> (N, C)."""
    positions = rows.positions[: len(rows.slots)]
    for part in (0, 1):
        kv[part][rows.slots, :, positions] = qkv[: len(positions), part + 1]  # (n, H, D)
    return attend(qkv[:, 0], kv, rows.runs, scale)


def attend(q: Tensor, kv: Tensor, runs: Sequence[Run], scale: float) -> Tensor:
    """Each row's mix of the values in its slot: (N, H, D), (2, R, H, S, D) -> (N, C); rows of no run get zeros."""
    N, H, D = q.shape
    y = q.new_zeros(N, H, D)
    for first_row, first_slot, n_slots, mask in runs:
        T, S = mask.shape[2:]
        end_row, end_slot = first_row + n_slots * T, first_slot + n_slots
        queries = q[first_row:end_row].view(n_slots, T, H, D).transpose(1, 2)  # (B, H, T, D)
        k, v = kv[0, first_slot:end_slot, :, :S], kv[1, first_slot:end_slot, :, :S]  # (B, H, S, D)
        mixed = F.scaled_dot_product_attention(queries, k, v, attn_mask=mask, scale=scale)  # (B, H, T, D)
        y[first_row:end_row] = mixed.transpose(1, 2).reshape(-1, H, D)
    return y.view(N, H * D)
