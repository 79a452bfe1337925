"""How well a run does a task on a person's own file: as it learned the task, or by likelihood if it did not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.classification import Classification
from cerebras_gpt.tasks.few_shot import draw, majority, score_by_likelihood
from cerebras_gpt.tasks.rows import Findings
from cerebras_gpt.tasks.segments import score_in_segments
from cerebras_gpt.tasks.table import load_task, name_of, read_examples, read_task_data
from cerebras_gpt.tasks.task import Scores, Task


@dataclass(frozen=True)
class Asking:
    """How the examples of a file are asked."""

    n_shots: int = 0
    """Solved examples before each question."""
    shots: Path | None = None
    """File that they are drawn from; else from the data, and then not asked."""
    limit: int | None = None
    """Only the first examples."""
    in_segments: bool = False
    """Whether texts longer than the window are read whole, in segments, instead of without their middle."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit is {self.limit}; it must be at least 1")
        if self.shots is not None and not self.n_shots:
            raise ValueError("--shots names a file of solved examples; say how many to show by --few-shot")
        if self.in_segments and self.n_shots:
            raise ValueError("--segments and --few-shot do not go together; leave one of them")


EACH = Asking()
"""Every example, nothing before it."""


def score(run: Path, name: str, data: Path, asking: Asking = EACH) -> tuple[Scores, Findings]:
    """How well a run does a task on a file: with the labels and template it learned, or those of the file."""
    learned = load_task(run)
    known = learned is not None and name_of(learned) == name
    found = read_examples(learned, data) if learned is not None and known else read_task_data(name, data)
    examples, lm = found.examples[: asking.limit], LM.load(run)
    if asking.in_segments:
        return score_in_segments(lm, found.task, examples), found.findings
    if isinstance(found.task, Classification):
        return _labels(lm, found.task, examples, asking, known), found.findings
    if asking.n_shots:
        raise ValueError(f"--few-shot is for benchmarks and classification; {name} is asked without")
    return found.task.score(lm, examples), found.findings


def _labels(lm: LM, task: Classification, examples: Sequence[Example], asking: Asking, known: bool) -> Scores:
    if known and not asking.n_shots:
        scores = task.score(lm, examples)
        return scores._replace(figures={**scores.figures, **majority(task, examples)})
    shots = None if asking.shots is None else _shots(task, asking.shots)
    drawn = draw(examples, asking.n_shots, shots)
    return score_by_likelihood(lm, task, drawn.asked, drawn.shown)


def _shots(task: Task, path: Path) -> list[Example]:
    return read_examples(task, path).examples
