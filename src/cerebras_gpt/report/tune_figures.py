"""The picture of a search: held-out loss against each pair of the tuned values, with the chosen point marked."""

from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cerebras_gpt.report.figures import COLOURS, STYLE
from cerebras_gpt.report.words import plain
from cerebras_gpt.train.search import Findings, Point, Space

AXES = {"peak_lr": "peak learning rate", "init_std": "init std", "embedding_scale": "embedding scale"}
SHOWN_SHARE = 0.75
"""Losses above this quantile share one colour: how bad the worst points are does not matter."""


def surface_figure(findings: Findings, space: Space) -> Figure:
    """Three panels, one a pair of values: every sample in the colour of its loss, the chosen point in a ring."""
    figure = Figure(figsize=(10.0, 3.4), layout="constrained")
    losses = np.array([sample.outcome.held_out for sample in findings.samples])
    finite = losses[np.isfinite(losses)]
    low, high = float(finite.min()), float(np.quantile(finite, SHOWN_SHARE))
    for ax, pair in zip(figure.subplots(1, 3), combinations(Point._fields, 2), strict=True):
        x, y = (np.array([getattr(sample.point, axis) for sample in findings.samples]) for axis in pair)
        known = np.isfinite(losses)
        order = np.argsort(-losses[known])  # the best are drawn last, on top
        dots = ax.scatter(
            x[known][order], y[known][order], c=losses[known][order], vmin=low, vmax=max(high, low + 1e-6),
            cmap="viridis_r", s=36, linewidths=0,
        )  # fmt: skip
        ax.scatter(x[~known], y[~known], marker="x", s=26, linewidths=1, color=COLOURS["rest"])
        chosen = [getattr(findings.best.point, axis) for axis in pair]
        ax.scatter(*chosen, s=150, facecolors="none", edgecolors=COLOURS["second"], linewidths=1.8)
        for axis, name in zip("xy", pair, strict=True):
            log_axis(ax, axis, space.axes()[name], AXES[name])
    bar = figure.colorbar(dots, ax=figure.axes, label="held-out nats per token", extend="max", pad=0.01)
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


def write_surface(findings: Findings, space: Space, path: Path) -> None:
    """The picture as a PNG file."""
    with matplotlib.rc_context(STYLE):
        surface_figure(findings, space).savefig(path, dpi=160, facecolor="white")
