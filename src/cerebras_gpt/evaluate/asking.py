"""Questions as ids, joined as lm-eval joins them, in batches of similar length."""

from collections.abc import Iterator, Sequence

from cerebras_gpt.evaluate.benchmarks import Question
from cerebras_gpt.generate.likelihood import Continuation
from cerebras_gpt.text.tokenizer import Tokenizer

BATCH_TOKENS = 8192
"""Padded tokens read at a time."""


def joined(tokenizer: Tokenizer, question: Question) -> Continuation:
    """Context and continuation as the ids of one text, which is cut where the context alone would end.

    Spaces at the end of the context go to the continuation first, because byte-level BPE has them at the beginning of
    words; without a context the text begins a document. All as in lm-eval's `TemplateLM`. Raises ValueError where
    nothing is left to ask for.
    """
    context = question.context.rstrip()
    rest = question.context[len(context) :] + question.continuation
    given = tokenizer.encode(context) if question.context else [tokenizer.end_of_text]
    asked = tokenizer.encode(context + rest)[len(given) if question.context else 0 :]
    if not given or not asked:
        raise ValueError(f"{question.continuation[:40]!r} has no tokens of its own after its context; mend the example")
    return Continuation((*given, *asked), len(given))


def batches(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Places in order of falling length, as many at a time as fit when padded to the longest.

    >>> list(batches([3, 9, 4, 8], 20))
    [[1, 3], [2, 0]]
    """
    group: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if group and lengths[group[0]] * (len(group) + 1) > limit:
            yield group
            group = []
        group.append(i)
    if group:
        yield group
