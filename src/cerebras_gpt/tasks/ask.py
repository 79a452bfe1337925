"""Asking an adapted model: texts in, what it says of each out, with what it rests on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt.generate.beam import Beam
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.answers import answers
from cerebras_gpt.tasks.classification import Classification
from cerebras_gpt.tasks.dialogue import MAX_TOKENS as REPLY_TOKENS
from cerebras_gpt.tasks.dialogue import Dialogue
from cerebras_gpt.tasks.documents import Library
from cerebras_gpt.tasks.instruction import MAX_TOKENS, Instruction
from cerebras_gpt.tasks.question_answering import CONTEXT, QuestionAnswering
from cerebras_gpt.tasks.rows import Columns, Findings, Row, fields
from cerebras_gpt.tasks.segments import answer_from, label_log_probabilities
from cerebras_gpt.tasks.table import load_task
from cerebras_gpt.tasks.task import Task, filled
from cerebras_gpt.tasks.translation import PAIR, Translation

TOGETHER = 32
"""Rows that are asked before the next are looked at, so that answers come as they are made."""


class Told(NamedTuple):
    """What the model says of one row."""

    line: int
    values: Mapping[str, object]
    """The answer first, then what there is to know about it; plain JSON values."""

    def __str__(self) -> str:
        return "\t".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in self.plain())

    def plain(self) -> list[object]:
        """The values that a line of text holds."""
        return [value for value in self.values.values() if not isinstance(value, Mapping)]


@dataclass(frozen=True)
class Interview:
    """An adapted model, ready to be asked."""

    task: Task
    lm: LM
    library: Library | None = None
    """Documents that questions are answered from."""
    pair: str = ""
    """Languages of rows that name none."""
    beam: Beam = field(default_factory=Beam)

    @classmethod
    def with_run(cls, run: Path, documents: Path | None = None, pair: str = "") -> "Interview":
        """The run with what it learned; raises ValueError if that is no task, or not one for these."""
        task = load_task(run)
        if task is None:
            raise ValueError(f"{run} was not adapted to a task; adapt it, or generate from it")
        if documents is not None and not isinstance(task, QuestionAnswering):
            raise ValueError(f"--documents is for question-answering; {run} learned another task")
        if pair and not isinstance(task, Translation):
            raise ValueError(f"--pair is for translation; {run} learned another task")
        return cls(task, LM.load(run), None if documents is None else Library.read(documents), pair)

    def rows_of(self, texts: Sequence[str]) -> list[Row]:
        """Texts as rows of the one column that the task cannot do without."""
        name = next(iter(self.task.columns))
        wrapped = [[text] if isinstance(self.task, Dialogue) else text for text in texts]
        return [Row(line, {name: value}) for line, value in enumerate(wrapped, 1)]

    def ask(self, rows: Sequence[Row], findings: Findings) -> Iterator[Told]:
        """What the model says of each row that can be asked, in their order; the others are refused."""
        for first in range(0, len(rows), TOGETHER):
            yield from WAYS[type(self.task)](self, rows[first : first + TOGETHER], findings)


def label(interview: Interview, rows: Sequence[Row], findings: Findings) -> Iterator[Told]:
    """The likeliest label of each text, whatever its length, and the probability of every label."""
    task = interview.task
    assert isinstance(task, Classification)
    found = list(fields(rows, _only(task.columns, "text"), findings))
    texts = [row["text"] for _, row in found]
    chances = label_log_probabilities(interview.lm, task, texts).exp().tolist() if texts else []
    for (line, _), of_labels in zip(found, chances, strict=True):
        by_label = dict(sorted(zip(task.labels, of_labels, strict=True), key=lambda pair: -pair[1]))
        best = next(iter(by_label))
        yield Told(line, {"label": best, "probability": by_label[best], "probabilities": by_label})


def translation(interview: Interview, rows: Sequence[Row], findings: Findings) -> Iterator[Told]:
    """Each text in the other language."""
    task = interview.task
    assert isinstance(task, Translation)
    usual = interview.pair or (task.pairs[0] if len(task.pairs) == 1 else "")
    named = next((name for row in rows for name in row.values if name.lower() in PAIR), "")
    columns = _only(task.columns, "source") | ({"pair": (named.lower(),)} if named else {})
    for line, row in fields(rows, columns, findings):
        said = task.translate(interview.lm, [row["source"]], row.get("pair", usual), interview.beam)
        yield Told(line, {"translation": said[0]})


def answer(interview: Interview, rows: Sequence[Row], findings: Findings) -> Iterator[Told]:
    """An answer from the documents with its source, from the row's own context, or from what the model knows."""
    task = interview.task
    assert isinstance(task, QuestionAnswering)
    context = next((name for row in rows for name in row.values if name.lower() in CONTEXT), "")
    given = {row.line: str(row.values.get(context) or "") for row in rows}
    for line, row in fields(rows, _only(task.columns, "question"), findings):
        if interview.library is not None:
            found = interview.library.ask(interview.lm, task, row["question"])
            yield Told(line, {"answer": found.text, "source": found.source})
        elif given[line].strip():
            yield Told(line, {"answer": answer_from(interview.lm, task, row["question"], given[line])})
        else:
            yield Told(line, {"answer": task.answer(interview.lm, row["question"])})


def reply(interview: Interview, rows: Sequence[Row], findings: Findings) -> Iterator[Told]:
    """The assistant's next turn."""
    task = interview.task
    assert isinstance(task, Dialogue)
    n_new = min(REPLY_TOKENS, interview.lm.model.architecture.seq_len // 2)
    for line, messages in task.conversations(rows, findings):
        yield Told(line, {"reply": task.reply(interview.lm, messages, n_new)})


def response(interview: Interview, rows: Sequence[Row], findings: Findings) -> Iterator[Told]:
    """The response to each request."""
    task = interview.task
    assert isinstance(task, Instruction)
    found = list(fields(rows, _only(task.columns, "prompt"), findings))
    prompts = [filled(task.template, prompt=row["prompt"]) for _, row in found]
    for (line, _), said in zip(found, answers(interview.lm, prompts, MAX_TOKENS), strict=True):
        yield Told(line, {"response": said})


def _only(columns: Columns, name: str) -> dict[str, tuple[str, ...]]:
    return {name: columns[name]}


WAYS: Mapping[type, Callable[[Interview, Sequence[Row], Findings], Iterator[Told]]] = {
    Classification: label,
    Translation: translation,
    QuestionAnswering: answer,
    Dialogue: reply,
    Instruction: response,
}
