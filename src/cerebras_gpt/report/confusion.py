"""The confusion matrix of a classification as a picture: what was taken for what."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from cerebras_gpt.report.figures import COLOURS, STYLE
from cerebras_gpt.tasks.metrics import Confusion

FILE = "confusion.png"
MOST_NUMBERS = 24
"""Labels up to which each cell has its count; more would not be readable."""
LONGEST_LABEL = 24


def confusion_figure(table: Confusion) -> Figure:
    """A row for each right label, a column for each answer; the colour is the share of the row, the number a count."""
    K = len(table.labels)
    side = min(12.0, 2.2 + 0.42 * K)
    figure = Figure(figsize=(side, side), layout="constrained")
    ax = figure.add_subplot(xlabel="answer", ylabel="right label")
    shares = table.counts / np.maximum(1, table.counts.sum(1, keepdims=True))  # (K, K)
    colours = LinearSegmentedColormap.from_list("shares", ["white", COLOURS["accent"]])
    ax.imshow(shares, cmap=colours, vmin=0, vmax=1)
    names = [label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…" for label in table.labels]
    ax.set_xticks(range(K), names, rotation=90)
    ax.set_yticks(range(K), names)
    ax.grid(visible=False)
    if K <= MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(table.counts):
            ink = "white" if shares[row, column] > 0.6 else COLOURS["ink"]
            ax.text(column, row, f"{count}" if count else "", ha="center", va="center", color=ink, fontsize=7.5)
    ax.set_title(f"accuracy {table.accuracy:.3f}, macro-F1 {table.macro_f1:.3f}", fontsize=9, loc="left")
    return figure


def write_confusion(table: Confusion, path: Path) -> Path:
    """The picture as a PNG file; gives its path."""
    with matplotlib.rc_context(STYLE):
        confusion_figure(table).savefig(path, dpi=110, facecolor="white")
    return path
