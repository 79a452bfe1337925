"""The compiled kernels of training: C++ where the processor multiplies bfloat16 and a compiler is there, or Triton."""

import ctypes
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib import resources

import torch
from torch import Tensor

from cerebras_gpt.compiled import FAILURES, library

log = logging.getLogger("cerebras_gpt")

SOURCES = ("numbers.h", "rows.cpp", "attention.cpp", "attention_back.cpp")
"""Joined in this order, they are one source."""


class Shape(ctypes.Structure):
    """Of attention, as the kernel's struct of this name."""

    _fields_ = [(name, ctypes.c_int64) for name in ("B", "H", "T", "D")]


class Heads(ctypes.Structure):
    """Vectors of every head, as the kernel's struct of this name."""

    _fields_ = [("data", ctypes.c_void_p), *[(name, ctypes.c_int64) for name in ("of_batch", "of_head", "of_time")]]


def heads(x: Tensor) -> Heads:
    """What the kernel is told of vectors that lie anyhow, but each in one piece: (B, H, T, D)."""
    assert x.stride(-1) == 1
    return Heads(x.data_ptr(), *x.stride()[:3])


@lru_cache
def kernel() -> ctypes.CDLL | None:
    """The kernels, built now if they are not there yet; None, told once, where that cannot be: torch computes then."""
    try:
        folder = resources.files("cerebras_gpt.model") / "kernels"
        return _declared(library("train", b"".join((folder / name).read_bytes() for name in SOURCES)))
    except FAILURES as error:
        log.info("training without compiled kernels: %s", error)
        return None


def serves(x: Tensor) -> bool:
    """Whether the kernels compute with a tensor of this kind here."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and kernel() is not None


def gpu_rows(logits: Tensor) -> Callable[[Tensor, Tensor, int], Tensor] | None:
    """The loss's pass over logits of this kind on a GPU: see `gpu_rows.loss_rows`; None where Triton is not there."""
    if logits.device.type != "cuda" or logits.dtype == torch.float64 or not logits.is_contiguous():
        return None
    with suppress(ImportError):
        from cerebras_gpt.model.gpu_rows import loss_rows

        return loss_rows
    return None


def call(name: str, *given: Tensor | Heads | Shape | int | float) -> None:
    """Lets the kernel of this name compute, on as many threads as torch does."""
    found = kernel()
    assert found is not None
    values = [x.data_ptr() if isinstance(x, Tensor) else x for x in given]
    getattr(found, name)(*values, torch.get_num_threads())


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    address, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    arguments: dict[str, list[type]] = {
        "norm_forward": [*[address] * 5, number, number, real],
        "norm_backward": [*[address] * 6, number, number],
        "loss_rows": [address, address, address, number, number, number],
        "attention_forward": [Shape, *[Heads] * 4, address, real],
        "attention_backward": [Shape, *[Heads] * 8, address, real],
    }
    for name, kinds in arguments.items():
        function = getattr(found, name)
        function.argtypes, function.restype = [*kinds, ctypes.c_int], None
    return found
