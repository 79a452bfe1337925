"""The power law of compute when a run may have gone wrong: Huber loss in log-loss, intervals by resampling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cerebras_gpt.plan.certainty import CONSTANT_LEVEL, PREDICTION_LEVEL, Constant
from cerebras_gpt.plan.laws import PowerLaw
from cerebras_gpt.plan.points import NATS, Point, column, enough
from cerebras_gpt.plan.power_law import flops_of
from cerebras_gpt.plan.terms_fit import LARGEST_LOG, TermsFit, fit_terms

FEWEST_POINTS = 5
"""With four, one broken run cannot be told from the rest."""


@dataclass(frozen=True)
class RobustFit:
    """A power law with the points it came from."""

    points: tuple[Point, ...]
    law: PowerLaw
    terms: TermsFit

    @property
    def noise(self) -> float:
        """Relative standard deviation of a run about the law, broken ones included."""
        return self.terms.noise

    def constants(self, level: float = CONSTANT_LEVEL) -> tuple[Constant, ...]:
        """a, f0 and c, each with the interval of its resampled fits."""
        fit = self.terms
        (_, size, a), (_, sizes, exponents) = fit.plain(fit.best), fit.plain(fit.cloud)
        return (
            fit.constant("exponent", float(a), exponents, level),
            fit.positive("scale_flops", float(size / a), sizes / np.maximum(exponents, 1e-6), level),
            fit.irreducible("irreducible", level),
        )

    def expected(self, point: Point) -> float:
        """The loss at the point's compute."""
        return self.law.loss(flops_of(point))

    def interval(self, point: Point, level: float = PREDICTION_LEVEL) -> tuple[float, float]:
        """Where the loss of one run of that compute falls, its own noise included."""
        return self.terms.between(np.log([flops_of(point)]), level)


def fit_robust(points: Sequence[Point], formula: str = "cerebras", unit: str = NATS) -> RobustFit:
    """The power law of least Huber loss: a broken run pulls no harder than one that is off by 1.3 times the noise."""
    enough(points, FEWEST_POINTS, "a robust power law")
    flops = column(points, "flops")
    if len(np.unique(flops)) < 3:
        raise ValueError("the runs have fewer than 3 different computes, so no law can be seen; train other sizes")
    fit = fit_terms(np.log(flops)[None], column(points, "loss"))
    e, size, a = (float(value) for value in fit.plain(fit.best))
    if a <= 0:
        raise ValueError("the losses do not fall with compute as a power law does; look at the runs, or leave some")
    return RobustFit(tuple(points), PowerLaw(a, math.exp(min(size / a, LARGEST_LOG)), math.exp(e), formula, unit), fit)
