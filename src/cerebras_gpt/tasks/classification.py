"""Text classification: the label is what the model says next, the likeliest of those that the data has.

Without tuning, or with little of it, a model prefers some labels whatever the text is; contextual calibration
(Zhao et al. 2021, section 5) divides that out: each label's probability is held against its probability for no text.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from cerebras_gpt.data.example_batches import prompt_ids, shortened
from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.choices import choice_nats
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.metrics import Confusion, confusion
from cerebras_gpt.tasks.rows import Columns, Findings, Row, fields
from cerebras_gpt.tasks.task import Scores, filled

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts that say nothing (Zhao et al. 2021, section 5)."""


class Prediction(NamedTuple):
    """What the model makes of one text."""

    label: str
    probability: float


@dataclass(frozen=True)
class Classification:
    """Texts and labels."""

    labels: tuple[str, ...]
    """All there are, in alphabetical order."""
    template: str = "{text}\n\nLabel:"

    columns: ClassVar[Columns] = {
        "text": ("text", "sentence", "document", "review", "content"),
        "label": ("label", "class", "category", "topic", "sentiment"),
    }

    def __post_init__(self) -> None:
        if "{text}" not in self.template:
            raise ValueError(f"the template {self.template!r} has no {{text}}; say where the text goes")

    @classmethod
    def of(cls, rows: Sequence[Row], template: str) -> "Classification":
        """The labels that the rows have; raises ValueError if that leaves nothing to decide."""
        labels = Counter(found["label"] for _, found in fields(rows, cls.columns, Findings()))
        if len(labels) < 2:
            raise ValueError(
                f"{len(labels)} label in the data ({', '.join(labels) or 'none'}); classifying takes two or more"
            )
        return cls(tuple(sorted(labels)), **({"template": template} if template else {}))

    def examples(self, rows: Sequence[Row], findings: Findings) -> list[Example]:
        """One for each row whose label is known."""
        choices, found = tuple(f" {label}" for label in self.labels), []
        for line, row in fields(rows, self.columns, findings):
            if row["label"] not in self.labels:
                findings.refuse(line, f"label {row['label']!r} is not one that was learned")
                continue
            gold = self.labels.index(row["label"])
            found.append(Example(self.prompt(row["text"]), choices[gold], choices, gold, f"line {line}"))
        return found

    def prompt(self, text: str) -> str:
        """What the model reads of a text."""
        return filled(self.template, text=text)

    def room(self, lm: LM) -> int:
        """Ids that may stand before a label; raises ValueError if there is no room for any."""
        longest = max(len(lm.tokenizer.encode(f" {label}")) for label in self.labels) + 1
        room = lm.model.architecture.seq_len + 1 - longest
        if room < 1:
            raise ValueError("a label is longer than the model's window; use shorter labels")
        return room

    def log_probabilities(self, lm: LM, prompts: Sequence[str], shown: Sequence[int] = ()) -> Tensor:
        """Of every label for every prompt, after the ids that are shown before each: N prompts -> (N, K) in float64."""
        end, tokenizer = lm.tokenizer.end_of_text, lm.tokenizer
        choices = [[*tokenizer.encode(f" {label}"), end] for label in self.labels]
        room = self.room(lm) - len(shown)
        if room < 1:
            raise ValueError(f"{len(shown)} ids shown before a prompt leave no room for it; show fewer examples")
        ids = [[*shown, *shortened(prompt_ids(prompt, tokenizer), room)] for prompt in prompts]
        return torch.log_softmax(-choice_nats(lm.model, ids, choices), -1)  # (N, K)

    def prior(self, lm: LM, shown: Sequence[int] = ()) -> Tensor:
        """Log-probability of every label after texts that say nothing: (K,)."""
        logs = self.log_probabilities(lm, [self.prompt(text) for text in CONTENT_FREE], shown)  # (3, K)
        return logs.exp().mean(0).log()

    def probabilities(self, lm: LM, prompts: Sequence[str], calibrated: bool = True) -> Tensor:
        """Of every label for every prompt: N prompts -> (N, K) in float64."""
        prior = self.prior(lm) if calibrated else 0.0
        return (self.log_probabilities(lm, prompts) - prior).softmax(-1)

    def table(self, examples: Sequence[Example], answers: Sequence[str]) -> Confusion:
        """How often each label was taken for each; every answer is one of the labels."""
        pairs = zip(examples, answers, strict=True)
        return confusion(self.labels, [(example.gold or 0, self.labels.index(said)) for example, said in pairs])

    def classify(self, lm: LM, texts: Sequence[str], calibrated: bool = False) -> list[Prediction]:
        """The likeliest label of each text, with its probability."""
        best = self.probabilities(lm, [self.prompt(text) for text in texts], calibrated).max(-1)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [Prediction(self.labels[index], value) for index, value in pairs]

    def score(self, lm: LM, examples: Sequence[Example]) -> Scores:
        """Accuracy and macro-F1."""
        probabilities = self.probabilities(lm, [example.prompt for example in examples], calibrated=False)
        said = [self.labels[index] for index in probabilities.argmax(-1).tolist()]
        table = self.table(examples, said)
        return Scores({"accuracy": table.accuracy, "macro_f1": table.macro_f1}, said)
