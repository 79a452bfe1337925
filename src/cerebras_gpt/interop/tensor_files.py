"""Files of named tensors: what each says it holds, checked before anything is read, and the tensors one by one."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import safetensors
from safetensors import SafetensorError
from torch import Tensor

from cerebras_gpt.interop.folder import LARGEST_JSON, parsed_object, shown

EXACT = ("float32", "float16", "bfloat16")
"""Types that float32 holds exactly."""
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Stored(NamedTuple):
    """What a file says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


class TensorFile(Protocol):
    """A file whose header has been read and found to fit its size."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def stored(self) -> Mapping[str, Stored]:
        """What it holds, by name."""

    def read(self, name: str) -> Tensor:
        """One tensor in its own type."""


class SafetensorsFile:
    """A safetensors file; the library checks that offsets fit the shapes, one another and the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_header(path)
        try:
            with safetensors.safe_open(path, "pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                self.stored: Mapping[str, Stored] = {
                    name: Stored(DTYPES.get(part.get_dtype(), part.get_dtype()), tuple(part.get_shape()))
                    for name, part in slices.items()
                }
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file: {shown(str(error))}") from None

    def read(self, name: str) -> Tensor:
        """One tensor in its own type."""
        with safetensors.safe_open(self.path, "pt") as file:
            return file.get_tensor(name)


def _check_header(path: Path) -> None:
    """Raises ValueError if the header is longer than the file or names a tensor twice, which the library overlooks."""
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        (length,) = struct.unpack("<Q", start) if len(start) == 8 else (n_bytes,)
        if length > min(n_bytes - 8, LARGEST_JSON):
            raise ValueError(f"{path} says its header has {length:,} bytes, the file has {n_bytes:,}; fetch it again")
        parsed_object(file.read(length), f"the header of {path}")
