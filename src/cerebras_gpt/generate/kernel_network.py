"""The network on the compiled kernel: one call reads every weight once, in the bits it was packed in."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from cerebras_gpt.generate import kernel as compiled
from cerebras_gpt.generate.network import Network, Rows
from cerebras_gpt.generate.slots import PAGE, SlotCache
from cerebras_gpt.generate.weights import GROUP, LANES, Kind, Packed, dequantised, filled, pack, quantise
from cerebras_gpt.model.gpt import ACTIVATIONS, GPT, Block

MOST_ROWS = PAGE
LARGE_PAGE = 2**21


class KernelNetwork(Network):
    """A model's weights as the kernel reads them; the face of `Network`, the model itself left as it was given.

    Each row is computed alone, whatever the others are, so no number of rows has to be looked for.
    """

    def __init__(self, model: GPT, kind: Kind, library: ctypes.CDLL) -> None:
        self.model, self.architecture, self.kind = model, model.architecture, kind
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.decode_rows = self.prefill_rows = (MOST_ROWS,)
        self._library, self._kept = library, list[Tensor]()
        self._described = self._describe()
        shape, n_threads = self.architecture, torch.get_num_threads()
        n_work = compiled.work_floats(MOST_ROWS, shape.d_model, shape.d_ffn, -(-shape.seq_len // PAGE) * PAGE, n_threads)
        self._work = torch.empty(n_work)
        self._n_threads = n_threads

    def slots(self, n_slots: int, n_tokens: int) -> SlotCache:
        """An empty cache, in bfloat16 but for float32 weights."""
        dtype = torch.float32 if self.kind == "float32" else torch.bfloat16
        return SlotCache(self.architecture, n_slots, n_tokens, dtype, self.device)

    def decode(self, ids: Sequence[int], slots: Sequence[int], lengths: Sequence[int]) -> Rows:
        """One new token for each of these slots, which hold as many before it."""
        return Rows(torch.tensor(ids), torch.tensor(lengths), torch.tensor(slots), [])

    def prefill(self, ids: Sequence[int], slot: int, start: int) -> Rows:
        """A piece of at most PAGE ids of one prompt."""
        return self.decode(ids, [slot] * len(ids), range(start, start + len(ids)))

    def hidden(self, rows: Rows, cache: SlotCache) -> Tensor:
        """Final hidden states, multiplied by the logit scale; keys and values go to the cache: (N, C)."""
        described, N = self._described, len(rows.ids)
        described.n_slots, described.n_positions = cache.n_slots, cache.kv.shape[4]
        described.small_cache = cache.kv.dtype == torch.bfloat16
        result = torch.empty(N, self.architecture.d_model)  # (N, C)
        pointers = [x.data_ptr() for x in (rows.ids, rows.positions, rows.slots, cache.kv, self._work, result)]
        self._library.hidden(ctypes.addressof(described), N, *pointers, self._n_threads)
        return result

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token: (N, C) -> (N, V)."""
        result = torch.empty(len(hidden), self.architecture.vocab_size)  # (N, V)
        for first in range(0, len(hidden), MOST_ROWS):
            self._product(hidden[first : first + MOST_ROWS], result[first : first + MOST_ROWS])
        return result

    def _product(self, x: Tensor, y: Tensor) -> None:
        head = ctypes.addressof(self._described.head)
        pointers = [x.data_ptr(), self._work.data_ptr(), y.data_ptr()]
        self._library.product(head, len(x), x.shape[1], *pointers, self._n_threads)

    def _describe(self) -> compiled.Model:
        model, shape, table = self.model, self.architecture, self.model.parametrization
        blocks = [block for block in model.blocks if isinstance(block, Block)]
        tokens, positions = (
            self._keep(model.projection(e.weight)) for e in (model.token_embedding, model.position_embedding)
        )
        norm, norm_bias = self._keep(model.norm.weight), self._keep(model.norm.bias)
        attention_scale = blocks[0].attention.scale
        layers = (compiled.Layer * len(blocks))(*map(self._layer, blocks))
        return compiled.Model(
            *(shape.n_layers, shape.d_model, shape.n_heads, shape.d_ffn),
            *(list(ACTIVATIONS).index(shape.activation), 0, 0, 0),
            *(shape.layer_norm_eps, attention_scale, table.residual_scale, table.embedding_scale, table.logit_scale),
            *(tokens, positions, norm, norm_bias, layers, self._linear(model.head_table)),
        )

    def _layer(self, block: Block) -> compiled.Layer:
        attention, feed_forward = block.attention, block.feed_forward
        norms = (block.norm_attention, block.norm_feed_forward)
        return compiled.Layer(
            *(self._keep(x) for norm in norms for x in (norm.weight, norm.bias)),
            *(self._linear(x.weight, x.bias) for x in (attention.qkv, attention.out)),
            *(self._linear(x.weight, x.bias) for x in (feed_forward.up, feed_forward.down)),
        )

    def _keep(self, x: Tensor) -> int:
        self._kept.append(x.detach().float().contiguous())
        return self._kept[-1].data_ptr()

    @torch.inference_mode()
    def _linear(self, weight: Tensor, bias: Tensor | None = None) -> compiled.Linear:
        """A weight packed, in large pages."""
        n_out, n_in = weight.shape
        weight = weight.detach().float()
        is_quantised = self.kind in ("int8", "int4")
        packed = pack(quantise(weight, self.kind) if is_quantised else filled(weight), self.kind)
        packed = Packed(self._in_large_pages(packed.codes), packed.scales)
        if packed.scales is not None:
            self._kept.append(packed.scales)
        if bias is not None:
            bias = filled(bias.detach().float()[None], 1, LANES)[0].contiguous()
            self._kept.append(bias)
        return compiled.linear(packed, self.kind, n_in, n_out, bias)

    def _in_large_pages(self, codes: Tensor) -> Tensor:
        memory = torch.empty(len(codes) + LARGE_PAGE, dtype=torch.uint8)
        first = -memory.data_ptr() % LARGE_PAGE
        self._library.in_large_pages(memory.data_ptr() + first, len(codes))
        self._kept.append(memory)
        return memory[first : first + len(codes)].copy_(codes)
