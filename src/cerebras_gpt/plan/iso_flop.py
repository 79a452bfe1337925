"""IsoFLOP parabolas: at each of several budgets the best size, and how it grows with compute (Hoffmann, approach 2).

Letters: n points, K budgets, R resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from cerebras_gpt.plan.bootstrap import interval, leverages, resampled, scatter
from cerebras_gpt.plan.certainty import CONSTANT_LEVEL, PREDICTION_LEVEL, Constant
from cerebras_gpt.plan.points import NATS, Point, column, compute

Array = NDArray[np.float64]
Places = NDArray[np.intp]

SAME_BUDGET = 1.05
"""Runs whose compute differs by less than this factor share a budget."""
FEWEST_SIZES = 4
FEWEST_BUDGETS = 3


class Minimum(NamedTuple):
    """The bottom of one parabola."""

    flops: float
    n_parameters: float
    n_tokens: float
    loss: float


class Budget(NamedTuple):
    """The runs of one budget."""

    at: Places
    """Places of its points."""
    flops: float
    n: Array
    """Log parameters about their middle."""
    middle: float
    tokens: Array
    """Log tokens as a line over n: slope, value at the middle."""
    project: Array
    """From log-losses to the parabola's coefficients, highest power first: (3, points)."""

    def bottom(self, losses: Array) -> tuple[Array, Array]:
        """Log parameters and log loss at the least of the parabolas through log-losses: (R, n) -> (R,), (R,).

        A parabola without a bottom among its sizes has it at the nearer end of them.
        """
        curve, slope, level = (losses[:, self.at] @ self.project.T).T
        place = np.where(curve > 0, -slope / (2 * np.where(curve > 0, curve, 1)), -np.sign(slope) * np.inf)
        place = place.clip(self.n.min(), self.n.max())
        return place + self.middle, curve * place**2 + slope * place + level


def budgets(points: Sequence[Point]) -> list[Budget]:
    """The points grouped by compute, small to large; raises ValueError where a group cannot make a parabola."""
    flops, n, d = compute(points), np.log(column(points, "n_parameters")), np.log(column(points, "n_tokens"))
    order = np.argsort(flops, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(np.log(flops[order])) > math.log(SAME_BUDGET)) + 1)
    if len(groups) < FEWEST_BUDGETS:
        raise ValueError(f"IsoFLOP curves need at least {FEWEST_BUDGETS} budgets, {len(groups)} given; train others")
    found = []
    for at in groups:
        mean = float(np.exp(np.log(flops[at]).mean()))
        if len(np.unique(n[at])) < FEWEST_SIZES:
            raise ValueError(f"the budget of {mean:.3g} FLOPs needs at least {FEWEST_SIZES} sizes; train more at it")
        middle = float(n[at].mean())
        x = n[at] - middle
        tokens = np.polyfit(x, d[at], 1)
        found.append(Budget(at, mean, x, middle, tokens, np.linalg.pinv(np.vander(x, 3)).astype(np.float64)))
    return found


