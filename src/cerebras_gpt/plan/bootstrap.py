"""Resampled residuals: how a fit would have come out had the noise fallen otherwise.

Residuals are drawn, not points: designs are small and planned, and a resample that loses the only large run, or all but
one token ratio, is no experiment that anybody would have made. Two corrections make intervals cover what they state
with few points: each residual is widened by 1 / sqrt(1 - h), where its leverage h is how far the fit bent towards it,
and every distance from the estimate by the ratio of Student's to the normal quantile.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

Array = NDArray[np.float64]

RESAMPLES = 1000
SEED = 0
LEAST_ROOM = 0.05
"""Of 1 - h: a point that the fit passes through whatever it says tells nothing of the noise."""


def resampled(residuals: Array, leverages: Array, n_resamples: int = RESAMPLES) -> Array:
    """Draws of as many widened residuals: (n,), (n,) -> (R, n)."""
    widened = residuals / np.sqrt(np.maximum(1 - leverages, LEAST_ROOM))
    return np.random.default_rng(SEED).choice(widened - widened.mean(), (n_resamples, len(residuals)))


def leverages(design: Array) -> Array:
    """How far least squares bends towards each point: (n, p) -> (n,)."""
    basis = np.linalg.svd(design, full_matrices=False)[0]
    return (basis * basis).sum(axis=1)


def interval(estimate: float, cloud: Array, level: float, freedom: int) -> tuple[float, float]:
    """Quantiles of the cloud, moved away from the estimate as so few degrees of freedom ask: (R,) -> low, high."""
    low, high = (float(end) for end in np.quantile(cloud, [(1 - level) / 2, (1 + level) / 2]))
    wider = float(student.ppf((1 + level) / 2, freedom) / norm.ppf((1 + level) / 2))
    return estimate - wider * max(0.0, estimate - low), estimate + wider * max(0.0, high - estimate)


def scatter(residuals: Array, freedom: int) -> float:
    """Standard deviation of the noise that left such residuals."""
    return float(np.sqrt(residuals @ residuals / freedom))
