"""The compiled kernel: built once with the C++ compiler that is there, kept in the user's cache folder."""

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cerebras_gpt.generate.weights import CODE_BYTES, GROUP, KINDS, LANES, Kind
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.process import cache_folder, processor

log = logging.getLogger("cerebras_gpt")

COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    "-O3",
    "-march=native",
    "-std=c++17",
    "-fPIC",
    "-shared",
    "-fno-math-errno",
    "-fno-strict-aliasing",
    "-Wno-psabi",
)
SOURCES = ("numbers.h", "products.h", "packing.h", "attention.h", "decode.cpp")
"""Joined in this order, they are one source."""
THREADS = (("-fopenmp",), ())
"""Tried in this order: Apple's compiler comes without OpenMP."""
BUILD_SECONDS = 120
LARGE_PAGE = 2**21
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
        *[(name, ctypes.c_int64) for name in ("activation", "small_cache", "n_slots", "n_positions")],
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


def packed(library: ctypes.CDLL, weight: Tensor, kind: Kind, bias: Tensor | None = None) -> Packed:
    """A float32 weight (n_out, n_in) in tiles of LANES rows, in large pages; the bias is filled up to LANES.

    In a tile, 4 bytes of one row (4 int8, 8 int4 in two steps, 2 bfloat16) lie beside the next row's.
    """
    n_out, n_in = weight.shape[0] + -weight.shape[0] % LANES, weight.shape[1] + -weight.shape[1] % GROUP
    codes = _in_large_pages(library, round(n_out * n_in * CODE_BYTES[kind]))
    scales = torch.empty(n_out * n_in // GROUP, dtype=torch.bfloat16)  # (n_out / LANES, n_in / GROUP, LANES)
    added = torch.zeros(n_out)
    if bias is not None:
        added[: len(bias)] = bias
    addresses = (codes.data_ptr(), scales.data_ptr(), added.data_ptr())
    made = Linear(*addresses, n_in, weight.shape[0], KINDS.index(kind))
    contiguous = weight.detach().float().contiguous()
    library.pack(ctypes.addressof(made), contiguous.data_ptr(), weight.shape[1], torch.get_num_threads())
    return Packed(made, (codes, scales, added))


def _in_large_pages(library: ctypes.CDLL, n_bytes: int) -> Tensor:
    memory = torch.empty(n_bytes + LARGE_PAGE, dtype=torch.uint8)
    first = -memory.data_ptr() % LARGE_PAGE
    library.in_large_pages(memory.data_ptr() + first, n_bytes)
    return memory[first : first + n_bytes]


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


def compiler() -> str | None:
    """The C++ compiler that is there."""
    return next((path for name in COMPILERS if (path := shutil.which(name))), None)


@lru_cache
def kernel() -> ctypes.CDLL | None:
    """The kernel, built now if it is not there yet; None, with one warning, where that cannot be."""
    try:
        return _declared(ctypes.CDLL(str(_built())))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        log.warning("decoding without the compiled kernel, several times slower: %s", error)
        return None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    address, number = ctypes.c_void_p, ctypes.c_int64
    library.hidden.argtypes = [address, number, *[address] * 6, ctypes.c_int]
    library.product.argtypes = [address, number, number, *[address] * 3, ctypes.c_int]
    library.in_large_pages.argtypes = [address, number]
    library.pack.argtypes = [address, address, number, ctypes.c_int]
    library.round_weight.argtypes = [address, number, number, number, ctypes.c_int]
    for function in (library.hidden, library.product, library.in_large_pages, library.pack, library.round_weight):
        function.restype = None
    return library


def _built() -> Path:
    """The library of this source, compiler and processor."""
    found = compiler()
    if found is None:
        raise ValueError(f"no C++ compiler ({', '.join(COMPILERS)}); install one, for example g++")
    folder = resources.files("cerebras_gpt.generate") / "kernels"
    code = b"".join((folder / name).read_bytes() for name in SOURCES)
    identity = "\0".join([found, str(Path(found).stat().st_mtime_ns), processor(), sys.platform, *FLAGS])
    name = hashlib.sha256(code + identity.encode()).hexdigest()[:16]
    library = cache_folder() / "kernels" / f"decode-{name}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        _compile(found, code, library)
    return library


def _compile(program: str, code: bytes, library: Path) -> None:
    """Under a name of its own first, so that no other process ever loads half a file."""
    made = library.with_suffix(f".{uuid.uuid4().hex}")
    for threads in THREADS:
        command: Sequence[str] = [program, *FLAGS, *threads, "-x", "c++", "-", "-o", str(made)]
        told = subprocess.run(command, input=code, capture_output=True, timeout=BUILD_SECONDS, check=False)
        if told.returncode == 0:
            os.replace(made, library)
            return
    lines = told.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    made.unlink(missing_ok=True)
    raise ValueError(f"{program} could not build it: {next((x for x in lines if 'error' in x), lines[-1])}")
