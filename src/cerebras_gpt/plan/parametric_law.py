"""Fits L(N, D) = E + A / N^alpha + B / D^beta to runs, by Huber loss in log-loss (Hoffmann et al. 2022, approach 3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from cerebras_gpt.plan.certainty import CONSTANT_LEVEL, PREDICTION_LEVEL, Constant
from cerebras_gpt.plan.laws import ParametricLaw
from cerebras_gpt.plan.points import NATS, Point, column, enough
from cerebras_gpt.plan.terms_fit import TermsFit, fit_terms

FEWEST_POINTS = 6
"""One more than there are constants."""


@dataclass(frozen=True)
class ParametricFit:
    """A parametric law with the points it came from."""

    points: tuple[Point, ...]
    law: ParametricLaw
    terms: TermsFit
    unit: str = NATS

    @property
    def noise(self) -> float:
        """Relative standard deviation of a run about the law."""
        return self.terms.noise

    def constants(self, level: float = CONSTANT_LEVEL) -> tuple[Constant, ...]:
        """E, A, alpha, B, beta, and beta / (alpha + beta), the power of compute by which the best size grows."""
        fit = self.terms
        _, a, b, alpha, beta = (float(value) for value in fit.plain(fit.best))
        _, sizes_a, sizes_b, alphas, betas = fit.plain(fit.cloud)
        return (
            fit.irreducible("E", level),
            fit.positive("A", a, sizes_a, level),
            fit.constant("alpha", alpha, alphas, level),
            fit.positive("B", b, sizes_b, level),
            fit.constant("beta", beta, betas, level),
            fit.constant("growth", beta / (alpha + beta), betas / (alphas + betas), level),
        )

    def expected(self, point: Point) -> float:
        """The loss at the point's parameters and tokens."""
        return self.law.loss(*sizes(point))

    def interval(self, point: Point, level: float = PREDICTION_LEVEL) -> tuple[float, float]:
        """Where the loss of one such run falls, its own noise included."""
        return self.terms.between(np.log(sizes(point)), level)


def sizes(point: Point) -> tuple[float, float]:
    """Parameters and tokens of a point; raises ValueError where one is missing."""
    if point.n_parameters is None or point.n_tokens is None:
        raise ValueError("a law of parameters and tokens needs both; give --parameters and --tokens, or --flops")
    return point.n_parameters, point.n_tokens


def fit_parametric(points: Sequence[Point], unit: str = NATS) -> ParametricFit:
    """The law of least Huber loss, best of a grid of starts.

    Points that all have one ratio of tokens to parameters fix the sum of the two terms but not their shares.
    """
    enough(points, FEWEST_POINTS, "a law of 5 constants")
    logs = np.log([column(points, "n_parameters"), column(points, "n_tokens")])
    fit = fit_terms(logs, column(points, "loss"))
    if not (logs.std(axis=1) > 0).all():
        raise ValueError("all runs have the same parameters, or all the same tokens; vary both to fit a law of both")
    e, a, b, alpha, beta = (float(value) for value in fit.plain(fit.best))
    band = math.exp(float(student.ppf(0.95, fit.freedom)) * fit.noise) - 1
    law = ParametricLaw(math.exp(e), math.exp(a), alpha, math.exp(b), beta, band)
    return ParametricFit(tuple(points), law, fit, unit)
