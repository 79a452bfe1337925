"""torch's older weight files (`pytorch_model.bin`) read as data: no pickle is executed, ever."""

import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cerebras_gpt.interop.folder import shown
from cerebras_gpt.interop.pickled import REMEDY, Record, read_records
from cerebras_gpt.interop.tensor_files import Stored

LARGEST_PICKLE = 1 << 26
"""Bytes of the largest pickle that is read; a state dict takes about a hundred for each tensor."""
NOTES = ("data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id")
"""What torch.save puts in an archive beside the storages."""
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)
"""What the zip reader raises for archives that are damaged, encrypted or of a kind it does not know."""


class LegacyFile:
    """A zip archive of torch.save: a pickle that describes tensors, and a file of bytes for each storage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = _entries(path)
        try:
            if "byteorder" in self._entries and self._content("byteorder", 16) != b"little":
                raise ValueError(f"its numbers are not little-endian; {REMEDY}")
            self.records = read_records(self._content("data.pkl", LARGEST_PICKLE))
            for name, record in self.records.items():
                self._check(name, record)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        self.stored: Mapping[str, Stored] = {
            name: Stored(record.storage.dtype, record.shape) for name, record in self.records.items()
        }

    def read(self, name: str) -> Tensor:
        """One tensor in its own type, contiguous."""
        storage, offset, shape, stride = self.records[name]
        dtype = getattr(torch, storage.dtype)
        if not math.prod(shape):
            return torch.empty(shape, dtype=dtype)
        entry = f"data/{storage.key}"
        content = bytearray(self._content(entry, self._entries[entry].file_size))
        return torch.frombuffer(content, dtype=dtype).as_strided(shape, stride, offset).contiguous()

    def _check(self, name: str, record: Record) -> None:
        """Raises ValueError unless the tensor lies within a storage that has the size it should have."""
        storage, offset, shape, stride = record
        entry = self._entries.get(f"data/{storage.key}")
        if entry is None:
            raise ValueError(
                f"{shown(name)} lies in the storage {shown(storage.key)}, which is missing; fetch it again"
            )
        if entry.file_size != storage.n_elements * getattr(torch, storage.dtype).itemsize:
            raise ValueError(
                f"the storage of {shown(name)} has {entry.file_size:,} bytes, not {storage.n_elements:,} elements of "
                f"{storage.dtype}; fetch it again"
            )
        n_elements = math.prod(shape)
        end = offset + 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if n_elements else offset
        if max(n_elements, end) > storage.n_elements:
            raise ValueError(
                f"{shown(name)} of shape {shown(shape)} does not fit its storage of {storage.n_elements:,} elements; "
                "fetch it again"
            )

    def _content(self, entry: str, limit: int) -> bytes:
        info = self._entries.get(entry)
        if info is None or info.file_size > limit:
            raise ValueError(f"{entry} is missing or larger than {limit:,} bytes; {REMEDY}")
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(info)
        except DAMAGE:
            raise ValueError(f"{entry} is damaged; fetch the file again") from None


def _entries(path: Path) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their names in its one folder; raises ValueError if it is not such an archive."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise ValueError(f"{path} is no zip archive of torch.save but something older or else; {REMEDY}")
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except DAMAGE:
        raise ValueError(f"{path} is a damaged zip archive; fetch it again") from None
    found: dict[str, zipfile.ZipInfo] = {}
    root = infos[0].filename.partition("/")[0] if infos else ""
    for info in infos:
        top, _, name = info.filename.partition("/")
        if top != root or name in found or not _is_expected(name):
            raise ValueError(f"{path} holds {shown(info.filename)}, which torch.save never puts there; {REMEDY}")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"{path}: {shown(info.filename)} is compressed, as torch.save never does; {REMEDY}")
        found[name] = info
    if sum(info.file_size for info in infos) > path.stat().st_size:
        raise ValueError(f"{path} says that it holds more bytes than it has; fetch it again")
    return found


def _is_expected(name: str) -> bool:
    key = name.removeprefix("data/")
    return name in NOTES or (key != name and key.isascii() and key.isdigit())
