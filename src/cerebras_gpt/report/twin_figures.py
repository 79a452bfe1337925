"""The picture of a family beside its twin: muP against SP at equal sizes and tokens, as in the paper."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from cerebras_gpt.plan.ladder_law import LadderLaw, Rung, compared
from cerebras_gpt.report.figures import COLOURS, WIDE
from cerebras_gpt.report.ladder_figures import MARGIN
from cerebras_gpt.report.law_figures import CURVE, panels

MARKS = (("accent", "o"), ("second", "s"))
"""Of the family and of its twin."""


def twin_figure(rungs: Sequence[Rung], twin: Sequence[Rung], name: str, width: float = WIDE) -> Figure:
    """Both families with a law through each above; below, how far each model lies off the twin's law.

    Dey et al. 2023, figure 5. A dot is the mean of a size's seeds.
    """
    figure, above, below = panels(width, "held-out bits per byte", "off SP's law, %")
    base = LadderLaw(tuple(twin)).law
    flops = [rung.flops for rung in (*rungs, *twin)]
    x = np.geomspace(min(flops) / MARGIN, max(flops) * MARGIN, CURVE)
    for family, title, (colour, mark) in zip((rungs, twin), (name, "SP"), MARKS, strict=True):
        law = LadderLaw(tuple(family)).law
        ink = COLOURS[colour]
        y = np.array([law.loss(float(c)) for c in x])
        expected = np.array([base.loss(float(c)) for c in x])
        own = np.array([rung.flops for rung in family])
        means = np.array([rung.mean for rung in family])
        above.plot(x, y, color=ink, linewidth=1.2)
        above.plot(own, means, mark, color=ink, markersize=5, label=title)
        below.plot(x, 100 * (y / expected - 1), color=ink, linewidth=1.2)
        below.plot(own, 100 * (means / [base.loss(float(c)) for c in own] - 1), mark, color=ink, markersize=5)
    above.set_xlim(x[0], x[-1])
    above.legend(frameon=False)
    return figure


def twin_words(rungs: Sequence[Rung], twin: Sequence[Rung], name: str) -> str:
    """The comparison in a sentence."""
    found = compared(rungs, twin)
    side = "lower" if found.difference < 0 else "higher"
    return (
        f"The same sizes and tokens under {name} and SP, each with its own law. The loss under {name} is "
        f"{100 * abs(found.difference):.2f} % {side} on average; the models scatter by {100 * found.spread:.2f} % "
        f"about their law, under SP by {100 * found.twin_spread:.2f} %. In the paper muP is 0.43 % lower."
    )