@dataclass(frozen=True)
class IsoFlopFit:
    """Parabolas with the points they came from, and N = k C^a through their bottoms."""

    points: tuple[Point, ...]
    unit: str = NATS

    @cached_property
    def budgets(self) -> list[Budget]:
        """The points by budget."""
        return budgets(self.points)

    @cached_property
    def _losses(self) -> Array:
        return np.log(column(self.points, "loss"))

    @property
    def freedom(self) -> int:
        """Points less the three constants of every parabola."""
        return len(self.points) - 3 * len(self.budgets)

    @cached_property
    def _residuals(self) -> Array:
        left = np.empty(len(self.points))
        for budget in self.budgets:
            coefficients = budget.project @ self._losses[budget.at]
            left[budget.at] = self._losses[budget.at] - np.vander(budget.n, 3) @ coefficients
        return left

    @property
    def noise(self) -> float:
        """Relative standard deviation of a run about its parabola."""
        return scatter(self._residuals, self.freedom)

    def expected(self, point: Point) -> float:
        """The loss that the parabola of the point's own budget gives its size."""
        flops, (n,) = compute([point])[0], column([point], "n_parameters")
        near = min(self.budgets, key=lambda budget: abs(math.log(budget.flops / flops)))
        if abs(math.log(near.flops / flops)) > math.log(SAME_BUDGET):
            raise ValueError(f"there is no curve at {flops:.3g} FLOPs; ask for the best size there instead")
        return math.exp(np.polyval(near.project @ self._losses[near.at], math.log(n) - near.middle))

    def interval(self, point: Point, level: float = PREDICTION_LEVEL) -> tuple[float, float]:
        """Where the loss of one run of that budget and size falls: about its parabola, its own noise included."""
        reach = float(student.ppf((1 + level) / 2, self.freedom)) * self.noise
        expected = self.expected(point)
        return expected * math.exp(-reach), expected * math.exp(reach)

    def _bottoms(self, losses: Array) -> tuple[Array, Array]:
        """Log parameters and log losses at all bottoms: (R, n) -> (R, K), (R, K)."""
        found = [budget.bottom(losses) for budget in self.budgets]
        return np.stack([n for n, _ in found], axis=1), np.stack([loss for _, loss in found], axis=1)

    @property
    def minima(self) -> list[Minimum]:
        """The best size of every budget, with its tokens and loss."""
        places, losses = (row[0] for row in self._bottoms(self._losses[None]))
        return [
            Minimum(b.flops, math.exp(n), math.exp(np.polyval(b.tokens, n - b.middle)), math.exp(loss))
            for b, n, loss in zip(self.budgets, places, losses, strict=True)
        ]

    def _growth(self, losses: Array) -> tuple[Array, Array, float]:
        """Exponent a, log N at the middle budget, and the log of that budget: (R, n) -> (R,), (R,), ()."""
        c = np.log([budget.flops for budget in self.budgets])
        n = self._bottoms(losses)[0]
        return n @ (c - c.mean()) / ((c - c.mean()) ** 2).sum(), n.mean(axis=1), float(c.mean())

    @cached_property
    def _cloud(self) -> tuple[Array, Array, float]:
        bent = np.empty(len(self.points))
        for budget in self.budgets:
            bent[budget.at] = leverages(np.vander(budget.n, 3))
        return self._growth(self._losses - self._residuals + resampled(self._residuals, bent))

    def constants(self, level: float = CONSTANT_LEVEL) -> tuple[Constant, ...]:
        """The exponent a of N = k C^a, and k."""
        (a, n, c), (cloud_a, cloud_n, _) = self._growth(self._losses[None]), self._cloud
        exponent = float(a[0])
        scale = float(n[0] - a[0] * c)
        low, high = interval(scale, cloud_n - cloud_a * c, level, self.freedom)
        return (
            Constant("growth", exponent, *interval(exponent, cloud_a, level, self.freedom)),
            Constant("scale_parameters", math.exp(scale), math.exp(low), math.exp(min(high, 700.0))),
        )

    def optimal_parameters(self, flops: float, level: float = PREDICTION_LEVEL) -> tuple[float, float, float]:
        """The best size for so much compute, and its interval."""
        (a, n, c), (cloud_a, cloud_n, _) = self._growth(self._losses[None]), self._cloud
        x = math.log(flops) - c
        best = float(n[0] + a[0] * x)
        low, high = interval(best, cloud_n + cloud_a * x, level, self.freedom)
        return math.exp(best), math.exp(low), math.exp(high)


def fit_iso_flop(points: Sequence[Point], unit: str = NATS) -> IsoFlopFit:
    """The parabolas of log-loss over log parameters at every budget; raises ValueError if one has no bottom."""
    column(points, "loss")
    fit = IsoFlopFit(tuple(points), unit)
    if fit.freedom < 2:
        raise ValueError("parabolas through so few runs leave no noise to judge by; train more sizes at each budget")
    for budget, minimum in zip(fit.budgets, fit.minima, strict=True):
        place = math.log(minimum.n_parameters) - budget.middle
        if not budget.n.min() < place < budget.n.max():
            side = "smaller" if place <= budget.n.min() else "larger"
            raise ValueError(
                f"at {budget.flops:.3g} FLOPs the loss is least at an end of the sizes; train {side} ones there too"
            )
    return fit
