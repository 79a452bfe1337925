"""Instruction tuning: a request and its response."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.answers import overlap
from cerebras_gpt.tasks.rows import Columns, Findings, Row, fields
from cerebras_gpt.tasks.task import Scores, filled

MAX_TOKENS = 128


@dataclass(frozen=True)
class Instruction:
    """Prompts and responses."""

    template: str = "Instruction: {prompt}\nResponse:"

    columns: ClassVar[Columns] = {
        "prompt": ("prompt", "instruction", "request", "question", "input"),
        "response": ("response", "completion", "output", "answer"),
    }

    def __post_init__(self) -> None:
        if "{prompt}" not in self.template:
            raise ValueError(f"the template {self.template!r} has no {{prompt}}; say where the request goes")

    @classmethod
    def of(cls, rows: Sequence[Row], template: str) -> "Instruction":
        """The task; the rows decide nothing."""
        return cls(template) if template else cls()

    def examples(self, rows: Sequence[Row], findings: Findings) -> list[Example]:
        """One for each row."""
        return [
            Example(filled(self.template, prompt=row["prompt"]), f" {row['response']}", name=f"line {line}")
            for line, row in fields(rows, self.columns, findings)
        ]

    def score(self, lm: LM, examples: Sequence[Example]) -> Scores:
        """Word overlap with the response, and how often it is the same."""
        return overlap(lm, examples, MAX_TOKENS)
