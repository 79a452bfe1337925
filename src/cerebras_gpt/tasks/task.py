"""What every task has: examples from rows, and scores of answers; and how a task is kept beside its model."""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.rows import Columns, Findings, Row

FILE = "task.json"
"""In a checkpoint: the task it was adapted to."""


class Scores(NamedTuple):
    """How well a model answered."""

    figures: Mapping[str, float]
    """By name, the one that decides first."""
    answers: Sequence[str]
    """What it said, in the order of the examples."""

    def __str__(self) -> str:
        named = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in self.figures.items())
        return f"{named} over {len(self.answers):,} examples"


class Task(Protocol):
    """A use of a model; what a person chose or the data decided are fields, which task.json keeps."""

    columns: ClassVar[Columns]

    @classmethod
    def of(cls, rows: Sequence[Row], template: str) -> "Task":
        """The task that these rows, and a template ("" for the usual one), describe."""

    def examples(self, rows: Sequence[Row], findings: Findings) -> list[Example]:
        """The examples of the rows; what gives none is refused with its reason."""

    def score(self, lm: LM, examples: Sequence[Example]) -> Scores:
        """How well a model does the task."""


def filled(template: str, **texts: str) -> str:
    """A template with the name in braces replaced by each text; braces inside the texts stay as they are.

    >>> filled("{text} = {label}", text="{label}", label="x")
    '{label} = x'
    """
    return re.sub(r"\{(\w+)\}", lambda found: texts.get(found[1], found[0]), template)
