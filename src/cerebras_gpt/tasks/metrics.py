"""Metrics of answers: confusion of labels, accuracy and macro-F1; exact match and word overlap as SQuAD has them."""

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Confusion(NamedTuple):
    """How often each label was taken for each."""

    labels: Sequence[str]
    counts: np.ndarray
    """(K, K): rows are the right labels, columns the answers."""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.counts.trace() / max(1, self.counts.sum()))

    @property
    def macro_f1(self) -> float:
        """Mean over the labels of the harmonic mean of precision and recall; a label that never occurs has none."""
        right, given, said = self.counts.diagonal(), self.counts.sum(1), self.counts.sum(0)
        there = (given + said) > 0
        return float((2 * right[there] / (given + said)[there]).mean()) if there.any() else math.nan


def confusion(labels: Sequence[str], pairs: Iterable[tuple[int, int]]) -> Confusion:
    """The table of pairs (right label, answer)."""
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for right, said in pairs:
        counts[right, said] += 1
    return Confusion(labels, counts)


def standard_error(share: float, n: int) -> float:
    """Of a share of n: sqrt(p (1 - p) / (n - 1))."""
    return math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else math.nan


ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation)


def normalized(answer: str) -> str:
    """An answer as SQuAD compares it: lower case, no punctuation, no articles, single spaces (Rajpurkar et al. 2016).

    >>> normalized("The  Eiffel Tower!")
    'eiffel tower'
    """
    letters = "".join(letter for letter in answer.lower() if letter not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", letters).split())


def exact_match(answer: str, truths: Sequence[str]) -> float:
    """1 if the answer is one of the truths, after normalisation."""
    return float(normalized(answer) in {normalized(truth) for truth in truths})


def word_f1(answer: str, truths: Sequence[str]) -> float:
    """The best harmonic mean of precision and recall of words against a truth (Rajpurkar et al. 2016)."""
    return max((_word_f1(normalized(answer).split(), normalized(truth).split()) for truth in truths), default=0.0)


def _word_f1(said: list[str], truth: list[str]) -> float:
    if not said or not truth:
        return float(said == truth)
    common = sum((Counter(said) & Counter(truth)).values())
    return 2 * common / (len(said) + len(truth))
