"""The picture of a fitted law: loss against compute with its band, and below it how far each run lies off."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from cerebras_gpt.plan.certainty import reach
from cerebras_gpt.plan.iso_flop import IsoFlopFit
from cerebras_gpt.plan.law_file import AnyFit
from cerebras_gpt.plan.points import Point, compute
from cerebras_gpt.plan.power_law import PowerFit
from cerebras_gpt.plan.robust_law import RobustFit
from cerebras_gpt.report.figures import COLOURS, STYLE, WIDE, blank, colour_of
from cerebras_gpt.report.words import count, plain

Array = NDArray[np.float64]

MARGIN = 3.0
"""How many times further than the runs, on both sides, the law is drawn."""
CURVE = 80
"""Points of a drawn curve."""


def panels(width: float, unit: str, off: str) -> tuple[Figure, Axes, Axes]:
    """A figure of two panels over compute: losses above, how far they lie off a law below."""
    figure = Figure(figsize=(width, 0.75 * width if width == WIDE else 1.15 * width), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    above.set(xscale="log", yscale="log", ylabel=unit)
    above.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    above.yaxis.set_major_formatter(FuncFormatter(lambda y, _: plain(y, 3)))
    above.yaxis.set_minor_locator(NullLocator())
    below.set(xlabel="training compute, FLOPs", ylabel=off)
    for axis in (above.xaxis, below.xaxis):
        axis.set_minor_formatter(NullFormatter())
    return figure, above, below


def law_figure(fit: AnyFit, unit: str, beside: Sequence[Point] = (), width: float = WIDE) -> Figure:
    """Loss against compute above, deviation from the law below; points beside it are drawn and were not fitted."""
    figure, above, below = panels(width, unit, "above the law, %")
    below.axhline(0, color=COLOURS["ink"], linewidth=1)
    if isinstance(fit, PowerFit | RobustFit):
        _draw_law(above, below, fit, [*fit.points, *beside])
    families = list(dict.fromkeys(point.family for point in (*fit.points, *beside)))
    for i, family in enumerate(families):
        fitted = [point for point in fit.points if point.family == family]
        points = fitted or [point for point in beside if point.family == family]
        _draw_points(above, below, fit, points, colour_of(i), family or "runs", filled=bool(fitted))
    above.legend(frameon=False, loc="upper right")
    return figure


def _draw_law(above: Axes, below: Axes, fit: PowerFit | RobustFit, points: Sequence[Point]) -> None:
    """The law solid where it was fitted and dashed beyond, and the 90 % interval of a run."""
    flops = compute(points)
    x = np.geomspace(flops.min() / MARGIN, flops.max() * MARGIN, CURVE)
    asked = [Point(None, None, 0.0, float(c)) for c in x]
    y = np.array([fit.expected(point) for point in asked])
    low, high = np.array([fit.interval(point) for point in asked]).T
    inside = np.array([reach(fit.points, float(c)).beyond == 0 for c in x])
    above.plot(x, np.where(inside, y, np.nan), color=COLOURS["ink"], linewidth=1.5, label="law")
    above.plot(x, y, color=COLOURS["ink"], linewidth=1, linestyle=(0, (4, 3)))
    above.fill_between(x, low, high, color=COLOURS["grid"], zorder=0, label="90 % of runs")
    below.fill_between(x, 100 * (low / y - 1), 100 * (high / y - 1), color=COLOURS["grid"], zorder=0)
    above.set_ylim(float(min(y.min(), *(p.loss for p in points))) * 0.95, 1.05 * max(p.loss for p in points))
    widest = max(abs(100 * (p.loss / fit.expected(p) - 1)) for p in fit.points)
    below.set_ylim(-6 * widest, 10 * widest)


def _draw_points(
    above: Axes, below: Axes, fit: AnyFit, points: Sequence[Point], colour: str, label: str, filled: bool
) -> None:
    flops, losses = compute(points), np.array([point.loss for point in points])
    face = colour if filled else "none"
    off = 100 * (losses / np.array([fit.expected(point) for point in points]) - 1)
    above.plot(flops, losses, "o", color=colour, markerfacecolor=face, markersize=5, label=label)
    below.plot(flops, off, "o", color=colour, markerfacecolor=face, markersize=5)


def iso_flop_figure(fit: IsoFlopFit, unit: str, width: float = WIDE) -> Figure:
    """Loss against parameters, a parabola for every budget, its bottom marked."""
    figure, ax = blank(width, 0.55 * width if width == WIDE else 0.8 * width, "parameters", unit)
    for i, (budget, minimum) in enumerate(zip(fit.budgets, fit.minima, strict=True)):
        points = [fit.points[at] for at in budget.at]
        places = np.exp(np.linspace(budget.n.min(), budget.n.max(), CURVE) + budget.middle)
        curve = [fit.expected(Point(float(n), 1.0, 0.0, budget.flops)) for n in places]
        ax.plot(places, curve, color=colour_of(i), linewidth=1.5, label=f"{budget.flops:.2g} FLOPs")
        ax.plot([p.n_parameters for p in points], [p.loss for p in points], "o", color=colour_of(i), markersize=4)
        ax.plot([minimum.n_parameters], [minimum.loss], "D", color=COLOURS["ink"], markersize=5)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda n, _: count(n)))
    ax.legend(frameon=False)
    return figure


def write_picture(fit: AnyFit, unit: str, path: Path, beside: Sequence[Point] = ()) -> None:
    """The picture of a law as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure = iso_flop_figure(fit, unit) if isinstance(fit, IsoFlopFit) else law_figure(fit, unit, beside)
        figure.savefig(path, dpi=160, facecolor="white", format="png")
