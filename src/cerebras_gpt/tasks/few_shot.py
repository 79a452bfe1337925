"""Classification by a model that was not tuned: by likelihood, after no or a few solved examples, and calibrated.

The same examples stand before every question, as in Zhao et al. 2021 ("Calibrate before use", section 2), so that
texts that say nothing can be asked after them too (section 5).
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from cerebras_gpt.data.example_batches import prompt_ids, shortened
from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.classification import Classification
from cerebras_gpt.tasks.task import Scores

SEED = 0
"""Of the draw of solved examples."""
BREAK = "\n\n"
"""Between a solved example and what follows it."""


class Drawn(NamedTuple):
    """What is shown, and what is left to ask."""

    shown: list[Example]
    asked: list[Example]


def draw(examples: Sequence[Example], n_shots: int, shots: Sequence[Example] | None = None) -> Drawn:
    """Solved examples, from those of another file or else from these, which are then not asked."""
    pool = list(examples if shots is None else shots)
    if n_shots < 0 or n_shots + (shots is None) > len(pool):
        raise ValueError(f"--few-shot {n_shots} needs 0 or more, and more examples than the {len(pool)} at hand")
    places = set(random.Random(SEED).sample(range(len(pool)), n_shots))
    asked = [one for place, one in enumerate(examples) if shots is not None or place not in places]
    return Drawn([pool[place] for place in sorted(places)], asked)


def shown_ids(lm: LM, task: Classification, shown: Sequence[Example]) -> list[int]:
    """Solved examples as ids: each loses its middle beyond its equal share of the window, the question has one too."""
    share, ids = task.room(lm) // (len(shown) + 1), []
    for example in shown:
        answer = lm.tokenizer.encode(example.answer + BREAK)
        if len(answer) >= share:
            raise ValueError(f"{len(shown)} examples do not fit in the model's window; show fewer")
        ids += [*shortened(prompt_ids(example.prompt, lm.tokenizer), share - len(answer)), *answer]
    return ids


def score_by_likelihood(lm: LM, task: Classification, examples: Sequence[Example], shown: Sequence[Example]) -> Scores:
    """Accuracy and macro-F1 of the likeliest label, of the calibrated one, and of the most frequent one."""
    before = shown_ids(lm, task, shown)
    logs = task.log_probabilities(lm, [example.prompt for example in examples], before)  # (N, K)
    plain, calibrated = (
        [task.labels[index] for index in values.argmax(-1).tolist()] for values in (logs, logs - task.prior(lm, before))
    )
    figures = {**figures_of(task, examples, plain), **figures_of(task, examples, calibrated, "calibrated_")}
    return Scores({**figures, **majority(task, examples)}, calibrated)


def figures_of(
    task: Classification, examples: Sequence[Example], said: Sequence[str], prefix: str = ""
) -> dict[str, float]:
    """Accuracy and macro-F1 by name."""
    table = task.table(examples, said)
    return {f"{prefix}accuracy": table.accuracy, f"{prefix}macro_f1": table.macro_f1}


def majority(task: Classification, examples: Sequence[Example]) -> dict[str, float]:
    """What the most frequent label of these very examples gives, said every time: what must be beaten."""
    usual = Counter(example.gold or 0 for example in examples).most_common(1)[0][0]
    return figures_of(task, examples, [task.labels[usual]] * len(examples), "majority_")
