"""The network on a GPU: every pass of new tokens is one CUDA graph, of one number of rows."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from cerebras_gpt.generate.gpu_attention import mixed, place_of
from cerebras_gpt.generate.network import Network, Rows
from cerebras_gpt.generate.slots import SlotCache
from cerebras_gpt.model.gpt import GPT

MOST_ROWS = 64
"""Rows of every pass of new tokens: reading the weights takes the time, so the rows that fill up cost little."""
PIECE = 512
"""Ids of a prompt that are read at a time."""
NONE = -1
"""The slot of a row that fills up."""


class GPUNetwork(Network):
    """A model's weights on a GPU; the face of `Network`. Products have one shape each, so a row's bits are its own."""

    def __init__(self, model: GPT, dtype: torch.dtype) -> None:
        assert model.head_table.device.type == "cuda"
        same = model.head_table.dtype == dtype
        self.model = model if same else copy.deepcopy(model).to(dtype)
        self.architecture, self.dtype, self.device = model.architecture, dtype, model.head_table.device
        self.decode_rows, self.prefill_rows, self.piece = (MOST_ROWS,), (PIECE,), PIECE
        # What a graph reads: ids, positions and slots of the rows, then the place of the cache.
        self._asked = torch.zeros(3 * MOST_ROWS + 3, dtype=torch.int64, device=self.device)
        self._asked[2 * MOST_ROWS : 3 * MOST_ROWS] = NONE
        self._graph: torch.cuda.CUDAGraph | None = None
        self._scores = torch.empty(0, device=self.device)

    def pass_cost(self, n_rows: int) -> float:
        """About how long a pass over so many rows takes, in passes over one."""
        return -(-n_rows // MOST_ROWS)

    def slots(self, n_slots: int, n_tokens: int) -> SlotCache:
        """An empty cache, with room for the rows that fill the last piece up."""
        return super().slots(n_slots, min(self.architecture.seq_len, n_tokens + self.piece))

    def decode(self, ids: Sequence[int], slots: Sequence[int], lengths: Sequence[int]) -> Rows:
        """One new token for each of these slots, which hold as many before it."""
        filled = [*slots, *[NONE] * (MOST_ROWS - len(slots))]
        return Rows(self._filled(ids, MOST_ROWS), self._filled(lengths, MOST_ROWS), self._tensor(filled), [])

    def mix(self, qkv: Tensor, rows: Rows, cache: SlotCache, layer: int) -> Tensor:
        """Keeps each row's key and value in its slot, and mixes the values that it sees: (N, 3, H, D) -> (N, C)."""
        if rows.runs:
            return super().mix(qkv, rows, cache, layer)
        scale = self.model.parametrization.attention_scale
        return mixed(qkv.contiguous(), self._place, rows.slots, rows.positions, layer, scale)

    def hidden(self, rows: Rows, cache: SlotCache) -> Tensor:
        """Final hidden states, multiplied by the logit scale; keys and values go to the cache: (N, C)."""
        if not rows.runs:
            self._place.copy_(self._tensor(place_of(cache.kv)))
        return super().hidden(rows, cache)

    def follow(self, ids: Sequence[int], slots: Sequence[int], places: Sequence[int], cache: SlotCache) -> Tensor:
        """Scores after new tokens, of slots in ascending order and in each by their places: N tokens -> (N, V)."""
        found = [
            self._replayed(ids[first : first + MOST_ROWS], slots[first:], places[first:], cache)
            for first in range(0, len(ids), MOST_ROWS)
        ]
        return found[0] if len(found) == 1 else torch.cat(found)

    @property
    def _place(self) -> Tensor:
        return self._asked[3 * MOST_ROWS :]

    def _replayed(self, ids: Sequence[int], slots: Sequence[int], places: Sequence[int], cache: SlotCache) -> Tensor:
        """One pass over at most MOST_ROWS tokens; the scores on the host: (n, V)."""
        n, rest = len(ids), MOST_ROWS - len(ids)
        if self._graph is None:
            self._graph = self._captured(cache)
        told = [*ids, *[0] * rest, *places[:n], *[0] * rest, *slots[:n], *[NONE] * rest, *place_of(cache.kv)]
        self._asked.copy_(torch.tensor(told).pin_memory(), non_blocking=True)
        self._graph.replay()
        return self._scores[:n].float().cpu()

    def _captured(self, cache: SlotCache) -> torch.cuda.CUDAGraph:
        """The pass as a graph, after one run outside of it that has all kernels made; without slots nothing is kept."""
        ids, positions, slots = self._asked[: 3 * MOST_ROWS].view(3, MOST_ROWS)
        slots.fill_(NONE)
        rows = Rows(ids, positions, slots, [])
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self.logits(super().hidden(rows, cache))
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._scores = self.logits(super().hidden(rows, cache))  # (N, V)
        return graph
