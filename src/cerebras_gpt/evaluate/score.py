"""A published benchmark asked of a model: scores with standard errors, cached and resumable."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt import checkpoint
from cerebras_gpt.data.examples import Example
from cerebras_gpt.evaluate.answers import VERSION, Answers, data_hash, folder_of
from cerebras_gpt.evaluate.asking import BATCH_TOKENS, batches, joined
from cerebras_gpt.evaluate.benchmarks import Benchmark, benchmark, drawn, questions, read_examples, whole
from cerebras_gpt.evaluate.metrics import Measured, measure
from cerebras_gpt.files import replace_text
from cerebras_gpt.generate.likelihood import Continuation, Likelihood, likelihoods
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.record import Steps


@dataclass(frozen=True)
class Ask:
    """What is asked, and how."""

    task: str
    """A row of the table of benchmarks."""
    data: Path
    few_shot: int = 0
    """Solved examples before each question."""
    shots: Path | None = None
    """File to draw them from; by default the data itself, never the question."""
    limit: int | None = None
    """Only the first examples of the file."""
    skip_bad: bool = False
    """Leave bad records out, and count them, instead of refusing the file."""


class Score(NamedTuple):
    """What came out."""

    task: str
    few_shot: int
    n_examples: int
    n_skipped: int
    """Bad records left out."""
    n_cut: int
    """Examples whose context was cut on the left to fit."""
    chance: float
    metrics: dict[str, Measured]
    parts: dict[str, dict[str, Measured]]
    """By file, where a benchmark has several."""
    answers: Path
    """The file of answers, one line an example."""


class Exam(NamedTuple):
    """All that is asked, as ids."""

    examples: tuple[Example, ...]
    asked: list[list[Continuation]]
    n_skipped: int


def prepare(ask: Ask, lm: LM) -> Exam:
    """Reads, draws and encodes; every mistake in the data is told here, before anything is computed."""
    row = benchmark(ask.task)
    given = read_examples(row, ask.data)
    examples = given.examples if ask.skip_bad else whole(given, ask.data)
    if ask.limit is not None and ask.limit < 1:
        raise ValueError(f"--limit {ask.limit} leaves nothing to ask; give 1 or more")
    examples = examples[: ask.limit]
    if not examples:
        raise ValueError(f"{ask.data} has no good record; it begins with {given.faults[0]}")
    shots = None if ask.shots is None else whole(read_examples(row, ask.shots), ask.shots)
    before = drawn(row, examples, shots, ask.few_shot)
    asked = [_asked(lm, row, *pair) for pair in zip(examples, before, strict=True)]
    return Exam(examples, asked, len(given.faults))


def _asked(lm: LM, row: Benchmark, example: Example, before: str) -> list[Continuation]:
    try:
        return [joined(lm.tokenizer, question) for question in questions(row, example, before)]
    except ValueError as error:
        raise ValueError(f"{example.name}: {error}") from None


def _key(folder: Path, ask: Ask) -> str:
    """What the answers depend on: weights, tokenizer, data, and how it is asked."""
    files = [folder / name for name in ("model.safetensors", "model.json", "tokenizer.json")]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    data = data_hash([ask.data] if ask.shots is None or not ask.few_shot else [ask.data, ask.shots])
    how = [VERSION, ask.task, ask.few_shot, ask.limit if ask.few_shot else None, ask.skip_bad, data, *hashes]
    return hashlib.sha256(json.dumps(how).encode()).hexdigest()


def _answer(lm: LM, exam: Exam, answers: Answers, title: str) -> None:
    """Asks what is not yet answered, examples of similar length together, and writes each batch down."""
    seq_len = lm.model.architecture.seq_len
    left = [i for i in range(len(exam.examples)) if i not in answers.found]
    sizes = [len(exam.asked[i]) * min(seq_len, max(len(one.ids) for one in exam.asked[i])) for i in left]
    done = len(exam.examples) - len(left)
    with Steps(title, len(exam.examples)) as steps:
        for group in batches(sizes, BATCH_TOKENS):
            places = [left[j] for j in group]
            found = iter(likelihoods(lm.model, [one for i in places for one in exam.asked[i]]))
            answers.add({i: (exam.examples[i].name, [next(found) for _ in exam.asked[i]]) for i in places})
            done += len(group)
            steps.show(done, "")


def _parts(row: Benchmark, exam: Exam, found: Sequence[Sequence[Likelihood]]) -> dict[str, dict[str, Measured]]:
    if not row.by_file:
        return {}
    files = [example.name.rpartition(":")[0] for example in exam.examples]
    parts = {}
    for file in dict.fromkeys(files):
        mine = [i for i, name in enumerate(files) if name == file]
        parts[Path(file).stem] = measure(row.metrics, [exam.examples[i] for i in mine], [found[i] for i in mine])
    return parts


def score(run: Path, ask: Ask) -> Score:
    """The score of a run folder's newest good checkpoint, or of a checkpoint folder; answers go beside the run."""
    folder = checkpoint.resolve(run)
    lm = LM.load(folder)
    row, exam = benchmark(ask.task), prepare(ask, lm)
    key = _key(folder, ask)
    answers = Answers(folder_of(run) / f"{row.name}-{ask.few_shot}-{key[:12]}.jsonl", key)
    _answer(lm, exam, answers, row.name)
    found = [answers.found[i] for i in range(len(exam.examples))]
    longest = lm.model.architecture.seq_len + 1
    n_cut = sum(any(len(one.ids) > longest for one in asked) for asked in exam.asked)
    measured = measure(row.metrics, exam.examples, found)
    parts = _parts(row, exam, found)
    made = Score(row.name, ask.few_shot, len(found), exam.n_skipped, n_cut, row.chance, measured, parts, answers.path)
    replace_text(answers.path.with_suffix(".json"), json.dumps(plain(made), indent=1) + "\n")
    return made


def plain(made: Score) -> dict[str, object]:
    """The score as JSON values."""
    parts = {name: {key: one._asdict() for key, one in part.items()} for name, part in made.parts.items()}
    metrics = {key: one._asdict() for key, one in made.metrics.items()}
    return {**made._asdict(), "metrics": metrics, "parts": parts, "answers": made.answers.name}


def table(made: Score) -> str:
    """The score as lines for a person."""
    skipped = f", {made.n_skipped:,} bad records left out" if made.n_skipped else ""
    cut = f", {made.n_cut:,} cut on the left to fit" if made.n_cut else ""
    head = f"{made.task}, {made.few_shot}-shot, {made.n_examples:,} examples{skipped}{cut}; chance {made.chance:.3f}\n"
    rows = [("", name, one) for name, one in made.metrics.items()]
    rows += [(part, name, one) for part, inner in made.parts.items() for name, one in inner.items()]
    return head + "".join(f"{name:<14} {one.value:>10.4f} ± {one.stderr:.4f}  {part}\n" for part, name, one in rows)
