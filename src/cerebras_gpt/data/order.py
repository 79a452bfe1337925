"""The order of training samples: keyed permutations that need no memory and no history."""

import hashlib
import math
from typing import NamedTuple

import numpy as np

ROUNDS = 4  # four rounds of a Feistel network are a strong permutation (Luby and Rackoff 1988)
MIXERS = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)  # odd, from MurmurHash3's finaliser
SHIFT, HALF = np.uint64(33), np.uint64(32)


class EpochKey(NamedTuple):
    """What decides the order of one epoch."""

    rounds: np.ndarray
    """(ROUNDS,) uint64."""
    offset: int
    """A large random number, to be reduced by who uses it."""


def epoch_key(seed: int, epoch: int) -> EpochKey:
    """The key of an epoch: BLAKE2b of the seed and the epoch's number."""
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=8 * (ROUNDS + 1)).digest()
    numbers = np.frombuffer(digest, "<u8")
    return EpochKey(numbers[:ROUNDS].astype(np.uint64), int(numbers[ROUNDS]))


def _mix(x: np.ndarray) -> np.ndarray:
    """32 bits that depend on every bit of x; few enough that a sum with a row number cannot overflow."""
    for factor in MIXERS:
        x = (x ^ (x >> SHIFT)) * factor
    return x >> HALF


def _network(x: np.ndarray, rounds: np.ndarray, n_rows: int, n_columns: int) -> np.ndarray:
    """A permutation of range(n_rows * n_columns): each round turns one half by a keyed function of the other."""
    rows, columns = np.uint64(n_rows), np.uint64(n_columns)
    row, column = np.divmod(x, columns)
    for index in range(0, ROUNDS, 2):
        row = (row + _mix(column ^ rounds[index])) % rows
        column = (column + _mix(row ^ rounds[index + 1])) % columns
    return row * columns + column


def permuted(indices: np.ndarray, n: int, rounds: np.ndarray) -> np.ndarray:
    """Where a keyed permutation of range(n) sends each index: (N,) -> (N,).

    A Feistel network over the smallest grid that holds n, nearly square; what falls outside range(n) walks on along
    its cycle until it is inside.
    """
    n_rows = math.isqrt(n - 1) + 1
    n_columns = -(-n // n_rows)
    x = _network(indices.astype(np.uint64), rounds, n_rows, n_columns)
    while (outside := x >= n).any():
        x[outside] = _network(x[outside], rounds, n_rows, n_columns)
    return x.astype(np.int64)
