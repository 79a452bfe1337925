"""The compiled kernel of decoding: its structs, its memory, and where it comes from."""

import ctypes
import logging
from functools import lru_cache
from importlib import resources

from torch import Tensor

from cerebras_gpt.compiled import FAILURES, library
from cerebras_gpt.generate.weights import GROUP, KINDS, LANES, Kind, Packed

log = logging.getLogger("cerebras_gpt")


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
        *[(name, ctypes.c_int64) for name in ("activation", "small_cache", "n_slots", "n_positions")],
        *[
            (name, ctypes.c_float)
            for name in ("eps", "attention_scale", "residual_scale", "embedding_scale", "logit_scale")
        ],
        *[(name, ctypes.c_void_p) for name in ("tokens", "positions", "norm", "norm_bias")],
        ("layers", ctypes.POINTER(Layer)),
        ("head", Linear),
    ]


def linear(packed: Packed, kind: Kind, n_in: int, n_out: int, bias: Tensor | None = None) -> Linear:
    """What the kernel is told of a packed weight, whose tensors must outlive it; the bias is filled up to LANES."""
    scales = None if packed.scales is None else packed.scales.data_ptr()
    address = None if bias is None else bias.data_ptr()
    return Linear(packed.codes.data_ptr(), scales, address, n_in + -n_in % GROUP, n_out, KINDS.index(kind))


def input_floats(n_rows: int, n_in: int) -> int:
    """Memory that rows take as a product's input, in float32 numbers."""
    return n_rows * (n_in + GROUP) * 2


def work_floats(n_rows: int, d_model: int, d_ffn: int, n_positions: int, n_threads: int) -> int:
    """Memory that a pass over all blocks works in, in float32 numbers."""
    scores = n_threads * (n_positions + LANES)
    return n_rows * (4 * d_model + d_ffn) + scores + input_floats(n_rows, max(d_model, d_ffn))


@lru_cache
def kernel() -> ctypes.CDLL | None:
    """The kernel, built now if it is not there yet; None, with one warning, where that cannot be."""
    try:
        code = (resources.files("cerebras_gpt.generate") / "kernels" / "decode.cpp").read_bytes()
        return _declared(library("decode", code))
    except FAILURES as error:
        log.warning("decoding without the compiled kernel, several times slower: %s", error)
        return None


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    address, number = ctypes.c_void_p, ctypes.c_int64
    found.hidden.argtypes = [address, number, *[address] * 6, ctypes.c_int]
    found.product.argtypes = [address, number, number, *[address] * 3, ctypes.c_int]
    found.in_large_pages.argtypes = [address, number]
    for function in (found.hidden, found.product, found.in_large_pages):
        function.restype = None
    return found
