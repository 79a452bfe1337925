"""The tasks by name: the one list that the command line, checkpoints and evaluation share."""

import json
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt import checkpoint, config
from cerebras_gpt.data.examples import Example
from cerebras_gpt.files import read_json
from cerebras_gpt.tasks.classification import Classification
from cerebras_gpt.tasks.dialogue import Dialogue
from cerebras_gpt.tasks.instruction import Instruction
from cerebras_gpt.tasks.question_answering import QuestionAnswering
from cerebras_gpt.tasks.rows import Findings, read_rows
from cerebras_gpt.tasks.task import FILE, Task
from cerebras_gpt.tasks.translation import Translation

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "translation": Translation,
    "question-answering": QuestionAnswering,
    "dialogue": Dialogue,
    "instruction": Instruction,
}


class TaskData(NamedTuple):
    """A file seen as examples of a task."""

    task: Task
    examples: list[Example]
    findings: Findings


def task_named(name: str) -> type[Task]:
    """The task of that name; raises ValueError naming all."""
    if name not in TASKS:
        raise ValueError(config.unknown("task", name, TASKS))
    return TASKS[name]


def name_of(task: Task) -> str:
    """The name of a task."""
    return next(name for name, kind in TASKS.items() if kind is type(task))


def read_task_data(name: str, data: Path, template: str = "") -> TaskData:
    """The task that a file describes and its examples; raises ValueError naming the file if it gives none."""
    kind, findings = task_named(name), Findings()
    rows = read_rows(data, findings)
    try:
        task = kind.of(rows, template)
        return TaskData(task, _some(task.examples(rows, findings), findings), findings)
    except ValueError as error:
        raise ValueError(f"{data}: {error}") from None


def read_examples(task: Task, data: Path) -> TaskData:
    """The examples of a file for a task that is known, whose labels are those it learned."""
    findings = Findings()
    rows = read_rows(data, findings)
    try:
        return TaskData(task, _some(task.examples(rows, findings), findings), findings)
    except ValueError as error:
        raise ValueError(f"{data}: {error}") from None


def _some(examples: list[Example], findings: Findings) -> list[Example]:
    if not examples:
        raise ValueError(f"no row can be used; {'; '.join(findings.lines()) or 'it has no rows'}")
    return examples


def task_json(task: Task) -> str:
    """What task.json holds."""
    return json.dumps({"task": name_of(task), **config.to_mapping(task)}, indent=2, ensure_ascii=False) + "\n"


def load_task(run: Path) -> Task | None:
    """The task that a run or checkpoint was adapted to; None if it was not."""
    file = checkpoint.resolve(run) / FILE
    if not file.exists():
        return None
    mapping = read_json(file)
    return config.from_mapping(task_named(str(mapping.pop("task", ""))), mapping)
