"""Accuracy against compute in two steps: compute to task loss by a power law, task loss to accuracy by a sigmoid.

As in Gadre et al. 2024 (section 3.3) and Dubey et al. 2024 (section 3.2.1): accuracies of small models lie near chance,
where they tell little of compute, but their task losses (bits per byte of the right answer) already fall.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from cerebras_gpt.plan.certainty import PREDICTION_LEVEL
from cerebras_gpt.plan.points import BITS, Point, enough
from cerebras_gpt.plan.power_law import FEWEST_POINTS, PowerFit, fit_power

Array = NDArray[np.float64]

RESAMPLES = 200
SEED = 0
STEEPEST = 100.0
"""Per bit per byte; beyond it a sigmoid is a step between two runs."""


class Result(NamedTuple):
    """One evaluated run."""

    flops: float
    task_loss: float
    """Bits per byte of the right answers."""
    accuracy: float
    stderr: float
    name: str = ""


class Sigmoid(NamedTuple):
    """accuracy = chance + (1 - chance) / (1 + exp(steepness (loss - middle)))."""

    chance: float
    steepness: float
    """Per bit per byte."""
    middle: float
    """Task loss at which accuracy is half way between chance and 1."""

    def accuracy(self, loss: Array) -> Array:
        """The accuracy at each task loss: (n,) -> (n,)."""
        return self.chance + (1 - self.chance) / (1 + np.exp(np.clip(self.steepness * (loss - self.middle), -50, 50)))


class Expected(NamedTuple):
    """A prediction with its 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class DownstreamFit:
    """Both steps, with the runs they came from."""

    results: tuple[Result, ...]
    losses: PowerFit
    sigmoid: Sigmoid
    cloud: tuple[Sigmoid, ...]
    """Sigmoids as they would have come out had the accuracies fallen otherwise inside their standard errors."""

    def task_loss(self, flops: float) -> Expected:
        """Bits per byte of the right answers that so much compute reaches."""
        point = Point(None, None, 1.0, flops)
        return Expected(self.losses.expected(point), *self.losses.interval(point))

    def accuracy(self, flops: float) -> Expected:
        """The accuracy at so much compute; the interval joins those of both steps."""
        loss = self.task_loss(flops)
        draw = np.random.default_rng(SEED)
        sides = [abs(loss.low - loss.value), abs(loss.high - loss.value)]
        steps = draw.standard_normal(len(self.cloud)) / NORMAL_90
        drawn = loss.value + np.where(steps < 0, steps * sides[0], steps * sides[1])  # (R,)
        cloud = np.array([one.accuracy(np.array([at]))[0] for one, at in zip(self.cloud, drawn, strict=True)])
        low, high = np.quantile(cloud, [(1 - PREDICTION_LEVEL) / 2, (1 + PREDICTION_LEVEL) / 2])
        return Expected(float(self.sigmoid.accuracy(np.array([loss.value]))[0]), float(low), float(high))


NORMAL_90 = 1.6449
"""Standard deviations from the middle to the end of a 90 % interval."""


def fit_sigmoid(losses: Array, accuracies: Array, errors: Array, chance: float, near: Sigmoid | None = None) -> Sigmoid:
    """The sigmoid of least squares in units of the standard errors: (n,), (n,), (n,); sought near another if given."""

    def misses(found: Array) -> Array:
        return (Sigmoid(chance, math.exp(found[0]), float(found[1])).accuracy(losses) - accuracies) / errors

    anywhere = [(math.log(k), float(m)) for k in (1.0, 4.0) for m in (losses.min() - 1, losses.mean())]
    starts = anywhere if near is None else [(math.log(near.steepness), near.middle)]
    bounds = ([math.log(1e-3), -20.0], [math.log(STEEPEST), 40.0])
    inside = [np.clip(start, np.add(bounds[0], 1e-6), np.subtract(bounds[1], 1e-6)) for start in starts]
    best = min((least_squares(misses, start, bounds=bounds) for start in inside), key=lambda found: float(found.cost))
    return Sigmoid(chance, math.exp(best.x[0]), float(best.x[1]))


def fit_downstream(results: Sequence[Result], chance: float, formula: str = "cerebras") -> DownstreamFit:
    """Both steps; raises ValueError for too few runs, or task losses that do not fall with compute."""
    enough(results, FEWEST_POINTS, "a downstream law")
    points = [Point(None, None, one.task_loss, one.flops, one.name) for one in results]
    losses = fit_power(points, formula, BITS, irreducible=None if len(results) > FEWEST_POINTS else 0.0)
    x = np.array([one.task_loss for one in results])
    y = np.array([one.accuracy for one in results])
    errors = np.maximum([one.stderr for one in results], 1e-4)
    best = fit_sigmoid(x, y, errors, chance)
    draw = np.random.default_rng(SEED)
    around = best.accuracy(x)
    noisy = around + errors * draw.standard_normal((RESAMPLES, len(x)))  # (R, n)
    cloud = [fit_sigmoid(x, values, errors, chance, near=best) for values in noisy]
    return DownstreamFit(tuple(results), losses, best, tuple(cloud))
