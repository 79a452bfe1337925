"""The network on a GPU: a pass has one of two numbers of rows, and each of the two is one CUDA graph."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cerebras_gpt.generate.gpu_attention import mixed, place_of
from cerebras_gpt.generate.network import Network, Rows
from cerebras_gpt.generate.slots import SlotCache
from cerebras_gpt.model.architecture import VOCAB_MULTIPLE
from cerebras_gpt.model.gpt import GPT

MOST_ROWS = 64
"""Rows of every pass of new tokens: reading the weights takes the time, so the rows that fill up cost little."""
PIECE = 512
"""Ids of a prompt that are read at a time."""
NONE = -1
"""The slot of a row that fills up."""


class Pass:
    """A pass over N rows as a CUDA graph, made when it is first asked for; it serves every cache."""

    def __init__(self, n_rows: int, compute: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], device: torch.device):
        self.n_rows, self.compute = n_rows, compute
        # What the graph reads: ids, positions and slots of the rows, then the place of the cache.
        self._asked = torch.zeros(3 * n_rows + 3, dtype=torch.int64, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result = torch.empty(0, device=device)

    def __call__(self, rows: Rows, cache: SlotCache) -> Tensor:
        """What is computed of these rows, until the next call: (N, ...)."""
        if self._graph is None:
            self._graph = self._captured()
        told = torch.cat([rows.ids, rows.positions, rows.slots, torch.tensor(place_of(cache.kv))])
        self._asked.copy_(told.pin_memory(), non_blocking=True)
        self._graph.replay()
        return self._result

    def _captured(self) -> torch.cuda.CUDAGraph:
        """After one run outside of it, which has all kernels made; rows without slots keep nothing anywhere."""
        ids, positions, slots, place = self._asked.split([self.n_rows] * 3 + [3])
        slots.fill_(NONE)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self.compute(ids, positions, slots, place)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._result = self.compute(ids, positions, slots, place)
        return graph


class GPUNetwork(Network):
    """A model's weights on a GPU; the face of `Network`. Products have one shape each, so a row's bits are its own."""

    def __init__(self, model: GPT, dtype: torch.dtype) -> None:
        assert model.head_table.device.type == "cuda"
        same = model.head_table.dtype == dtype
        self.model = model if same else copy.deepcopy(model).to(dtype)
        self.architecture, self.dtype, self.device = model.architecture, dtype, model.head_table.device
        self.decode_rows, self.prefill_rows, self.piece = (MOST_ROWS,), (PIECE,), PIECE
        table = self.model.head_table.detach()
        self._head = F.pad(table, (0, 0, 0, -len(table) % VOCAB_MULTIPLE))  # products like round sizes
        self._following = Pass(MOST_ROWS, self._scores, self.device)
        self._reading = Pass(PIECE, self._states, self.device)
        self._host = torch.empty(MOST_ROWS, len(table), pin_memory=True)

    def pass_cost(self, n_rows: int) -> float:
        """About how long a pass over so many rows takes, in passes over one."""
        return -(-n_rows // MOST_ROWS)

    def decode(self, ids: Sequence[int], slots: Sequence[int], lengths: Sequence[int]) -> Rows:
        """One new token for each of these slots, which hold as many before it."""
        return _rows(ids, lengths, slots, MOST_ROWS)

    def prefill(self, ids: Sequence[int], slot: int, start: int) -> Rows:
        """A piece of at most `piece` ids of one prompt."""
        return _rows(ids, range(start, start + len(ids)), [slot] * len(ids), PIECE)

    def hidden(self, rows: Rows, cache: SlotCache) -> Tensor:
        """Final hidden states of a piece of a prompt, multiplied by the logit scale: (N, C)."""
        return self._reading(rows, cache).clone()

    def read(self, rows: Rows, cache: SlotCache) -> None:
        """Keys and values go to the cache; nothing else is asked for."""
        self._reading(rows, cache)

    def scores(self, rows: Rows, cache: SlotCache) -> Tensor:
        """Scores of every token after these rows, on the host until the next call: (N, V)."""
        found = self._following(rows, cache)
        n = int((rows.slots != NONE).sum())
        self._host[:n].copy_(found[:n], non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return self._host

    def follow(self, ids: Sequence[int], slots: Sequence[int], places: Sequence[int], cache: SlotCache) -> Tensor:
        """Scores after new tokens, of slots in ascending order and in each by their places: N tokens -> (N, V)."""
        found = []
        for first in range(0, len(ids), MOST_ROWS):
            part = slice(first, first + MOST_ROWS)
            scores = self.scores(self.decode(ids[part], slots[part], places[part]), cache)[: len(ids[part])]
            found.append(scores if len(ids) <= MOST_ROWS else scores.clone())  # (n, V)
        return found[0] if len(found) == 1 else torch.cat(found)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token, in float32: (N, C) -> (N, V)."""
        return F.linear(hidden, self._head)[:, : self.architecture.vocab_size].float()

    @torch.inference_mode()
    def _states(self, ids: Tensor, positions: Tensor, slots: Tensor, place: Tensor) -> Tensor:
        """(N,), (N,), (N,), (3,) -> (N, C)."""
        together = len(ids) == PIECE and self.dtype != torch.float32  # of which there are no fast products

        def attention(qkv: Tensor, layer: int) -> Tensor:
            return mixed(qkv, place, slots, positions, layer, self.scale, together)

        return self.through(ids, positions, attention)

    def _scores(self, ids: Tensor, positions: Tensor, slots: Tensor, place: Tensor) -> Tensor:
        """(N,), (N,), (N,), (3,) -> (N, V)."""
        return self.logits(self._states(ids, positions, slots, place))


def _rows(ids: Sequence[int], positions: Sequence[int], slots: Sequence[int], n_rows: int) -> Rows:
    """Filled up with rows that have no slot."""
    rest = n_rows - len(ids)
    of_ids, of_positions = (torch.tensor([*values, *[0] * rest]) for values in (ids, positions))
    return Rows(of_ids, of_positions, torch.tensor([*slots, *[NONE] * rest]), [])
