"""Fits L(C) = (C / f0)^-a + c to a family, and says how certain its constants and predictions are.

Given the exponent a the law is linear in its other two constants, so least squares is closed there and everything
else is a walk along a. The three constants trade against each other along a flat valley: intervals are those of the
profile (all constants whose squares stay below an F quantile), which follow the valley where a standard error cannot.
Letters: n points, G exponents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import f as fisher

from cerebras_gpt.plan.certainty import CONSTANT_LEVEL, PREDICTION_LEVEL, Constant
from cerebras_gpt.plan.laws import PowerLaw
from cerebras_gpt.plan.points import NATS, Point, column, enough

Array = NDArray[np.float64]

FEWEST_POINTS = 4
SMALLEST_EXPONENT, LARGEST_EXPONENT = 1e-3, 3.0
GRID = 400
LEAST_NOISE = 1e-9
"""Relative; what is called exact, so that an exact fit has an interval at all."""


class Lines(NamedTuple):
    """The best line K x^-a + c for every exponent, with its cost and the covariance of K and c per unit variance."""

    K: Array
    c: Array
    cost: Array
    """Sum of squared relative residuals."""
    KK: Array
    Kc: Array
    cc: Array


def lines(exponents: Array, x: Array, losses: Array, weights: Array, irreducible: float | None) -> Lines:
    """Weighted least squares at every exponent: (G,), (n,) three times -> (G,) each; c is free, but >= 0, or given.

    Residuals are relative, times their weights: w ((K x^-a + c) / L - 1).
    """
    fall = np.exp(-exponents[:, None] * x) * weights / losses  # (G, n)
    flat = weights / losses  # (n,)
    ff, fo, oo = (fall * fall).sum(1), fall @ flat, flat @ flat
    f1, o1 = fall @ weights, flat @ weights
    determinant = np.maximum(ff * oo - fo * fo, 1e-300)
    c = np.full_like(ff, irreducible) if irreducible is not None else (ff * o1 - fo * f1) / determinant
    held = np.full(len(ff), irreducible is not None) | (c < 0)
    c = np.maximum(c, 0.0)
    K = (f1 - c * fo) / ff  # the best K for this c, held or free
    cost = ((K[:, None] * fall + c[:, None] * flat - weights) ** 2).sum(1)
    cost = np.where(K > 0, cost, np.inf)
    KK, Kc, cc = np.where(held, [1 / ff, 0 * ff, 0 * ff], [oo / determinant, -fo / determinant, ff / determinant])
    return Lines(K, c, cost, KK, Kc, cc)


@dataclass(frozen=True)
class PowerFit:
    """A power law with the points it came from."""

    points: tuple[Point, ...]
    law: PowerLaw
    irreducible: float | None = None
    """c where it was given instead of fitted."""
    weights: tuple[float, ...] = ()
    """Of the residuals, mean square 1; none: all alike."""

    @cached_property
    def _weights(self) -> Array:
        return np.array(self.weights or (1.0,) * len(self.points))

    @cached_property
    def _losses(self) -> Array:
        return column(self.points, "loss")

    @cached_property
    def _middle(self) -> float:
        return float(np.log(column(self.points, "flops")).mean())

    def _lines(self, exponents: Array) -> Lines:
        x = np.log(column(self.points, "flops")) - self._middle
        return lines(exponents, x, self._losses, self._weights, self.irreducible)

    def _cost(self, exponent: float) -> float:
        return float(self._lines(np.array([exponent])).cost[0])

    @property
    def freedom(self) -> int:
        """Points less constants."""
        return len(self.points) - (3 if self.irreducible is None else 2)

    @cached_property
    def best_exponent(self) -> float:
        """The exponent of least squares; that of `law` may have been published."""
        grid = np.geomspace(SMALLEST_EXPONENT, LARGEST_EXPONENT, GRID)
        cost = self._lines(grid).cost
        i = int(cost.argmin())
        if not np.isfinite(cost[i]) or i == GRID - 1:
            raise ValueError("the losses do not fall with compute as a power law does; look at the runs, or leave some")
        around = grid[max(0, i - 1)], grid[min(GRID - 1, i + 1)]
        return float(minimize_scalar(self._cost, bounds=around, method="bounded", options={"xatol": 1e-12}).x)

    @cached_property
    def least_cost(self) -> float:
        """Sum of squared relative residuals of the best law."""
        return max(self._cost(self.best_exponent), len(self.points) * LEAST_NOISE**2)

    @property
    def noise(self) -> float:
        """Relative standard deviation of a run about the law."""
        return math.sqrt(self.least_cost / self.freedom)

    def _limit(self, level: float, n_joint: int = 1) -> float:
        """The cost up to which constants belong to the region of that level, n_joint of them looked at together."""
        quantile = float(fisher.ppf(level, n_joint, self.freedom))
        return self.least_cost * (1 + n_joint * quantile / self.freedom)

    def _region(self, level: float) -> tuple[Array, Lines, Array]:
        """Exponents inside the interval, their lines, and what is left of the cost for the other constants."""
        limit, best = self._limit(level), self.best_exponent
        low, high = (self._edge(end, best, limit) for end in (SMALLEST_EXPONENT, LARGEST_EXPONENT))
        exponents = np.concatenate([np.linspace(low, high, GRID), [best]])
        found = self._lines(exponents)
        inside = found.cost <= limit * (1 + 1e-9)
        kept = Lines(*(values[inside] for values in found))
        return exponents[inside], kept, np.maximum(limit - kept.cost, 0.0)

    def _edge(self, end: float, best: float, limit: float) -> float:
        def over(exponent: float) -> float:
            return min(self._cost(exponent), 10 * limit) - limit

        return end if over(end) <= 0 or over(best) >= 0 else float(brentq(over, end, best, xtol=1e-12))

    def constants(self, level: float = CONSTANT_LEVEL) -> tuple[Constant, ...]:
        """a, f0 and c, each with the interval over its profile."""
        a, found, left = self._region(level)
        reach = np.sqrt(found.KK * left)
        low, high = (self._middle + np.log(np.maximum(K, 1e-12)) / a for K in (found.K - reach, found.K + reach))
        c_low, c_high = found.c - np.sqrt(found.cc * left), found.c + np.sqrt(found.cc * left)
        return (
            Constant("exponent", self.law.exponent, float(a.min()), float(a.max())),
            Constant("scale_flops", self.law.scale_flops, _exp(low.min()), _exp(high.max())),
            Constant("irreducible", self.law.irreducible, max(0.0, float(c_low.min())), float(c_high.max())),
        )

    def law_at(self, exponent: float) -> PowerLaw:
        """The best law of that exponent: a walk along it goes through the valley of the three constants."""
        found = self._lines(np.array([exponent]))
        scale = _exp(self._middle + math.log(found.K[0]) / exponent)
        return PowerLaw(exponent, scale, float(found.c[0]), self.law.formula, self.law.unit)

    def expected(self, point: Point) -> float:
        """The loss at the point's compute."""
        return self.law.loss(flops_of(point))

    def interval(self, point: Point, level: float = PREDICTION_LEVEL) -> tuple[float, float]:
        """Where the loss of one run of that compute falls, its own noise included."""
        return self._between(flops_of(point), level, noise=1.0)

    def curve_interval(self, flops: float, level: float = PREDICTION_LEVEL) -> tuple[float, float]:
        """Where the law itself runs at that compute."""
        return self._between(flops, level, noise=0.0)

    def _between(self, flops: float, level: float, noise: float) -> tuple[float, float]:
        a, found, left = self._region(level)
        x = np.exp(-a * (math.log(flops) - self._middle))
        loss = found.K * x + found.c
        variance = found.KK * x * x + 2 * found.Kc * x + found.cc + noise * loss**2
        reach = np.sqrt(np.maximum(variance, 0) * left)
        return max(0.0, float((loss - reach).min())), float((loss + reach).max())

    def holds(self, law: PowerLaw, level: float = CONSTANT_LEVEL) -> bool:
        """Whether the three constants of another law lie together in the valley."""
        residuals = self._weights * (np.array([law.loss(flops_of(point)) for point in self.points]) / self._losses - 1)
        return bool(residuals @ residuals <= self._limit(level, 3 if self.irreducible is None else 2))


