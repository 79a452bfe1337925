"""The rungs of a ladder: compute-optimal plans of one family at geometric budgets, fitted into a time and a text."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from cerebras_gpt import config
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.plan.families import PARAMETRIZATIONS, Base
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.plan import TOKENS_PER_PARAMETER, Plan

FORMULA = "cerebras"
"""How a ladder counts compute: as the paper's own law does."""
SEQ_LEN = 32
"""Short, so that the smallest rung learns to attend at all: with 128 positions it knows only pairs of tokens for most
of its run, and a law fitted to such rungs misses what attention brings later (docs/ladder.md)."""
N_LAYERS, D_HEAD = 2, 8
"""Fixed, because muP carries values over the width alone: the family changes in nothing else."""
WIDTH_STEP = D_HEAD
SMALLEST_WIDTH = 16
DECADES = 2.5
"""Of compute, that the fitted rungs span; the predicted one lies one step further."""
FEWEST_RUNGS = 5
"""Four fitted ones, so that three constants leave something to tell the noise by."""
MOST_EPOCHS = 4.0
"""Up to here text that is read again is nearly as good as new (Muennighoff et al. 2023)."""
STEPS_PER_ROOT_TOKEN = 1.0
"""Steps are so many times the square root of the tokens, and so is the batch: the critical batch grows about like the
square root of the tokens (Zhang et al. 2024). A larger batch leaves a small run too few steps to learn to attend."""
WARMUP_FRACTION = 0.1
"""Of all steps, as on the proxy of the paper."""
N_SEEDS = 2
"""Of each fitted rung: their mean steadies the law, their spread is the noise of one run."""


@dataclass(frozen=True)
class Family:
    """What all rungs share."""

    parametrization: str
    """A name of PARAMETRIZATIONS."""
    base: Base
    peak_lr: float
    """At lr scale 1."""
    vocab_size: int
    seq_len: int = SEQ_LEN
    tokens_per_parameter: float = TOKENS_PER_PARAMETER

    def __post_init__(self) -> None:
        if self.parametrization not in PARAMETRIZATIONS:
            raise ValueError(config.unknown("parametrization", self.parametrization, PARAMETRIZATIONS))

    def architecture(self, d_model: int) -> Architecture:
        """The shape of that width."""
        return Architecture(d_model, N_LAYERS, d_model // D_HEAD, self.vocab_size, self.seq_len)

    def plan(self, d_model: int, seed: int = 0) -> Plan:
        """The compute-optimal run of that width."""
        shape = self.architecture(d_model)
        tokens = self.tokens_per_parameter * shape.n_parameters
        batch_size = max(1, round(math.sqrt(tokens) / STEPS_PER_ROOT_TOKEN / self.seq_len))
        steps = max(2, round(tokens / (batch_size * self.seq_len)))
        return Plan(
            name=f"{self.parametrization} width {d_model}",
            architecture=shape,
            parametrization=PARAMETRIZATIONS[self.parametrization](shape, self.base),
            batch_size=batch_size,
            steps=steps,
            warmup_steps=max(1, round(WARMUP_FRACTION * steps)),
            peak_lr=self.peak_lr,
            seed=seed,
            reasons=(
                f"tokens: {self.tokens_per_parameter:g} per parameter, compute-optimal (Hoffmann et al. 2022)",
                "batch and steps: both like the square root of the tokens, as the critical batch (Zhang et al. 2024)",
                f"shape: {N_LAYERS} layers and heads of {D_HEAD} at every width, so that muP carries the values over",
            ),
        )

    def flops(self, d_model: int) -> float:
        """Training compute of that width."""
        return flops_of(self.plan(d_model))


def flops_of(plan: Plan) -> float:
    """Training compute of a plan as a ladder counts it."""
    return training_flops(plan.architecture, plan.tokens, FORMULA)


def check_rungs(n_rungs: int) -> None:
    """Refuses a ladder that no law could come from."""
    if n_rungs < FEWEST_RUNGS:
        raise ValueError(f"{n_rungs} rungs are too few for a law of three constants; give {FEWEST_RUNGS} or more")


class Limits(NamedTuple):
    """What a ladder must fit into."""

    seconds: float
    n_tokens: int
    """Of the train split."""
    n_scored: int
    """Tokens computed to score one run."""


class Cost(NamedTuple):
    """What a ladder of these widths takes."""

    seconds: float
    epochs: float
    """Of the last rung."""


Speed = Callable[[int], float]
"""Tokens a second of training at a width."""

SCORING_SHARE = 1 / 3
"""A forward pass over that of training."""


def cost(family: Family, widths: tuple[int, ...], limits: Limits, speed: Speed) -> Cost:
    """Time of all rungs, the fitted ones with all their seeds, and epochs of the last."""
    tokens = [family.plan(width).tokens for width in widths]
    times = [(n + SCORING_SHARE * limits.n_scored) / speed(width) for n, width in zip(tokens, widths, strict=True)]
    return Cost(N_SEEDS * math.fsum(times[:-1]) + times[-1], tokens[-1] / limits.n_tokens)


def widths_below(family: Family, last: int, n_rungs: int) -> tuple[int, ...]:
    """Widths at geometric budgets up to the last one, the fitted ones over DECADES; empty if they would not differ."""
    grid = range(SMALLEST_WIDTH, last + 1, WIDTH_STEP)
    logs = {width: math.log(family.flops(width)) for width in grid}
    whole = (n_rungs - 1) / (n_rungs - 2) * DECADES * math.log(10)
    first = max((width for width in grid if logs[width] <= logs[last] - whole), default=last)  # rather more than less
    goals = np.linspace(logs[first], logs[last], n_rungs).tolist()
    widths = tuple(min(grid, key=lambda width, goal=goal: abs(logs[width] - goal)) for goal in goals)  # type: ignore[misc]
    reached = logs[widths[-2]] - logs[widths[0]] >= DECADES * math.log(10)
    return widths if reached and all(a < b for a, b in pairwise(widths)) else ()


def ladder_widths(family: Family, n_rungs: int, limits: Limits, speed: Speed) -> tuple[int, ...]:
    """The widest ladder within time and text; raises ValueError saying what is missing when there is none."""
    found: tuple[int, ...] = ()
    last = SMALLEST_WIDTH
    while True:
        last += WIDTH_STEP
        widths = widths_below(family, last, n_rungs)
        if not widths:
            if last > 64 * SMALLEST_WIDTH:
                raise ValueError(f"{n_rungs} rungs lie too close together; give fewer, such as 7")
            continue
        needs = cost(family, widths, limits, speed)
        if needs.seconds > limits.seconds or needs.epochs > MOST_EPOCHS:
            return found or _refused(widths, needs, limits)
        found = widths


def _refused(widths: tuple[int, ...], needs: Cost, limits: Limits) -> tuple[int, ...]:
    smallest = f"the smallest ladder (widths {widths[0]} to {widths[-1]}, {DECADES:g} decades and one step)"
    if needs.epochs > MOST_EPOCHS:
        least = math.ceil(needs.epochs / MOST_EPOCHS * limits.n_tokens)
        raise ValueError(
            f"{smallest} needs {least:,} training tokens, the pack has {limits.n_tokens:,}; pack more text"
        )
    minutes = math.ceil(needs.seconds / 6) / 10
    raise ValueError(
        f"{smallest} takes {minutes:g} minutes here, {limits.seconds / 60:g} were given; "
        f"give --minutes {minutes:g}, or a pack of a smaller vocabulary"
    )
