"""The pictures of a check: every activation against width, head width or depth, and loss against learning rate."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from cerebras_gpt.report.figures import COLOURS, STYLE, colour_of
from cerebras_gpt.report.words import plain
from cerebras_gpt.train.activations import QUANTITIES
from cerebras_gpt.train.coordinates import Axis, Size
from cerebras_gpt.train.slopes import Slope, judged
from cerebras_gpt.train.transfer import Transfer

ROWS, COLUMNS = 3, 3
"""The panels of one parametrization: one for each quantity."""

DPI = 90

WIDEST_RATIO = 1e3
"""The y axes of a quantity span at least this, the same for all side by side, so that flat looks flat."""

PANEL = 3.6
"""Inches that a panel of the transfer needs at least."""

AXIS_NAMES: dict[Axis, str] = {"width": "width", "head": "head width", "depth": "layers"}


class Picture(NamedTuple):
    """What was found of one parametrization, for drawing."""

    name: str
    sizes: dict[Axis, list[Size]]
    slopes: dict[Axis, list[Slope]]
    transfer: Transfer | None


def write_figures(pictures: Sequence[Picture], folder: Path) -> list[Path]:
    """PNG files of all pictures, side by side, one an axis, and one of the transfer if there is any."""
    axes = list(dict.fromkeys(axis for picture in pictures for axis in picture.sizes))
    paths = []
    with matplotlib.rc_context({**STYLE, "font.size": 7.0}):
        for axis in axes:
            shown = [picture for picture in pictures if axis in picture.sizes]
            paths.append(folder / f"check-{axis}.png")
            axis_figure(shown, axis).savefig(paths[-1], dpi=DPI, facecolor="white")
        found = [(picture.name, picture.transfer) for picture in pictures if picture.transfer is not None]
        if found:
            paths.append(folder / "check-transfer.png")
            transfer_figure(found).savefig(paths[-1], dpi=DPI, facecolor="white")
    return paths


def axis_figure(pictures: Sequence[Picture], axis: Axis) -> Figure:
    """A small panel for each quantity: its size at the start, and its change after so many steps."""
    figure = Figure(figsize=(6.6 * len(pictures), 6.0), layout="constrained")
    for part, picture in zip(figure.subfigures(1, len(pictures), squeeze=False)[0], pictures, strict=True):
        failing = sum(not slope.holds for slope in judged(picture.slopes[axis]))
        part.suptitle(
            f"{picture.name}: {f'{failing} of {2 * len(QUANTITIES)} do not hold' if failing else 'holds'}",
            color=COLOURS["second"] if failing else COLOURS["accent"],
            fontsize=10,
        )
        panels = part.subplots(ROWS, COLUMNS, sharex=True).flat
        for panel, quantity in zip(panels, QUANTITIES, strict=True):
            draw_quantity(panel, picture, axis, quantity)
    return figure


def draw_quantity(ax: Axes, picture: Picture, axis: Axis, quantity: str) -> None:
    """One quantity: dashed as initialised, then a line for each step measured, darker the later."""
    by_step: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for size in picture.sizes[axis]:
        if size.quantity == quantity:
            by_step[size.step][size.x].append(size.mean)
    last = max(by_step)
    for step, by_x in sorted(by_step.items()):
        xs = sorted(by_x)
        means = [math.exp(float(np.mean(np.log(np.maximum(by_x[x], 1e-30))))) for x in xs]
        colour = COLOURS["muted"] if step == 0 else COLOURS["accent"]
        style = (0, (3, 2)) if step == 0 else "solid"
        strength = 0.25 + 0.75 * list(sorted(by_step)).index(step) / len(by_step) if 0 < step < last else 1.0
        ax.plot(xs, means, color=colour, linestyle=style, linewidth=1.3, alpha=strength, marker=".", markersize=4)
    _axes(ax, xs, AXIS_NAMES[axis])
    lines = [slope for slope in judged(picture.slopes[axis]) if slope.quantity == quantity]
    ax.set_title(quantity, fontsize=7.5, color=COLOURS["ink"], pad=12)
    for slope, place, side in zip(lines, (0.0, 1.0), ("left", "right"), strict=True):
        when = "start" if slope.step == 0 else f"step {slope.step}"
        ink = COLOURS["muted"] if slope.holds else COLOURS["second"]
        words = f"{when} {slope.power:+z.2f}"
        ax.text(place, 1.02, words, transform=ax.transAxes, ha=side, color=ink)


def _axes(ax: Axes, xs: Sequence[int], name: str) -> None:
    """Logarithmic axes, wide enough that a slope of 0 looks like it."""
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    low, high = ax.dataLim.intervaly
    room = max(1.0, math.sqrt(WIDEST_RATIO / (high / low)))
    ax.set_ylim(low / room / 1.2, high * room * 1.2)
    ax.set_xticks(list(xs), [str(x) for x in xs])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.yaxis.set_minor_formatter(NullFormatter())
    if ax.get_subplotspec().is_last_row():  # type: ignore[union-attr]
        ax.set_xlabel(name)


def transfer_figure(found: Sequence[tuple[str, Transfer]], width: float = 9.2) -> Figure:
    """Held-out loss against the peak learning rate, a line for each width, its best rate marked."""
    n_columns = min(len(found), max(1, int(width // PANEL)))
    n_rows = math.ceil(len(found) / n_columns)
    size = min(width, 1.7 * PANEL * n_columns), 3.6 * n_rows
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).ravel()
    for spare in panels[len(found) :]:
        spare.remove()
    for ax, (name, transfer) in zip(panels, found, strict=False):
        draw_transfer(ax, name, transfer)
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, frameon=False, loc="outside lower center", ncols=min(len(names), 2 * n_columns))
    panels[0].set_ylabel("held-out loss, nats per token")
    return figure


def draw_transfer(ax: Axes, name: str, transfer: Transfer) -> None:
    """The losses of one parametrization."""
    ax.set_xscale("log", base=2)
    finite = [loss for losses in transfer.loss_by_x.values() for loss in losses if math.isfinite(loss)]
    for i, (best, losses) in enumerate(zip(transfer.optima, transfer.loss_by_x.values(), strict=True)):
        shown = [loss if math.isfinite(loss) else math.nan for loss in losses]
        ax.plot(transfer.rates, shown, color=colour_of(i), linewidth=1.4, marker=".", label=f"width {best.x}")
        ax.axvline(2.0**best.log2_rate, color=colour_of(i), linewidth=0.9, dashes=(2, 2))
    if finite:
        ax.set_ylim(min(finite) - 0.05, min(max(finite), min(finite) + 1.5) + 0.05)
    ax.set_xlim(transfer.rates[0], transfer.rates[-1])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: plain(rate, 2)))
    ax.set_xlabel("peak learning rate")
    ink = COLOURS["accent"] if transfer.holds else COLOURS["second"]
    ax.set_title(f"{name}: best rate moves {transfer.drift:+.2f} octaves", color=ink, fontsize=9)
