"""What any language model must beat on the same held-out bytes: two compressors and a byte n-gram model."""

import bz2
import lzma
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

Codec = Callable[[bytes], bytes]
Keys = NDArray[np.uint64]
Counts = NDArray[np.int64]

ORDER = 5
"""Bytes in the longest n-gram of the published baseline: four of context and the next one."""

LONGEST_ORDER = 8
"""An n-gram is packed into one 64-bit integer."""

BYTE = np.uint64(8)
"""Bits to shift by; of this type, because a plain int would not keep the integers unsigned."""

SMALLEST_WINDOW, LARGEST_WINDOW = 2**12, 1536 * 2**20
"""Limits of the xz format, in bytes."""


def xz(text: bytes) -> bytes:
    """Text as `xz -9e` packs it, with a window that covers all of it."""
    window = min(max(len(text), SMALLEST_WINDOW), LARGEST_WINDOW)
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}
    return lzma.compress(text, filters=[lzma2])


def bzip2(text: bytes) -> bytes:
    """Text as `bzip2 -9` packs it; its blocks of 900 kB make it nearly blind to what was said before."""
    return bz2.compress(text, 9)


CODECS: dict[str, Codec] = {"xz": xz, "bzip2": bzip2}


def compression(train: bytes, held_out: bytes, codec: Codec) -> float:
    """Bits per byte that the held-out text adds to the compressed training text; train b"" leaves it unprimed."""
    _check(held_out)
    with ThreadPoolExecutor(2) as pool:  # codecs let go of the interpreter lock, and xz is slow
        both, alone = pool.map(lambda text: len(codec(text)), (train + held_out, train))
    return 8 * (both - alone) / len(held_out)


def _check(held_out: bytes) -> None:
    if not held_out:
        raise ValueError("the held-out text has 0 bytes; give at least 1")


def _grams(text: NDArray[np.uint8], k: int) -> Keys:
    """Every k bytes in a row as one integer, the first byte highest: (n,) -> (n - k + 1,)."""
    n = max(0, len(text) - k + 1)
    grams = np.zeros(n, np.uint64)
    for i in range(k):
        grams = (grams << BYTE) | text[i : i + n]
    return grams


def _look_up(keys: Keys, values: Counts, asked: Keys) -> Counts:
    """The value of each asked key, 0 where it is absent; keys are sorted: (m,), (m,), (n,) -> (n,)."""
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[at] == asked, values[at], 0)


def byte_probabilities(train: bytes, held_out: bytes, order: int = ORDER) -> NDArray[np.float64]:
    """What an interpolated Witten-Bell model gives each held-out byte after the bytes before it: (n,).

    With c(h) how often context h was followed by anything, t(h) by how many different bytes, c(h, w) how often by w,
    and h' the context without its oldest byte,

        p(w | h) = (c(h, w) + t(h) p(w | h')) / (c(h) + t(h)),    uniform 1/256 below the empty context.

    Witten and Bell 1991 (method C), interpolated as in Chen and Goodman 1998. An unseen context
    has c = t = 0 and leaves p(w | h') as it is.
    """
    if not 1 <= order <= LONGEST_ORDER:
        raise ValueError(f"order is {order}; allowed: 1 to {LONGEST_ORDER}")
    seen, asked = (np.frombuffer(text, np.uint8) for text in (train, held_out))
    p = np.full(len(asked), 1 / 256)
    for k in range(1, min(order, len(seen), len(asked)) + 1):
        grams, counts = np.unique(_grams(seen, k), return_counts=True)
        # Sorted n-grams keep the followers of a context together.
        contexts, first = np.unique(grams >> BYTE, return_index=True)
        followers = np.diff(first, append=len(grams))
        queries = _grams(asked, k)
        c_hw = _look_up(grams, counts, queries)
        c_h = _look_up(contexts, np.add.reduceat(counts, first), queries >> BYTE)
        t_h = _look_up(contexts, followers, queries >> BYTE)
        p_shorter = p[k - 1 :]
        p[k - 1 :] = np.where(c_h > 0, (c_hw + t_h * p_shorter) / np.maximum(c_h + t_h, 1), p_shorter)
    return p


def witten_bell(train: bytes, held_out: bytes, order: int = ORDER) -> float:
    """Bits per byte of held-out text under the byte n-gram model of `byte_probabilities`."""
    _check(held_out)
    return -float(np.log2(byte_probabilities(train, held_out, order)).sum()) / len(held_out)


def measure_baselines(train: bytes, held_out: bytes) -> dict[str, float]:
    """Bits per byte of held-out text by what must be beaten, each having seen the training text."""
    by_codec = {name: compression(train, held_out, codec) for name, codec in CODECS.items()}
    return {**by_codec, f"byte {ORDER}-gram": witten_bell(train, held_out)}
