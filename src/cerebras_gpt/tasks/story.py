"""How a generated text is judged without a right answer: its length, its variety, and another model's opinion."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from cerebras_gpt.generate.lm import LM

REPEATED_RUN = 4
"""Words of a run whose second time counts as repetition."""


class Variety(NamedTuple):
    """What a text is made of; words are what lies between white space, in lower case."""

    words: int
    distinct_1: float
    """Different words over all words (Li et al. 2016, section 5.2)."""
    distinct_2: float
    """The same of pairs of words."""
    repeated: float
    """Share of the words that stand in a run of four which occurred before."""


class Opinion(NamedTuple):
    """What a model that did not write a text thinks of it."""

    perplexity: float
    """Per token of the judge's tokenizer: comparable between texts, not between judges."""
    bits_per_byte: float


def distinct(words: Sequence[str], n: int) -> float:
    """Different runs of n words over all of them; 1 where there is none.

    >>> distinct("a b a b".split(), 2)
    0.6666666666666666
    """
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


def repeated(words: Sequence[str], n: int = REPEATED_RUN) -> float:
    """Share of the words that stand in a run of n which occurred before.

    >>> repeated("a b c d x a b c d".split())
    0.4444444444444444
    """
    seen: set[tuple[str, ...]] = set()
    again: set[int] = set()
    for i in range(len(words) - n + 1):
        run = tuple(words[i : i + n])
        if run in seen:
            again.update(range(i, i + n))
        seen.add(run)
    return len(again) / max(1, len(words))


def variety(text: str) -> Variety:
    """Length, distinct words and pairs, and repetition."""
    words = text.lower().split()
    return Variety(len(words), distinct(words, 1), distinct(words, 2), repeated(words))


def opinion(judge: LM, prompt: str, text: str) -> Opinion:
    """How surprised a judge is by the text after its prompt; raises ValueError if there is none."""
    if not text:
        raise ValueError("there is no text to judge; let it be longer")
    score = judge.score_continuation(prompt, text)
    return Opinion(math.exp(score.nats / score.n_tokens), score.nats / math.log(2) / score.n_bytes)
