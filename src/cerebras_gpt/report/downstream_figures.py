"""Downstream against compute: a list of points in, a figure out; whoever measures tasks makes the points."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from cerebras_gpt.files import replace_text
from cerebras_gpt.report.figures import WIDE, blank, colour_of

DOWNSTREAM = "downstream.json"
"""A list of mappings with the keys of Score."""


class Score(NamedTuple):
    """What a model of so much training compute reached on a task."""

    flops: float
    score: float
    error: float
    """Standard error."""
    name: str
    """Of the task."""


def read_downstream(folder: Path) -> list[Score]:
    """The scores in a folder; raises ValueError naming a file that has other keys."""
    file = folder / DOWNSTREAM
    try:
        rows = json.loads(file.read_text("utf-8"))
        return [Score(float(r["flops"]), float(r["score"]), float(r["error"]), str(r["name"])) for r in rows]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} is no list of {', '.join(Score._fields)}; write it again") from None


def add_scores(folder: Path, scores: Sequence[Score]) -> None:
    """Puts the scores of a task into a folder that `report` draws, in the place of older ones of that task."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {score.name for score in scores}
    older = read_downstream(folder) if (folder / DOWNSTREAM).exists() else []
    kept = [score for score in older if score.name not in names]
    replace_text(folder / DOWNSTREAM, json.dumps([score._asdict() for score in (*kept, *scores)], indent=1) + "\n")


def downstream_figure(scores: Sequence[Score], width: float = WIDE) -> Figure:
    """Score against training compute, a line with its standard errors for each task."""
    figure, ax = blank(width, 0.55 * width if width == WIDE else 0.8 * width, "training compute, FLOPs", "score")
    for i, name in enumerate(dict.fromkeys(score.name for score in scores)):
        own = sorted(score for score in scores if score.name == name)
        ax.errorbar(
            [s.flops for s in own], [s.score for s in own], yerr=[s.error for s in own], color=colour_of(i),
            marker="o", markersize=4, linewidth=1.2, capsize=3, label=name,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.legend(frameon=False)
    return figure
