"""Question answering: from a context, as in SQuAD, or from what the model knows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.answers import answers, overlap
from cerebras_gpt.tasks.rows import Columns, Findings, Row, is_text, named_columns
from cerebras_gpt.tasks.task import Scores, filled

MAX_TOKENS = 32
NOT_THERE = "not in the documents"
"""The answer to a question that its context does not answer (SQuAD 2's impossible ones)."""
CONTEXT = ("context", "passage", "story", "document")


@dataclass(frozen=True)
class QuestionAnswering:
    """Questions with their answers, each with or without a context."""

    template: str = "{context}\nQuestion: {question}\nAnswer:"

    columns: ClassVar[Columns] = {"question": ("question", "query"), "answer": ("answer", "answers")}

    def __post_init__(self) -> None:
        if "{question}" not in self.template:
            raise ValueError(f"the template {self.template!r} has no {{question}}; say where the question goes")

    @classmethod
    def of(cls, rows: Sequence[Row], template: str) -> "QuestionAnswering":
        """The task; the rows decide nothing."""
        return cls(template) if template else cls()

    def examples(self, rows: Sequence[Row], findings: Findings) -> list[Example]:
        """One for each question; what SQuAD's articles hold counts as rows of its own."""
        rows = [flat for row in rows for flat in questions(row, findings)]
        columns = named_columns(rows, self.columns) if rows else {}
        there = {key.lower(): key for row in rows for key in row.values}
        context = next((there[name] for name in CONTEXT if name in there), "")
        found = []
        for line, values in rows:
            question, given = values.get(columns["question"]), values.get(context, "") or ""
            truths = wordings(values.get(columns["answer"]))
            if not is_text(question) or not str(question).strip():
                findings.refuse(line, "question is empty or no text in UTF-8")
            elif not is_text(given):
                findings.refuse(line, "context is no text in UTF-8")
            elif not truths:
                findings.refuse(line, "empty answer")
            else:
                prompt = self.prompt(str(question), str(given))
                found.append(Example(prompt, f" {truths[0]}", truths, 0, f"line {line}"))
        return found

    def prompt(self, question: str, context: str = "") -> str:
        """What the model reads of a question."""
        return filled(self.template, context=context.strip(), question=question.strip()).lstrip("\n")

    def answer(self, lm: LM, question: str, context: str = "") -> str:
        """What the model says."""
        return answers(lm, [self.prompt(question, context)], MAX_TOKENS)[0]

    def score(self, lm: LM, examples: Sequence[Example]) -> Scores:
        """Exact match and word overlap, as SQuAD has them: against the nearest of the right wordings."""
        return overlap(lm, examples, MAX_TOKENS)


def wordings(value: object) -> tuple[str, ...]:
    """The right answers of a row: a text or a list of them, or SQuAD's {"text": [...]} or [{"text": ...}]."""
    inner = value.get("text") if isinstance(value, dict) else value
    if isinstance(inner, int | float):
        inner = str(inner)
    if isinstance(inner, list):
        return tuple(dict.fromkeys(text for one in inner for text in wordings(one)))
    return (str(inner).strip(),) if is_text(inner) and str(inner).strip() else ()


def questions(row: Row, findings: Findings) -> Iterator[Row]:
    """The row itself, or the questions of one of SQuAD's articles."""
    paragraphs = row.values.get("paragraphs")
    if not isinstance(paragraphs, list):
        yield row
        return
    findings.n_rows -= 1  # of the article: its questions are counted instead
    for paragraph in paragraphs:
        for question in paragraph.get("qas", []):
            findings.n_rows += 1
            answers = NOT_THERE if question.get("is_impossible") else question.get("answers")
            context = paragraph.get("context", "")
            yield Row(row.line, {"question": question.get("question"), "answers": answers, "context": context})
