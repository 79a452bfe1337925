"""The picture of training against use: what sizes cost in all at the loss of one model, by how much it is used."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from cerebras_gpt.plan.inference import inference_flops
from cerebras_gpt.plan.laws import EPOCH, ParametricLaw
from cerebras_gpt.report.figures import COLOURS, WIDE, blank, colour_of
from cerebras_gpt.report.words import count

USES = (0.0, 1.0, 10.0, 100.0)
"""Tokens of use for each token that the model was trained on."""
SPAN = 8.0
"""How many times smaller and larger the drawn sizes are."""
HIGHEST = 2.5
"""Of the drawn costs, as many times the least."""


def trade_figure(n_parameters: float, n_tokens: float, law: ParametricLaw = EPOCH, width: float = WIDE) -> Figure:
    """Training and use together against size, relative to the model itself; the cheapest size of each use is marked.

    6 N D + 2 N n at equal loss by the law (Dey et al. 2023, section on trade-offs).
    """
    figure, ax = blank(width, 0.55 * width if width == WIDE else width, "parameters", "FLOPs in all, of this model = 1")
    loss = law.loss(n_parameters, n_tokens)
    sizes = n_parameters * np.geomspace(1 / SPAN, SPAN, 161)
    tokens = np.array([law.tokens(loss, float(n)) for n in sizes])
    for i, use in enumerate(USES):
        total = 6 * sizes * tokens + inference_flops(1.0) * sizes * use * n_tokens
        own = 6 * n_parameters * n_tokens + inference_flops(n_parameters) * use * n_tokens
        share = np.where(np.isfinite(total), total / own, math.nan)
        label = "training alone" if use == 0 else f"used for {use:g} times its training tokens"
        ax.plot(sizes, share, color=colour_of(i), linewidth=1.5, label=label)
        best = int(np.nanargmin(share))
        ax.plot([sizes[best]], [share[best]], "o", color=colour_of(i), markersize=5)
    ax.axvline(n_parameters, color=COLOURS["rest"], linewidth=0.9, dashes=(2, 3))
    ax.set_xscale("log", base=2)
    ax.set_ylim(0, HIGHEST)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda n, _: count(n)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(frameon=False, loc="outside lower center", ncols=2 if width == WIDE else 1)
    return figure
