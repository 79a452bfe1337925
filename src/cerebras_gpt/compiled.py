"""C++ compiled for the processor at hand: built once with the compiler that is there, kept in the cache folder."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cerebras_gpt.process import cache_folder, processor, processor_flags

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno", "-fno-strict-aliasing")
QUIET = ("-Wno-psabi",)
THREADS = (("-fopenmp",), ())
"""Tried in this order: Apple's compiler comes without OpenMP."""
BUILD_SECONDS = 120

FAILURES = (OSError, subprocess.SubprocessError, ValueError)
"""What `library` raises where there is no compiler, or none that can build this."""


def compiler() -> str | None:
    """The C++ compiler that is there."""
    return next((path for name in COMPILERS if (path := shutil.which(name))), None)


@cache
def trains_here() -> bool:
    """Whether the kernels of training (model/kernels/) should build here, told without building them."""
    return compiler() is not None and "avx512_bf16" in processor_flags()


def library(name: str, code: bytes) -> ctypes.CDLL:
    """The library of this source, built now if it is not there yet."""
    return ctypes.CDLL(str(_built(name, code)))


def _built(name: str, code: bytes) -> Path:
    """The library of this source, compiler and processor."""
    found = compiler()
    if found is None:
        raise ValueError(f"no C++ compiler ({', '.join(COMPILERS)}); install one, for example g++")
    identity = "\0".join([found, str(Path(found).stat().st_mtime_ns), processor(), sys.platform, *FLAGS])
    key = hashlib.sha256(code + identity.encode()).hexdigest()[:16]
    built = cache_folder() / "kernels" / f"{name}-{key}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        _compile(found, code, built)
    return built


def _compile(program: str, code: bytes, built: Path) -> None:
    """Under a name of its own first, so that no other process ever loads half a file."""
    made = built.with_suffix(f".{uuid.uuid4().hex}")
    for threads in THREADS:
        command: Sequence[str] = [program, *FLAGS, *QUIET, *threads, "-x", "c++", "-", "-o", str(made)]
        told = subprocess.run(command, input=code, capture_output=True, timeout=BUILD_SECONDS, check=False)
        if told.returncode == 0:
            os.replace(made, built)
            return
    lines = told.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    made.unlink(missing_ok=True)
    raise ValueError(f"{program} could not build it: {next((x for x in lines if 'error' in x), lines[-1])}")
