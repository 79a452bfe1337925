"""The network on the compiled kernel: one call reads every weight once, in the bits it was packed in."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from cerebras_gpt.generate import kernel as compiled
from cerebras_gpt.generate.network import Network, Rows, Stretch
from cerebras_gpt.generate.slots import PAGE, PageCache, SlotCache
from cerebras_gpt.generate.weights import HEAD, Kind
from cerebras_gpt.model.gpt import ACTIVATIONS, GPT

FEWEST, MOST = 2 * PAGE, 8 * PAGE
"""Tokens of prompts that a pass reads at most, of a large model and of a small one."""
PASS = 4 * 10**10
"""Products of numbers in a pass that reads as many: a fifth of a second on two cores."""
BESIDE = 2 * PAGE
"""Rows of a pass beside those."""
ROW = 0.3
"""What a further row adds to the time of a pass over one, by one core (benchmarks/speculative.py)."""


class KernelNetwork(Network):
    """A model's weights as the kernel reads them; the face of `Network`, the model itself left as it was given.

    Each row is computed alone, whatever the others are, so no number of rows has to be looked for.
    """

    def __init__(self, model: GPT, kind: Kind, library: ctypes.CDLL) -> None:
        self.model, self.architecture, self.kind = model, model.architecture, kind
        self.dtype, self.device = torch.float32, torch.device("cpu")
        n_numbers = sum(weight.numel() for weight in model.blocks.parameters())
        self.piece = min(max(PASS // n_numbers // PAGE * PAGE, FEWEST), MOST)
        self.decode_rows, self.prefill_rows = (self.piece + BESIDE,), (1,)
        self._library, self._kept, self._memory = library, list[Tensor](), compiled.LargePages(library)
        self._named = dict(model.named_parameters())
        self._described = self._describe()
        shape, n_threads = self.architecture, torch.get_num_threads()
        n_positions = shape.seq_len + -shape.seq_len % PAGE
        self._work = torch.empty(compiled.work_floats(self.decode_rows[0], shape, n_positions, n_threads))
        self._n_threads = n_threads

    def pass_cost(self, n_rows: int) -> float:
        """About how long a pass over so many rows takes, in passes over one."""
        return 1 + ROW * (n_rows - 1)

    def slots(self, n_slots: int, n_tokens: int) -> SlotCache:
        """An empty cache, in bfloat16 but for float32 weights."""
        dtype = torch.float32 if self.kind == "float32" else torch.bfloat16
        return PageCache(self.architecture, n_slots, n_tokens, dtype, self.device)

    def decode(self, ids: Sequence[int], slots: Sequence[int], lengths: Sequence[int]) -> Rows:
        """One new token for each of these slots, which hold as many before it."""
        return Rows(torch.tensor(ids), torch.tensor(lengths), torch.tensor(slots), [])

    def prefill(self, ids: Sequence[int], slot: int, start: int) -> Rows:
        """A piece of at most `piece` ids of one prompt."""
        return self.decode(ids, [slot] * len(ids), range(start, start + len(ids)))

    def hidden(self, rows: Rows, cache: SlotCache) -> Tensor:
        """Final hidden states, multiplied by the logit scale; keys and values go to the cache: (N, C)."""
        result = torch.empty(len(rows.ids), self.architecture.d_model)  # (N, C)
        self._run(rows, cache, result)
        return result

    def scores(self, rows: Rows, cache: SlotCache) -> Tensor:
        """Scores of every token after these rows, in the same call: (N, V)."""
        return self._first_scores(rows, cache, len(rows.ids))

    def read(self, rows: Rows, cache: SlotCache) -> None:
        """Keys and values go to the cache; of the last block nothing else is computed."""
        self._run(rows, cache, torch.empty(0, self.architecture.d_model))

    def advance(
        self,
        stretches: Sequence[Stretch],
        ids: Sequence[int],
        slots: Sequence[int],
        places: Sequence[int],
        cache: SlotCache,
    ) -> Tensor:
        """Reads prompts and gives the scores after new tokens, in one pass if they fit: N tokens -> (N, V)."""
        n_rows = len(ids) + sum(len(stretch.ids) for stretch in stretches)
        if n_rows > self.decode_rows[0]:
            return super().advance(stretches, ids, slots, places, cache)
        ids, n_told, slots, places = list(ids), len(ids), list(slots), list(places)
        for read, slot, start in stretches:
            ids += read
            slots += [slot] * len(read)
            places += range(start, start + len(read))
        return self._first_scores(self.decode(ids, slots, places), cache, n_told)

    def _first_scores(self, rows: Rows, cache: SlotCache, n_told: int) -> Tensor:
        """Scores after the first rows; of the others keys and values alone: (n_told, V)."""
        hidden = torch.empty(n_told, self.architecture.d_model)  # (n_told, C)
        result = torch.empty(n_told, self.architecture.vocab_size)  # (n_told, V)
        self._run(rows, cache, hidden, result)
        return result

    def _run(self, rows: Rows, cache: SlotCache, hidden: Tensor, scores: Tensor | None = None) -> None:
        described, n, n_told = self._described, len(rows.ids), len(hidden)
        assert n_told <= n <= self.decode_rows[0]
        described.n_positions, described.small_cache = cache.n_positions, cache.kv.dtype == torch.bfloat16
        pointers = [x.data_ptr() for x in (rows.ids, rows.positions, rows.slots, cache.kv, self._work, hidden)]
        told = None if scores is None else scores.data_ptr()
        self._library.hidden(ctypes.addressof(described), n, n_told, *pointers, told, self._n_threads)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token: (N, C) -> (N, V)."""
        result = torch.empty(len(hidden), self.architecture.vocab_size)  # (N, V)
        for first in range(0, len(hidden), most := self.decode_rows[0]):
            self._product(hidden[first : first + most], result[first : first + most])
        return result

    def _product(self, x: Tensor, y: Tensor) -> None:
        head = ctypes.addressof(self._described.head)
        pointers = [x.data_ptr(), self._work.data_ptr(), y.data_ptr()]
        self._library.product(head, len(x), x.shape[1], *pointers, self._n_threads)

    @torch.inference_mode()
    def _describe(self) -> compiled.Model:
        model, shape, table = self.model, self.architecture, self.model.parametrization
        embeddings = (model.token_embedding.weight, model.position_embedding.weight)
        tables = [self._keep(model.projection(weight)) for weight in embeddings]  # (V, C), (T, C)
        layers = (compiled.Layer * shape.n_layers)(*(self._layer(f"blocks.{n}") for n in range(shape.n_layers)))
        head = "token_embedding" if shape.tied else "head"
        return compiled.Model(
            *(shape.n_layers, shape.d_model, shape.n_heads, shape.d_ffn),
            *(list(ACTIVATIONS).index(shape.activation), 0, 0),
            *(shape.layer_norm_eps, table.attention_scale, table.residual_scale),
            *(table.embedding_scale, table.logit_scale, *tables, *self._norm("norm")),
            *(layers, self._linear(head, HEAD[self.kind])),
        )

    def _layer(self, block: str) -> compiled.Layer:
        norms = [
            address for name in ("norm_attention", "norm_feed_forward") for address in self._norm(f"{block}.{name}")
        ]
        linears = ("attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down")
        return compiled.Layer(*norms, *(self._linear(f"{block}.{name}", self.kind) for name in linears))

    def _norm(self, name: str) -> tuple[int, int]:
        return self._keep(self._named[f"{name}.weight"]), self._keep(self._named[f"{name}.bias"])

    def _keep(self, x: Tensor) -> int:
        self._kept.append(x.detach().float().contiguous())
        return self._kept[-1].data_ptr()

    def _linear(self, name: str, kind: Kind) -> compiled.Linear:
        weight, bias = self._named[f"{name}.weight"], self._named.get(f"{name}.bias")
        linear, kept = compiled.packed(self._memory, weight, kind, bias)
        self._kept += kept
        return linear
