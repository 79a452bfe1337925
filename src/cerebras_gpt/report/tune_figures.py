"""The picture of a search: held-out loss against each pair of the tuned values, with the chosen point marked."""

import json
import math
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cerebras_gpt.files import read_json, replace_text
from cerebras_gpt.report.figures import COLOURS, STYLE, WIDE
from cerebras_gpt.report.words import plain
from cerebras_gpt.train.search import Findings, Point, Range, Space

AXES = {"peak_lr": "peak learning rate", "init_std": "init std", "embedding_scale": "embedding scale"}
FILE = "surface.json"
"""In the folder of a search: what is drawn, so that a report can draw it again."""
PNG_WIDTH = 10.0
"""Inches."""
SHOWN_SHARE = 0.75
"""Losses above this quantile share one colour: how bad the worst points are does not matter."""


class Surface(NamedTuple):
    """What a search saw, ready to be drawn."""

    points: tuple[tuple[Point, float], ...]
    """Every sample with its held-out loss, nats per token, infinite where it diverged."""
    best: Point
    space: Space

    def to_json(self) -> str:
        """As strict JSON: infinity is null."""
        rows = [[*point, loss if math.isfinite(loss) else None] for point, loss in self.points]
        return json.dumps({"points": rows, "best": self.best, "space": self.space.axes()}, indent=1) + "\n"

    @classmethod
    def load(cls, folder: Path) -> "Surface":
        """The surface in the folder of a search; raises ValueError naming a file that is none."""
        file = folder / FILE
        if not file.exists():
            raise FileNotFoundError(
                f"{folder} lacks {FILE}; run the same `cerebras-gpt tune` again, it trains nothing anew"
            )
        try:
            return cls._from(read_json(file))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is no surface of a search ({error}); run `cerebras-gpt tune` again") from None

    @classmethod
    def _from(cls, found: dict[str, object]) -> "Surface":
        rows, best, space = found["points"], found["best"], found["space"]
        if not (isinstance(rows, list) and isinstance(best, list) and isinstance(space, dict)):
            raise ValueError("points, best and space are asked for")
        points = [(Point(*row[:3]), math.inf if row[3] is None else float(row[3])) for row in rows]
        return cls(tuple(points), Point(*best), Space(**{axis: Range(*ends) for axis, ends in space.items()}))


def surface_of(findings: Findings, space: Space) -> Surface:
    """Of a finished search."""
    points = tuple((sample.point, sample.outcome.held_out) for sample in findings.samples)
    return Surface(points, findings.best.point, space)


def surface_figure(surface: Surface, width: float = WIDE) -> Figure:
    """Three panels, one a pair of values: every sample in the colour of its loss, the chosen point in a ring."""
    n_columns = 3 if width >= WIDE else 1
    figure = Figure(figsize=(width, (0.34 if n_columns == 3 else 2.6) * width), layout="constrained")
    losses = np.array([loss for _, loss in surface.points])
    known = np.isfinite(losses)
    low, high = float(losses[known].min()), float(np.quantile(losses[known], SHOWN_SHARE))
    axes = figure.subplots(3 // n_columns, n_columns, squeeze=False).ravel()
    for ax, pair in zip(axes, combinations(Point._fields, 2), strict=True):
        x, y = (np.array([getattr(point, axis) for point, _ in surface.points]) for axis in pair)
        order = np.argsort(-losses[known])  # the best are drawn last, on top
        dots = ax.scatter(
            x[known][order], y[known][order], c=losses[known][order], vmin=low, vmax=max(high, low + 1e-6),
            cmap="viridis_r", s=36, linewidths=0,
        )  # fmt: skip
        ax.scatter(x[~known], y[~known], marker="x", s=26, linewidths=1, color=COLOURS["rest"])
        chosen = [getattr(surface.best, axis) for axis in pair]
        ax.scatter(*chosen, s=150, facecolors="none", edgecolors=COLOURS["second"], linewidths=1.8)
        for axis, name in zip("xy", pair, strict=True):
            log_axis(ax, axis, surface.space.axes()[name], AXES[name])
    where = "right" if n_columns == 3 else "bottom"
    bar = figure.colorbar(dots, ax=figure.axes, label="held-out nats per token", extend="max", pad=0.01, location=where)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def log_axis(ax: Axes, axis: str, limits: tuple[float, float], label: str) -> None:
    """A logarithmic axis with plain numbers."""
    low, high = limits
    room = (max(high / low, 1.1)) ** 0.04
    ax.set(**{f"{axis}scale": "log", f"{axis}label": label, f"{axis}lim": (low / room, high * room)})
    found = ax.xaxis if axis == "x" else ax.yaxis
    found.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 20 * low else (1, 3)))
    found.set_major_formatter(FuncFormatter(lambda value, _: plain(value, 2)))
    found.set_minor_formatter(NullFormatter())


def write_surface(surface: Surface, picture: Path) -> None:
    """The picture as a PNG file, and beside it what it was drawn from."""
    replace_text(picture.parent / FILE, surface.to_json())
    with matplotlib.rc_context(STYLE):
        surface_figure(surface, PNG_WIDTH).savefig(picture, dpi=160, facecolor="white")
