"""What finished runs say to a law: points, read from a table of one's own."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cerebras_gpt import config

Array = NDArray[np.float64]

NATS, BITS = "nats per token", "bits per byte"
LOSS_COLUMNS = {"loss": NATS, "bits_per_byte": BITS}
"""Column of a table -> its unit."""
ALIASES = {"parameters": "n_parameters", "tokens": "n_tokens"}


@dataclass(frozen=True)
class Point:
    """One finished run; what a law does not look at may be missing."""

    n_parameters: float | None
    n_tokens: float | None
    loss: float
    flops: float | None = None
    """Training compute by the formula that the law names."""
    name: str = ""
    family: str = ""


class Points(NamedTuple):
    """Points of one unit."""

    points: tuple[Point, ...]
    unit: str


def named(points: Sequence[Point]) -> list[str]:
    """A name for each point: its own, or its place."""
    return [point.name or f"point {i}" for i, point in enumerate(points, 1)]


def column(points: Sequence[Point], key: str) -> Array:
    """One quantity of all points: -> (n,). Raises ValueError naming a point that lacks it, or where it is no size."""
    for name, point in zip(named(points), points, strict=True):
        value = getattr(point, key)
        if value is None:
            raise ValueError(f"{name} has no {key}, which this law needs; add it to the table")
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} has {key} {value:g}; it must be finite and positive")
    return np.array([getattr(point, key) for point in points], dtype=np.float64)


def compute(points: Sequence[Point]) -> Array:
    """FLOPs of every point, as given or else as 6 N D: -> (n,)."""
    if all(point.flops is not None for point in points):
        return column(points, "flops")
    return 6 * column(points, "n_parameters") * column(points, "n_tokens")


def enough(points: Sequence[object], fewest: int, what: str) -> None:
    """Raises ValueError when there are too few points for a law."""
    if len(points) < fewest:
        raise ValueError(f"{what} needs at least {fewest} finished runs, {len(points)} given; train more sizes")


def read_table(path: Path) -> Points:
    """The points of a CSV or JSON table, one row a run; raises ValueError naming the file and what it lacks."""
    rows = list(_rows(path))
    units = {LOSS_COLUMNS[key] for row in rows for key in row if key in LOSS_COLUMNS}
    if len(units) != 1:
        raise ValueError(f"{path} needs one column of losses, {' or '.join(LOSS_COLUMNS)}, in every row")
    return Points(tuple(_point(path, i, row) for i, row in enumerate(rows, 1)), units.pop())


def _rows(path: Path) -> Iterable[Mapping[str, object]]:
    text = path.read_text("utf-8")
    if path.suffix == ".csv":
        return [{(key or "").strip(): cell for key, cell in row.items()} for row in csv.DictReader(text.splitlines())]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); give a run folder, or a .csv or .json table") from None
    rows = found.get("points") if isinstance(found, dict) else found
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} holds no table; give a list of objects, each with flops and loss")
    return rows


def _point(path: Path, i: int, row: Mapping[str, object]) -> Point:
    values: dict[str, object] = {"n_parameters": None, "n_tokens": None}
    for key, cell in row.items():
        name = "loss" if key in LOSS_COLUMNS else ALIASES.get(key, key)
        values[name] = None if cell in ("", None) and name not in ("name", "family") else cell
    try:
        return config.from_mapping(Point, values)
    except ValueError as error:
        raise ValueError(f"{path}, row {i}: {error}") from None


def to_rows(points: Sequence[Point]) -> list[dict[str, object]]:
    """The points as plain JSON values."""
    return [asdict(point) for point in points]
