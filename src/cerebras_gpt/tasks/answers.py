"""Greedy answers to many prompts: those of like length together, longest first, each cut so that there is room."""

from collections.abc import Sequence

from cerebras_gpt.data.example_batches import prompt_ids, shortened
from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.engine import Generation
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.tasks.metrics import exact_match, word_f1
from cerebras_gpt.tasks.task import Scores

GREEDY = Sampling(temperature=0.0)
TOGETHER = 32
"""Prompts that are answered at once."""


def answers(lm: LM, prompts: Sequence[str], max_tokens: int) -> list[str]:
    """What the model says after each prompt, up to the end of the text, max_tokens or half its window."""
    n_new = min(max_tokens, lm.model.architecture.seq_len // 2)
    room = lm.model.architecture.seq_len + 1 - n_new
    ids = [shortened(prompt_ids(prompt, lm.tokenizer), room) for prompt in prompts]
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    said = [""] * len(ids)
    for i in range(0, len(order), TOGETHER):
        rows = order[i : i + TOGETHER]
        for row, text in zip(rows, _together(lm, [ids[row] for row in rows], n_new), strict=True):
            said[row] = text
    return said


def _together(lm: LM, prompts: list[list[int]], n_new: int) -> list[str]:
    end = lm.tokenizer.end_of_text
    generation = Generation(lm.model, prompts, GREEDY, n_new, [end])
    while not generation.is_finished:
        generation.step()
    pairs = zip(generation.continuations, prompts, strict=True)
    return [lm.tokenizer.decode(row.ids[len(prompt) :]).strip() for row, prompt in pairs]


def overlap(lm: LM, examples: Sequence[Example], max_tokens: int) -> Scores:
    """Word overlap of greedy answers with the right ones, and how often they are the same."""
    return overlap_of(answers(lm, [example.prompt for example in examples], max_tokens), examples)


def overlap_of(said: Sequence[str], examples: Sequence[Example]) -> Scores:
    """The same of any answers; where an example has choices, each of them is right: wordings of one answer."""
    pairs = [(text, example.choices or (example.answer,)) for text, example in zip(said, examples, strict=True)]
    n = max(1, len(pairs))
    figures = {"f1": sum(word_f1(*p) for p in pairs) / n, "exact_match": sum(exact_match(*p) for p in pairs) / n}
    return Scores(figures, said)
