"""The published benchmarks as a table: how each is read, asked, and judged, to the letter as lm-eval does."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt import config
from cerebras_gpt.data.examples import Example
from cerebras_gpt.evaluate import layouts
from cerebras_gpt.evaluate.records import records, sources

SHOT_SEED = 1234
"""Of the draw of solved examples, as in lm-eval; one stream for all questions in their order."""

FAULTS_SHOWN = 3


class Question(NamedTuple):
    """A context and what may follow it."""

    context: str
    continuation: str


@dataclass(frozen=True)
class Form:
    """How an example becomes text."""

    ask: Callable[[Example], list[Question]]
    """One question a choice, or one where any text may be said."""
    solve: Callable[[Example], str]
    """The example with its answer, to be shown before a question; sentences alone cannot be shown."""


def _answers(example: Example) -> list[Question]:
    return [Question(example.prompt, f" {choice}") for choice in example.choices]


def _beginnings(example: Example) -> list[Question]:
    return [Question(choice, f" {example.answer}") for choice in example.choices]


def _gold(example: Example) -> str:
    return example.answer if example.gold is None else example.choices[example.gold]


ANSWER = Form(_answers, lambda e: f"{e.prompt} {e.answer}")
BEGINNING = Form(_beginnings, lambda e: f"{_gold(e)} {e.answer}")
"""Partial scoring (Trinh and Le 2018): the same end after each beginning."""
WORD = Form(
    lambda e: [Question(e.prompt, f" {e.answer}")],
    lambda e: f"{e.prompt}  {e.answer}",  # two spaces: lm-eval puts its own before the answer's
)
SENTENCE = Form(lambda e: [Question("", f" {choice}") for choice in e.choices], lambda e: "")
BARE_SENTENCE = Form(lambda e: [Question("", choice) for choice in e.choices], lambda e: "")


@dataclass(frozen=True)
class Benchmark:
    """One row of the table."""

    name: str
    layouts: tuple[layouts.Layout, ...]
    form: Form
    metrics: tuple[str, ...]
    chance: float
    """What guessing gives of the first metric."""
    n_spare: int = 1
    """Solved examples drawn beyond those shown, for the case that the question is among them; 0 where lm-eval, knowing
    a test part of its own, does not look."""
    has_shots: bool = True
    by_file: bool = False
    """Whether each file is a part with a score of its own."""


CHOICE = ("acc", "acc_norm", "bits_per_byte")

BENCHMARKS = {
    row.name: row
    for row in (
        Benchmark("hellaswag", layouts.HELLASWAG, ANSWER, CHOICE, 1 / 4),
        Benchmark("piqa", layouts.PIQA, ANSWER, CHOICE, 1 / 2),
        Benchmark("winogrande", layouts.WINOGRANDE, BEGINNING, ("acc", "bits_per_byte"), 1 / 2),
        Benchmark("lambada", layouts.LAMBADA, WORD, ("acc", "perplexity", "bits_per_byte"), 0.0),
        Benchmark("arc-easy", layouts.ARC, ANSWER, CHOICE, 1 / 4, n_spare=0),
        Benchmark("arc-challenge", layouts.ARC, ANSWER, CHOICE, 1 / 4, n_spare=0),
        Benchmark("openbookqa", layouts.OPENBOOKQA, ANSWER, CHOICE, 1 / 4, n_spare=0),
        Benchmark("blimp", layouts.BLIMP, SENTENCE, ("acc", "bits_per_byte"), 1 / 2, has_shots=False, by_file=True),
        Benchmark(
            "crows-pairs", layouts.CROWS_PAIRS, BARE_SENTENCE, ("stereotype", "difference"), 1 / 2, has_shots=False
        ),
    )
}


def benchmark(name: str) -> Benchmark:
    """A row of the table by its name."""
    if name not in BENCHMARKS:
        raise ValueError(config.unknown("task", name, BENCHMARKS))
    return BENCHMARKS[name]


class Examples(NamedTuple):
    """What a file gave."""

    examples: tuple[Example, ...]
    faults: tuple[str, ...]
    """One line for each record that gave none."""


def read_examples(row: Benchmark, path: Path) -> Examples:
    """All examples of a file, folder or zip in their order, and what is wrong with the rest."""
    found, faults = [], []
    for source in sources(path):
        for record in records(source):
            try:
                if record.fault:
                    raise ValueError(record.fault)
                found.append(layouts.example(row.layouts, record.fields, record.name))
            except ValueError as error:
                faults.append(f"{record.name}: {error}"[:200])
    if not found and not faults:
        raise ValueError(f"{path} is empty; give the file of {row.name}")
    return Examples(tuple(found), tuple(faults))


def whole(given: Examples, path: Path) -> tuple[Example, ...]:
    """The examples of a file without a fault; raises ValueError that counts and shows its faults."""
    if given.faults:
        shown = "; ".join(given.faults[:FAULTS_SHOWN])
        more = len(given.faults) - FAULTS_SHOWN
        n = len(given.examples) + len(given.faults)
        raise ValueError(
            f"{path}: {len(given.faults):,} of {n:,} records are bad: {shown}"
            f"{f'; and {more:,} more' if more > 0 else ''}; mend them, or leave them out by --skip-bad"
        )
    return given.examples


def drawn(row: Benchmark, examples: Sequence[Example], shots: Sequence[Example] | None, n_shots: int) -> list[str]:
    """What stands before each question: n solved examples from the shots, or else from the other questions."""
    if n_shots == 0:
        return [""] * len(examples)
    if not row.has_shots:
        raise ValueError(f"{row.name} compares sentences alone, so nothing can be shown before; leave --few-shot")
    pool = list(examples if shots is None else shots)
    n_spare = 1 if shots is None else row.n_spare
    if n_shots < 0 or len(pool) < n_shots + n_spare:
        raise ValueError(f"--few-shot {n_shots} needs 0 or more, and more examples than the {len(pool)} at hand")
    stream = random.Random(SHOT_SEED)
    return [_shown(row, _others(example, stream.sample(pool, n_shots + n_spare), n_shots)) for example in examples]


def _others(example: Example, sample: Sequence[Example], n: int) -> list[Example]:
    bare = example._replace(name="")
    return [other for other in sample if other._replace(name="") != bare][:n]


def _shown(row: Benchmark, shots: Sequence[Example]) -> str:
    return "".join(f"{row.form.solve(shot)}\n\n" for shot in shots)


def questions(row: Benchmark, example: Example, before: str) -> list[Question]:
    """What the model is asked about one example, after the solved ones."""
    return [Question(before + context, continuation) for context, continuation in row.form.ask(example)]
