"""What the likelihoods of one example are worth, and of many: metrics and standard errors as lm-eval defines them."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.likelihood import Likelihood

Array = NDArray[np.float64]

RESAMPLES = 10_000
SEED = 0


class Measured(NamedTuple):
    """A score with its standard error."""

    value: float
    stderr: float


def _best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)  # the first of equals, as numpy's argmax


def right(example: Example, found: Sequence[Likelihood]) -> float:
    """1 if the likeliest choice is right; where any text may be said, if each of its tokens is the likeliest."""
    if example.gold is None:
        return float(found[0].is_greedy)
    return float(_best([one.logprob for one in found]) == example.gold)


def right_by_length(example: Example, found: Sequence[Likelihood]) -> float:
    """The same by log-probability per character of the choice."""
    return float(_best([one.logprob / len(c) for one, c in zip(found, example.choices, strict=True)]) == example.gold)


def _of_answer(example: Example, found: Sequence[Likelihood]) -> float:
    return found[example.gold or 0].logprob


def bits_per_byte(example: Example, found: Sequence[Likelihood]) -> float:
    """Bits that the right answer costs per byte of it: the task loss of a downstream law; not in lm-eval."""
    return -_of_answer(example, found) / math.log(2) / len(example.answer.encode())


def difference(example: Example, found: Sequence[Likelihood]) -> float:
    """How far apart two sentences are, in nats."""
    return abs(found[0].logprob - found[1].logprob)


def mean(values: Array) -> Measured:
    """Mean with the standard error of the sample, that of a binomial where values are 0 and 1: (n,)."""
    n = len(values)
    return Measured(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan)


def exponential(values: Array) -> Measured:
    """exp of minus the mean log-probability, with a standard error by resampling: (n,)."""
    draw = np.random.default_rng(SEED)
    n = len(values)
    sums = [values[draw.integers(0, n, n)].mean() for _ in range(RESAMPLES)]
    spread = float(np.exp(-np.array(sums)).std(ddof=1)) if n > 1 else math.nan
    return Measured(math.exp(-float(values.mean())), spread)


class Metric(NamedTuple):
    """A number of each example, and how they become one."""

    of_one: Callable[[Example, Sequence[Likelihood]], float]
    of_all: Callable[[Array], Measured]
    meaning: str


METRICS = {
    "acc": Metric(right, mean, "share right"),
    "acc_norm": Metric(right_by_length, mean, "share right by log-probability per character"),
    "perplexity": Metric(_of_answer, exponential, "of the whole answer"),
    "bits_per_byte": Metric(bits_per_byte, mean, "of the right answer"),
    "stereotype": Metric(right, mean, "share in which the stereotype is likelier; 0.5 is none"),
    "difference": Metric(difference, mean, "nats between the two sentences"),
}


def measure(
    names: Sequence[str], examples: Sequence[Example], found: Sequence[Sequence[Likelihood]]
) -> dict[str, Measured]:
    """Every named metric over the examples."""
    return {
        name: METRICS[name].of_all(
            np.array([METRICS[name].of_one(one, likely) for one, likely in zip(examples, found, strict=True)])
        )
        for name in names
    }
