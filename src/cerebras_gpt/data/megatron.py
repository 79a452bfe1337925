"""Token data of Megatron (prefix.bin, prefix.idx), read and checked against its own index.

The index, little-endian: magic, version 1, a code of the token type, the numbers of sequences and of document bounds,
then for each sequence its length (int32) and byte offset (int64), then the document bounds in sequences (int64).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
REMEDY = "make it again with Megatron's preprocess_data, or fetch it again"


class _Index(NamedTuple):
    dtype: np.dtype[np.signedinteger]
    sizes: np.ndarray
    """Tokens of each sequence: (n,)."""
    pointers: np.ndarray
    """Where each starts, in bytes: (n,)."""
    bounds: np.ndarray
    """First sequence of each document, and the end of the last: (n_documents + 1,)."""


def read_megatron(prefix: Path) -> Iterator[np.ndarray]:
    """The ids of each document, in order: (n_tokens,) of an integer type, from read-only memory.

    The prefix may carry the suffix .idx or .bin. The index is checked as a whole first; raises ValueError or
    FileNotFoundError in one line.
    """
    stem = prefix.with_suffix("") if prefix.suffix in (".idx", ".bin") else prefix
    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".idx", ".bin")]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; token data are two files, {stem.name}.idx and {stem.name}.bin")
    index = _read_index(paths[0])
    n_bytes = paths[1].stat().st_size
    _check(index, n_bytes, paths[0])
    return _documents(index, np.memmap(paths[1], np.uint8, mode="r") if n_bytes else np.zeros(0, np.uint8))


def _documents(index: _Index, content: np.ndarray) -> Iterator[np.ndarray]:
    itemsize = index.dtype.itemsize
    for first, end in zip(index.bounds[:-1].tolist(), index.bounds[1:].tolist(), strict=True):
        places = zip(index.pointers[first:end].tolist(), index.sizes[first:end].tolist(), strict=True)
        parts = [content[start : start + size * itemsize].view(index.dtype) for start, size in places]
        yield parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, index.dtype), *parts])


def _read_index(path: Path) -> _Index:
    content = path.read_bytes()
    if len(content) < HEADER.size or not content.startswith(MAGIC):
        raise ValueError(f"{path} is no index of Megatron's token data (it does not begin with MMIDIDX); {REMEDY}")
    _, version, code, n_sequences, n_bounds = HEADER.unpack_from(content)
    if version != 1:
        raise ValueError(f"{path} is of version {version:,}; only version 1 can be read")
    if code not in DTYPES:
        raise ValueError(f"{path} says its tokens are of type {code}; only whole numbers can be read: {[*DTYPES]}")
    expected = HEADER.size + 12 * n_sequences + 8 * n_bounds
    if len(content) != expected:
        raise ValueError(f"{path} has {len(content):,} bytes, its header says {expected:,}; {REMEDY}")
    sizes_end = HEADER.size + 4 * n_sequences
    pointers_end = sizes_end + 8 * n_sequences
    return _Index(
        np.dtype(DTYPES[code]),
        np.frombuffer(content[HEADER.size : sizes_end], "<i4"),
        np.frombuffer(content[sizes_end:pointers_end], "<i8"),
        np.frombuffer(content[pointers_end:], "<i8"),
    )


def _check(index: _Index, n_bytes: int, path: Path) -> None:
    """Raises ValueError unless every sequence lies in the tokens' file, and every document in the sequences."""
    sizes, pointers, itemsize = index.sizes.astype(np.int64), index.pointers, index.dtype.itemsize
    outside = (sizes < 0) | (pointers < 0) | (pointers % itemsize != 0) | (pointers > n_bytes - sizes * itemsize)
    if outside.any():
        n = int(outside.argmax())
        raise ValueError(
            f"{path} puts sequence {n:,} of {sizes[n]:,} tokens at byte {pointers[n]:,} of {n_bytes:,} in the .bin; "
            f"{REMEDY}"
        )
    bounds = index.bounds
    if not len(bounds) or bounds[0] != 0 or bounds[-1] != len(sizes) or (np.diff(bounds) < 0).any():
        raise ValueError(
            f"{path} has document bounds that do not go from 0 up to its {len(sizes):,} sequences; {REMEDY}"
        )
