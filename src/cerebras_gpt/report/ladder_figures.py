"""The picture of a ladder: loss against compute with its law, what was predicted, and what came out."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cerebras_gpt.plan.ladder_law import Climbed, LadderLaw, Rung
from cerebras_gpt.report.figures import COLOURS, STYLE, WIDE
from cerebras_gpt.report.law_figures import CURVE, panels

MARGIN = 1.8
"""How many times further than the runs the law is drawn."""


def ladder_figure(climbed: Climbed, width: float = WIDE) -> Figure:
    """Bits per byte against compute above, percent off the law below; the interval ends in the predicted point."""
    figure, above, below = panels(width, "held-out bits per byte", "off the law, %")
    law = climbed.foretold.law
    draw_law(above, below, climbed)
    for rungs, colour, marker, label in (
        (climbed.foretold.rungs, "accent", "o", "fitted, each seed"),
        (climbed.twin, "second", "x", "the same sizes under SP"),
    ):
        draw_rungs(above, below, climbed, rungs, COLOURS[colour], marker, label)
    last, told = climbed.last, climbed.foretold
    for ax, share in ((above, lambda y: y), (below, lambda y: 100 * (y / law.loss(told.flops) - 1))):
        middle, low, high, found = (share(y) for y in (told.bits_per_byte, told.low, told.high, last.mean))
        ax.errorbar([told.flops], [middle], yerr=[[middle - low], [high - middle]], color=COLOURS["ink"], marker="D",
                    markersize=4, markerfacecolor="white", linewidth=1.4, capsize=4, zorder=4,
                    label="predicted before training, 90 %")  # fmt: skip
        ax.plot([last.flops], [found], "o", color=COLOURS["accent"], markersize=11, markerfacecolor="none",
                markeredgewidth=1.8, zorder=5, label=f"measured, {100 * climbed.error:+.2f} %")  # fmt: skip
    above.legend(frameon=False)
    return figure


def draw_law(above: Axes, below: Axes, climbed: Climbed) -> None:
    """The law through the fitted rungs and the 90 % interval of one run, from the first rung to beyond the last."""
    law = LadderLaw(climbed.foretold.rungs, climbed.foretold.flops)
    flops = [rung.flops for rung in climbed.rungs]
    x = np.geomspace(min(flops) / MARGIN, max(flops) * MARGIN, CURVE)
    y = np.array([climbed.foretold.law.loss(c) for c in x])
    low, high = np.array([law.interval(float(c)) for c in x]).T
    above.plot(x, y, color=COLOURS["ink"], linewidth=1.2, label="law of the fitted rungs")
    above.fill_between(x, low, high, color=COLOURS["grid"], zorder=0)
    below.axhline(0, color=COLOURS["ink"], linewidth=1.2)
    below.fill_between(x, 100 * (low / y - 1), 100 * (high / y - 1), color=COLOURS["grid"], zorder=0)
    above.set_xlim(x[0], x[-1])


def draw_rungs(
    above: Axes, below: Axes, climbed: Climbed, rungs: Sequence[Rung], colour: str, marker: str, label: str
) -> None:
    """Every run of the rungs as a mark, on both panels."""
    if not rungs:
        return
    runs = [(rung.flops, bits, climbed.foretold.law.loss(rung.flops)) for rung in rungs for bits in rung.bits_per_byte]
    x, y, expected = np.array(runs).T
    above.plot(x, y, marker, color=colour, markersize=5, alpha=0.8, label=label)
    below.plot(x, 100 * (y / expected - 1), marker, color=colour, markersize=5, alpha=0.8)


def write_ladder(climbed: Climbed, path: Path) -> None:
    """The picture as a PNG file."""
    with matplotlib.rc_context(STYLE):
        ladder_figure(climbed).savefig(path, dpi=160, facecolor="white")
