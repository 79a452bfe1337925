"""From a data file to what is trained on and what is held out, every row accounted for."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt.data.example_batches import Sample, sample
from cerebras_gpt.data.examples import Example
from cerebras_gpt.tasks.rows import Findings
from cerebras_gpt.tasks.table import read_examples, read_task_data
from cerebras_gpt.tasks.task import Task
from cerebras_gpt.text.tokenizer import Tokenizer

HELD_OUT_SHARE, MOST_HELD_OUT = 0.1, 1000
"""Of the examples, if no file of held-out ones is given."""


class TuningData(NamedTuple):
    """A task with its two parts."""

    task: Task
    train: list[Sample]
    held_out: list[Sample]
    examples: list[Example]
    """The held-out ones as text, to be scored."""
    findings: Findings

    @property
    def n_answer_bytes(self) -> int:
        """Bytes of the held-out answers."""
        return sum(len(example.answer.encode()) for example in self.examples)

    def lines(self) -> list[str]:
        """The whole in words."""
        n_tokens = sum(len(one.ids) for one in self.train)
        n_targets = sum(one.n_targets for one in self.train)
        return [
            f"{self.findings.n_rows:,} rows, {self.findings.n_refused:,} refused",
            f"{len(self.train):,} examples to learn ({n_tokens:,} tokens, {n_targets:,} of them in answers), "
            f"{len(self.held_out):,} held out",
            *self.findings.lines(),
        ]


def held_out_places(prompts: Sequence[str]) -> set[int]:
    """Which examples are held out: those whose prompts have the smallest hashes; equal prompts stay together."""
    hashes = {prompt: hashlib.sha256(prompt.encode()).digest() for prompt in prompts}
    wanted = max(1, min(MOST_HELD_OUT, round(HELD_OUT_SHARE * len(hashes))))
    chosen = set(sorted(hashes, key=hashes.__getitem__)[:wanted])
    return {place for place, prompt in enumerate(prompts) if prompt in chosen}


def read_tuning_data(
    name: str, data: Path, held_out: Path | None, tokenizer: Tokenizer, seq_len: int, template: str = ""
) -> TuningData:
    """The two parts of a task's data as ids; raises ValueError naming what leaves nothing to learn."""
    task, examples, findings = read_task_data(name, data, template)
    pairs = _samples(examples, tokenizer, seq_len, findings)
    if held_out is None:
        places = held_out_places([example.prompt for example, _ in pairs])
        others = [pair for place, pair in enumerate(pairs) if place in places]
        pairs = [pair for place, pair in enumerate(pairs) if place not in places]
    else:
        theirs = read_examples(task, held_out)
        others = _samples(theirs.examples, tokenizer, seq_len, theirs.findings)
        findings.include(held_out.name, theirs.findings)
    if not pairs or not others:
        raise ValueError(
            f"{data}: {len(pairs)} examples to learn and {len(others)} held out; give at least two different prompts"
        )
    return TuningData(task, [s for _, s in pairs], [s for _, s in others], [e for e, _ in others], findings)


def _samples(
    examples: Sequence[Example], tokenizer: Tokenizer, seq_len: int, findings: Findings
) -> list[tuple[Example, Sample]]:
    """Each example with its ids; one whose answer does not fit in the window is refused."""
    pairs = []
    for example in examples:
        line = int(example.name.rpartition(" ")[2])
        try:
            made = sample(example, tokenizer, seq_len)
        except ValueError:
            findings.refuse(line, f"answer longer than the window of {seq_len} tokens")
            continue
        if made.n_cut:
            findings.remark(line, f"prompt longer than the window of {seq_len} tokens, its middle is left out")
        pairs.append((example, made))
    return pairs
