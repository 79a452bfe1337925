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


def unfilled(template: str, prompt: str) -> dict[str, str]:
    """The texts that fill a template to this prompt, by name; none if it does not come from the template.

    >>> unfilled("{text} = {label}", "1 = 2 = 3")
    {'text': '1 = 2', 'label': '3'}
    """
    parts = re.split(r"\{(\w+)\}", template)
    names, pattern = parts[1::2], ""
    for place, part in enumerate(parts):
        known = f"(?P={part})" if part in parts[1:place:2] else f"(?P<{part}>.*)"
        pattern += known if place % 2 else re.escape(part)
    found = re.fullmatch(pattern, prompt, re.DOTALL)
    return {name: found[name] for name in dict.fromkeys(names)} if found else {}
