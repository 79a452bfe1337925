"""The learning-rate transfer check: where the best rate lies at each width, and how far it drifts.

Yang et al. 2022 (muTransfer), figure 1: in muP the best rate stays put as the width grows, in SP it falls.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cerebras_gpt.train.coordinates import Sweep
from cerebras_gpt.train.trial import Outcome, Trial, Workers, outcomes

LARGEST_DRIFT = 1.0
"""Octaves (factors of 2) by which the best rate may move from the narrowest to the widest."""


class Optimum(NamedTuple):
    """The best rate at one width."""

    x: int
    log2_rate: float
    """Of the lowest point of the parabola through the three best neighbours; of the best rate at an end of the grid."""
    inside: bool
    """Whether the grid reaches past it on both sides."""


class Transfer(NamedTuple):
    """Final losses over rates and widths, and what follows from them."""

    rates: tuple[float, ...]
    loss_by_x: dict[int, tuple[float, ...]]
    """Nats per token on held-out text, infinite where training diverged."""

    @property
    def optima(self) -> list[Optimum]:
        """The best rate of each width."""
        return [optimum(x, self.rates, losses) for x, losses in self.loss_by_x.items()]

    @property
    def drift(self) -> float:
        """Octaves from the best rate of the narrowest to that of the widest."""
        first, *_, last = self.optima
        return last.log2_rate - first.log2_rate

    @property
    def holds(self) -> bool:
        """Whether the best rate stays put, and was inside the grid at both ends."""
        first, *_, last = self.optima
        return abs(self.drift) < LARGEST_DRIFT and first.inside and last.inside

    def __str__(self) -> str:
        first, *_, last = self.optima
        moved = f"the best rate moves {self.drift:+.2f} octaves from width {first.x} to {last.x}"
        if abs(self.drift) >= LARGEST_DRIFT:
            return f"{moved} (allowed: less than {LARGEST_DRIFT:g})"
        return moved if self.holds else f"{moved}, but it is at an end of the grid: give more rates"


def optimum(x: int, rates: Sequence[float], losses: Sequence[float]) -> Optimum:
    """The lowest point of the parabola through the best rate and its two neighbours, in log2 of the rate.

    >>> optimum(64, [0.001, 0.002, 0.004], [3.1, 3.0, 3.1]).log2_rate == math.log2(0.002)
    True
    """
    best = int(np.argmin(losses))
    around = losses[max(best - 1, 0) : best + 2]
    logs = [math.log2(rate) for rate in rates]
    if len(around) < 3 or not all(map(math.isfinite, around)):
        # Next to a rate that diverges there is no parabola, but the best one is bracketed all the same.
        return Optimum(x, logs[best], inside=len(around) == 3)
    left, middle, right = around
    bend = left - 2 * middle + right
    shift = (left - right) / (2 * bend) if bend > 0 else 0.0
    step = (logs[best + 1] - logs[best - 1]) / 2
    return Optimum(x, logs[best] + shift * step, inside=True)


def rates_around(middle: float, octaves: int) -> tuple[float, ...]:
    """Rates one octave apart, so many on each side of the middle."""
    return tuple(middle * 2.0**k for k in range(-octaves, octaves + 1))


def trials(made: Sweep, rates: Sequence[float], steps: int) -> list[Trial]:
    """One trial for every value and rate; a tenth of the steps warms up, and the rate falls to a tenth."""
    return [
        Trial(
            f"{made.axis} {x} rate {rate:.3g}",
            replace(plan, peak_lr=rate, steps=steps, warmup_steps=max(1, steps // 10), final_lr_fraction=0.1),
        )
        for x, plan in zip(made.values, made.plans, strict=True)
        for rate in rates
    ]


def transfer(made: Sweep, rates: Sequence[float], steps: int, data: Path, record: Path, workers: Workers) -> Transfer:
    """Trains all of them, or takes them from the record, and tells where the best rates lie."""
    if len(rates) < 3:
        raise ValueError(f"{len(rates)} rates have no lowest point between them; give 3 or more")
    return gathered(made.values, rates, outcomes(trials(made, rates, steps), data, record, workers, title="transfer"))


def gathered(values: Sequence[int], rates: Sequence[float], found: Sequence[Outcome]) -> Transfer:
    """Outcomes in the order of `trials`, as a table of losses."""
    rows = np.array([outcome.held_out for outcome in found]).reshape(len(values), len(rates)).tolist()
    loss_by_x: Mapping[int, tuple[float, ...]] = {x: tuple(row) for x, row in zip(values, rows, strict=True)}
    return Transfer(tuple(rates), dict(loss_by_x))