def _exp(value: float) -> float:
    return float(np.exp(min(value, 700.0)))


def flops_of(point: Point) -> float:
    """The point's compute; raises ValueError where it is missing."""
    if point.flops is None:
        raise ValueError("a law of compute needs FLOPs; give --flops, or --size for a published shape")
    return point.flops


def fit_power(
    points: Sequence[Point],
    formula: str = "cerebras",
    unit: str = NATS,
    irreducible: float | None = None,
    weights: Sequence[float] = (),
) -> PowerFit:
    """The law of least squared relative residuals; c is fitted unless it is given.

    weights: positive, one a residual, only their ratios count; none: all alike. With few runs a given c predicts
    better than a fitted one: each constant costs certainty (docs/laws.md).
    """
    enough(points, FEWEST_POINTS, "a power law")
    flops, losses = column(points, "flops"), column(points, "loss")
    if len(np.unique(flops)) < 3:
        raise ValueError("the runs have fewer than 3 different computes, so no law can be seen; train other sizes")
    if irreducible is not None and not 0 <= irreducible < losses.min():
        raise ValueError(f"an irreducible loss of {irreducible:g} must be 0 or more and below all losses")
    scale = math.sqrt(math.fsum(w * w for w in weights) / max(len(weights), 1))
    draft = PowerFit(
        tuple(points), PowerLaw(1.0, 1.0, 0.0, formula, unit), irreducible, tuple(w / scale for w in weights)
    )
    return replace(draft, law=draft.law_at(draft.best_exponent))
