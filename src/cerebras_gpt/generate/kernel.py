"""The compiled kernel of decoding: its structs, its memory, and where it comes from."""

import ctypes
import logging
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import torch
from torch import Tensor

from cerebras_gpt.compiled import FAILURES, library
from cerebras_gpt.generate.slots import LINE
from cerebras_gpt.generate.weights import CODE_BYTES, GROUP, KINDS, LANES, SMALLEST, Kind
from cerebras_gpt.model.architecture import Architecture

log = logging.getLogger("cerebras_gpt")

SOURCES = ("numbers.h", "products.h", "packing.h", "attention.h", "decode.cpp")
"""Joined in this order, they are one source."""
LARGE_PAGE, SPAN = 2**21, 2**25
"""Bytes of a large page, and that are taken from the system at once."""
QUERIES = 16
"""Rows of one sequence that attend together."""


class Linear(ctypes.Structure):
    """A packed weight, as the kernel's struct of this name."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("codes", "scales", "bias")] + [
        (name, ctypes.c_int64) for name in ("n_in", "n_out", "kind")
    ]


class Layer(ctypes.Structure):
    """One block, as the kernel's struct of this name."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("norm1", "norm1_bias", "norm2", "norm2_bias")] + [
        (name, Linear) for name in ("qkv", "out", "up", "down")
    ]


class Model(ctypes.Structure):
    """A whole decoder, as the kernel's struct of this name."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("n_layers", "d_model", "n_heads", "d_ffn")],
        *[(name, ctypes.c_int64) for name in ("activation", "small_cache", "n_positions")],
        *[
            (name, ctypes.c_float)
            for name in ("eps", "attention_scale", "residual_scale", "embedding_scale", "logit_scale")
        ],
        *[(name, ctypes.c_void_p) for name in ("tokens", "positions", "norm", "norm_bias")],
        ("layers", ctypes.POINTER(Layer)),
        ("head", Linear),
    ]


class Packed(NamedTuple):
    """A weight in the order in which the kernel reads it: LANES rows at a time, along their numbers."""

    linear: Linear
    """What the kernel is told."""
    kept: tuple[Tensor, ...]
    """Where it lies: must outlive the other."""


class LargePages:
    """Memory for weights, one after the other: fewer look-ups of addresses on the way through them all.

    The system grants large pages only to spans that fill them, which most weights alone do not.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library, self._left = library, torch.empty(0, dtype=torch.uint8)

    def take(self, n_bytes: int) -> Tensor:
        """So many bytes, from the start of a line on."""
        n_lines = n_bytes + -n_bytes % LINE
        if n_lines > len(self._left):
            self._left = self._span(max(n_lines + -n_lines % LARGE_PAGE, SPAN))
        found, self._left = self._left[:n_bytes], self._left[n_lines:]
        return found

    def _span(self, n_bytes: int) -> Tensor:
        memory = torch.empty(n_bytes + LARGE_PAGE, dtype=torch.uint8)
        first = -memory.data_ptr() % LARGE_PAGE
        self.library.in_large_pages(memory.data_ptr() + first, n_bytes)
        return memory[first : first + n_bytes]


def packed(memory: LargePages, weight: Tensor, kind: Kind, bias: Tensor | None = None) -> Packed:
    """A float32 weight (n_out, n_in) in tiles of LANES rows; the bias is filled up to LANES.

    In a tile, 4 bytes of one row (4 int8, 8 int4 in two steps, 2 bfloat16) lie beside the next row's.
    """
    n_out, n_in = weight.shape[0] + -weight.shape[0] % LANES, weight.shape[1] + -weight.shape[1] % GROUP
    codes = memory.take(round(n_out * n_in * CODE_BYTES[kind]))
    n_scales = n_out * n_in // GROUP if kind in SMALLEST else 0
    scales = memory.take(2 * n_scales)  # bfloat16 (n_out / LANES, n_in / GROUP, LANES)
    added = memory.take(n_out * 4).view(torch.float32).zero_()
    if bias is not None:
        added[: len(bias)] = bias
    addresses = (codes.data_ptr(), scales.data_ptr(), added.data_ptr())
    made = Linear(*addresses, n_in, weight.shape[0], KINDS.index(kind))
    contiguous = weight.detach().float().contiguous()
    memory.library.pack(ctypes.addressof(made), contiguous.data_ptr(), weight.shape[1], torch.get_num_threads())
    return Packed(made, (codes, scales, added))


def round_in_place(library: ctypes.CDLL, weight: Tensor, kind: Kind) -> None:
    """Leaves of a float32 weight what int8 or int4 can hold of it, as `weights.rounded` does: (n_out, n_in)."""
    assert weight.is_contiguous() and weight.dtype == torch.float32
    library.round_weight(weight.data_ptr(), *weight.shape, KINDS.index(kind), torch.get_num_threads())


def input_floats(n_rows: int, n_in: int) -> int:
    """Memory that rows take as a product's input, in float32 numbers."""
    return n_rows * (n_in + GROUP) * 2


def filled_width(d_head: int) -> int:
    """The width of a head as the kernel keeps it."""
    return d_head + -d_head % LANES


def work_floats(n_rows: int, shape: Architecture, n_positions: int, n_threads: int) -> int:
    """Memory that a pass over all blocks works in, in float32 numbers."""
    scores = n_threads * QUERIES * (n_positions + LANES)
    rows = n_rows * (3 * shape.d_model + shape.d_ffn + shape.n_heads * filled_width(shape.d_head))
    return rows + scores + input_floats(n_rows, max(shape.d_model, shape.d_ffn))


@lru_cache
def kernel() -> ctypes.CDLL | None:
    """The kernel, built now if it is not there yet; None, with one warning, where that cannot be."""
    try:
        folder = resources.files("cerebras_gpt.generate") / "kernels"
        return _declared(library("decode", b"".join((folder / name).read_bytes() for name in SOURCES)))
    except FAILURES as error:
        log.warning("decoding without the compiled kernel, several times slower: %s", error)
        return None


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    address, number = ctypes.c_void_p, ctypes.c_int64
    found.hidden.argtypes = [address, number, number, *[address] * 7, ctypes.c_int]
    found.product.argtypes = [address, number, number, *[address] * 3, ctypes.c_int]
    found.in_large_pages.argtypes = [address, number]
    found.pack.argtypes = [address, address, number, ctypes.c_int]
    found.round_weight.argtypes = [address, number, number, number, ctypes.c_int]
    for function in (found.hidden, found.product, found.in_large_pages, found.pack, found.round_weight):
        function.restype = None
    return found
