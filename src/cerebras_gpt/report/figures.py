"""The pictures of a run: each a function from runs to a figure, which `images` turns into SVG or PNG."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from cerebras_gpt.plan.noise import KIND as NOISE
from cerebras_gpt.report.run import Run, Series
from cerebras_gpt.report.words import bits, count, plain

COLOURS = {
    "accent": "#0b7a75",
    "second": "#b4540a",
    "third": "#6b4fbb",
    "fourth": "#a8326a",
    "fifth": "#3d6fb6",
    "ink": "#24292f",
    "muted": "#6e7781",
    "rest": "#b6bdc5",
    "grid": "#e6e8eb",
}
"""Name -> colour on white. In a page each becomes the style sheet's variable of that name, so dark pages work."""

RUN_COLOURS = ("accent", "second", "third", "fourth", "fifth")

MOST_POINTS = 500
"""Points of one line; more cannot be seen and make the page heavy."""

WIDE, NARROW, SMALL = 8.0, 4.4, 3.3
"""Widths in inches: for a desk, for a phone, for a third of a desk."""

STYLE: dict[Any, object] = {
    "font.size": 9.0,
    "svg.fonttype": "none",
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["rest"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    **{f"{axis}tick.{key}": value for axis in "xy" for key, value in (("color", COLOURS["muted"]), ("major.size", 0))},
    **{f"{axis}tick.minor.size": 0 for axis in "xy"},
}
"""What differs from matplotlib's own look, set only while a picture is drawn."""


class Label(NamedTuple):
    """Words to stand at the end of a line."""

    x: float
    y: float
    text: str
    colour: str


def thin(x: Series, y: Series, growing: bool = False) -> tuple[Series, Series]:
    """Means over at most MOST_POINTS blocks of neighbours, equal or (for log axes) growing: (n,) -> (m,)."""
    n = len(x)
    if n == 0:
        return x, y
    edges = np.geomspace(1, n + 1, MOST_POINTS + 1) - 1 if growing else np.linspace(0, n, MOST_POINTS + 1)
    starts = np.unique(np.minimum(edges[:-1].astype(int), n - 1))
    sizes = np.diff(starts, append=n)
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes


def colour_of(i: int) -> str:
    """The colour of the i-th run."""
    return COLOURS[RUN_COLOURS[i % len(RUN_COLOURS)]]


def blank(width: float, height: float, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure with one quiet pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    return figure, ax


def say_empty(ax: Axes) -> None:
    """Words in place of a picture that has no data yet."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.5, 0.5, "nothing measured yet", ha="center", color=COLOURS["muted"], transform=ax.transAxes)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """The heights moved apart so that no two are nearer than the gap, their order and middle kept."""
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(order))
    raised = np.maximum.accumulate(np.asarray(heights)[order] - steps) + steps
    lowered = np.minimum.accumulate((np.asarray(heights)[order] - steps)[::-1])[::-1] + steps
    moved = np.empty(len(order))
    moved[order] = (raised + lowered) / 2
    return moved.tolist()


def label_ends(ax: Axes, labels: Sequence[Label]) -> None:
    """Writes each label beside its point, moved up or down where two would touch; axis limits must be final."""
    inches = ax.figure.get_figheight() * 0.8  # type: ignore[union-attr]
    shares = [ax.transLimits.transform(ax.transScale.transform((label.x, label.y)))[1] for label in labels]
    for label, height in zip(labels, spread(shares, gap=12 / 72 / inches), strict=True):
        x = ax.transLimits.transform(ax.transScale.transform((label.x, label.y)))[0]
        ax.annotate(label.text, (x, height), xytext=(8, 0), xycoords="axes fraction", textcoords="offset points",
                    va="center", color=label.colour, parse_math=False, annotation_clip=False)  # fmt: skip


def tokens_axis(ax: Axes, room: float) -> None:
    """A logarithmic axis of tokens with that share left free at the right for words."""
    low, high = ax.dataLim.intervalx
    low, high = (low, high) if 0 < low < high < math.inf else (max(high, 1) / 10, max(high, 1))
    ax.set_xscale("log")
    ax.set_xlim(low, high * max(high / low, 1.1) ** (room / (1 - room)))
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda n, _: count(n) if n <= high else ""))
    ax.xaxis.set_minor_formatter(NullFormatter())


def loss_axis(ax: Axes) -> None:
    """A logarithmic axis with plain numbers: it gives most room to the end of a run, where the verdict falls."""
    low, high = ax.dataLim.intervaly
    ratio = max(high / low, 1.1)
    ax.set_yscale("log")
    ax.set_ylim(low / ratio**0.1, high * ratio**0.04)
    ax.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: plain(y, 3)))
    ax.yaxis.set_minor_locator(NullLocator())


def loss_figure(runs: Sequence[Run], width: float = WIDE) -> Figure:
    """Held-out and (of a single run) training loss against tokens, with the predicted points and their 90 % bands."""
    in_bits = any(math.isfinite(run.bits_per_byte_of_a_nat) for run in runs)
    figure, ax = blank(width, min(4.4, 0.8 * width), "tokens seen", "bits per byte" if in_bits else "nats per token")
    labels: list[Label] = []
    for i, run in enumerate(runs):
        factor = run.bits_per_byte_of_a_nat if in_bits else 1.0
        labels += draw_losses(ax, run, factor, colour_of(i), alone=len(runs) == 1)
        labels += draw_prediction(ax, run, colour_of(i), alone=len(runs) == 1) if in_bits else []
    if not labels:
        say_empty(ax)
        return figure
    tokens_axis(ax, room=1.9 / width)
    loss_axis(ax)
    label_ends(ax, labels if len(runs) == 1 else [label._replace(x=ax.dataLim.xmax) for label in labels])
    if in_bits and len(runs) == 1:
        factor = runs[0].bits_per_byte_of_a_nat
        nats = ax.secondary_yaxis("right", functions=(partial(np.multiply, 1 / factor), partial(np.multiply, factor)))
        nats.set_ylabel("nats per token")
        nats.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
        nats.yaxis.set_major_formatter(FuncFormatter(lambda y, _: plain(y, 3)))
        nats.yaxis.set_minor_locator(NullLocator())
        nats.spines["right"].set_visible(False)
    return figure


def draw_losses(ax: Axes, run: Run, factor: float, colour: str, alone: bool) -> list[Label]:
    """The loss lines of a run and their labels; a run beside others shows only its held-out loss where it has one."""
    labels = []
    x, y = run.series("held_out", "loss")
    train_x, train_y = thin(*run.series("train", "loss"), growing=True)
    if len(train_x) and math.isfinite(factor) and (alone or not len(x)):
        ax.plot(train_x, factor * train_y, color=COLOURS["rest"] if alone else colour, linewidth=1.2)
        end = factor * float(np.median(train_y[-9:]))
        name = "training" if alone else run.name
        labels.append(Label(train_x[-1], end, f"{name} {bits(end)}", COLOURS["muted"] if alone else colour))
    if len(x) and math.isfinite(factor):
        ax.plot(
            *thin(x, factor * y, growing=True), color=colour, linewidth=2, marker="o", markersize=3.5, clip_on=False
        )
        name = "held-out" if alone else run.name
        labels.append(Label(x[-1], factor * float(y[-1]), f"{name} {bits(factor * float(y[-1]))}", colour))
    for tokens in run.resumed_at if alone else []:
        ax.axvline(tokens, color=COLOURS["rest"], linewidth=0.8, dashes=(2, 3))
    return labels


def draw_prediction(ax: Axes, run: Run, colour: str, alone: bool) -> list[Label]:
    """The point and band that the plan expects at its end, and its label."""
    band = run.plan.prediction
    if band is None:
        return []
    ink = COLOURS["ink"] if alone else colour
    reach = [[max(band.bits_per_byte - band.low, 0)], [max(band.high - band.bits_per_byte, 0)]]
    ax.errorbar([run.plan.tokens], [band.bits_per_byte], yerr=reach, color=ink, marker="D", markersize=4,
                markerfacecolor="none", linewidth=1.4, capsize=4, zorder=5)  # fmt: skip
    text = f"predicted {band.low:.2f} to {band.high:.2f}"
    return [Label(run.plan.tokens, band.bits_per_byte, text, ink)] if alone else []


def bits_figure(runs: Sequence[Run], width: float = WIDE) -> Figure:
    """Bars of held-out bits per byte: what must be beaten, and each run that has been measured."""
    bars = [(name, value, COLOURS["rest"]) for run in runs[:1] for name, value in run.baselines.items()]
    bars += [(r.name, r.bits_per_byte, colour_of(i)) for i, r in enumerate(runs) if math.isfinite(r.bits_per_byte)]
    bars.sort(key=lambda bar: bar[1])
    figure, ax = blank(width, 0.75 + 0.36 * max(len(bars), 2), "held-out bits per byte, less is better", "")
    ax.set_ylabel("model")
    ax.yaxis.label.set_visible(False)
    if not bars:
        say_empty(ax)
        return figure
    names, values, colours = zip(*bars, strict=True)
    ax.barh(range(len(bars)), values, color=colours, height=0.62)
    ax.set_yticks(range(len(bars)), names, color=COLOURS["ink"], parse_math=False)
    ax.set_xlim(0, 1.12 * max(values))
    ax.set_ylim(-0.6, max(len(bars), 2) - 0.4)
    ax.grid(visible=False)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    for i, value in enumerate(values):
        ax.annotate(
            bits(value), (value, i), xytext=(5, 0), textcoords="offset points", va="center", color=COLOURS["ink"]
        )
    return figure


def training_figure(runs: Sequence[Run], width: float, key: str, ylabel: str, log: bool, kind: str = "train") -> Figure:
    """One quantity that was measured over and over against tokens."""
    figure, ax = blank(width, 0.62 * width, "tokens seen", ylabel)
    labels = []
    for i, run in enumerate(runs):
        x, y = thin(*run.series(kind, key))
        if len(x):
            ax.plot(x, y, color=colour_of(i), linewidth=1.4)
            labels.append(Label(x[-1], float(y[-1]), run.name, colour_of(i)))
    if not labels:
        say_empty(ax)
        return figure
    if log and ax.dataLim.ymin > 0:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        ax.set_ylim(0, 1.08 * max(ax.dataLim.ymax, 1e-30))
    ax.set_xlim(0, ax.dataLim.xmax * (1.0 if len(runs) == 1 else 1.45))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda n, _: count(n) if n >= 1 else plain(n, 2)))
    ax.yaxis.set_minor_formatter(NullFormatter())
    if len(runs) > 1:
        label_ends(ax, labels)
    return figure


def learning_rate_figure(runs: Sequence[Run], width: float = SMALL) -> Figure:
    """The learning rate at lr scale 1 against tokens."""
    return training_figure(runs, width, "lr", "learning rate", log=False)


def gradient_norm_figure(runs: Sequence[Run], width: float = SMALL) -> Figure:
    """The global gradient norm before clipping against tokens."""
    return training_figure(runs, width, "grad_norm", "gradient norm", log=True)


def throughput_figure(runs: Sequence[Run], width: float = SMALL) -> Figure:
    """Tokens per second against tokens."""
    return training_figure(runs, width, "tokens_per_second", "tokens per second", log=False)


def noise_figure(runs: Sequence[Run], width: float = SMALL) -> Figure:
    """The gradient noise scale against tokens, and dashed the batch of each run."""
    figure = training_figure(runs, width, "noise_scale", "noise scale, tokens", log=True, kind=NOISE)
    for i, run in enumerate(runs):
        if run.of(NOISE):
            figure.axes[0].axhline(run.plan.tokens_per_step, color=colour_of(i), linewidth=1.1, dashes=(4, 3))
    return figure


FIGURES: dict[str, Callable[..., Figure]] = {
    "loss": loss_figure,
    "bits_per_byte": bits_figure,
    "learning_rate": learning_rate_figure,
    "gradient_norm": gradient_norm_figure,
    "throughput": throughput_figure,
    "noise": noise_figure,
}
