"""A fitted sum of falling powers: its noise, its thousand resampled fits, and intervals from both."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from cerebras_gpt.plan.bootstrap import interval, leverages, resampled, scatter
from cerebras_gpt.plan.certainty import Constant
from cerebras_gpt.plan.power_terms import HUBER, fit_huber, log_loss, refits, shares, slopes

Array = NDArray[np.float64]

EFFICIENT = 1.345
"""In standard deviations of the noise: a Huber fit that is linear only beyond this is 95 % efficient (Huber 1981)."""
TO_DEVIATION = 1.4826
"""From the median absolute residual to the standard deviation of a normal."""
LEAST_START = 0.1
"""Of the mean loss: where a refit begins with the constant term if the fit has none."""
LARGEST_LOG = 700.0
"""Beyond it a number has no float."""


@dataclass(frozen=True)
class TermsFit:
    """Constants around the middle of the logs, with what they were fitted to."""

    logs: Array
    """Log of every quantity at every point: (J, n)."""
    log_losses: Array
    """(n,)"""
    best: Array
    """(p,)"""
    huber: float
    """Log-losses further off than this weighed linearly."""

    @cached_property
    def middle(self) -> Array:
        """(J, 1)"""
        return self.logs.mean(axis=1, keepdims=True)

    @property
    def freedom(self) -> int:
        """Points less constants."""
        return len(self.log_losses) - len(self.best)

    @cached_property
    def residuals(self) -> Array:
        """(n,)"""
        return self.log_losses - log_loss(self.best, self.logs - self.middle)

    @property
    def noise(self) -> float:
        """Relative standard deviation of a run about the law."""
        return scatter(self.residuals, self.freedom)

    @cached_property
    def cloud(self) -> Array:
        """The constants of a thousand fits to resampled noise: (R, p)."""
        x = self.logs - self.middle
        value, share = shares(self.best, x)
        targets = value + resampled(self.residuals, leverages(slopes(share, x).T))
        start = self.best.copy()
        start[0] = max(start[0], math.log(LEAST_START) + self.log_losses.mean())  # from 0 the constant term cannot move
        found = refits(np.tile(start, (len(targets), 1)), x, targets, self.huber)
        return self.best + self._correction * (found - self.best)

    @property
    def _correction(self) -> float:
        """Huber's correction of standard errors for few points: 1 + p / n of the odds of a residual being cut."""
        kept = float((np.abs(self.residuals) <= self.huber).mean())
        return 1 + len(self.best) / len(self.log_losses) * (1 - kept) / max(kept, 0.5)

    def plain(self, constants: Array) -> list[Array]:
        """E, A1..., a1... as they stand in the law, sizes as logs: (..., p) -> p times (...)."""
        J = len(self.logs)
        e, sizes, exponents = constants[..., 0], constants[..., 1 : J + 1], constants[..., J + 1 :]
        moved = sizes + exponents * self.middle[:, 0]
        return [e, *np.moveaxis(moved, -1, 0), *np.moveaxis(exponents, -1, 0)]

    def constant(self, name: str, value: float, cloud: Array, level: float) -> Constant:
        """One constant with its interval."""
        return Constant(name, value, *interval(value, cloud, level, self.freedom))

    def irreducible(self, name: str, level: float) -> Constant:
        """The constant term with its interval, which may begin at 0."""
        value = math.exp(self.best[0])
        low, high = interval(value, np.exp(self.cloud[:, 0]), level, self.freedom)
        return Constant(name, value, max(0.0, low), high)

    def positive(self, name: str, log_value: float, cloud: Array, level: float) -> Constant:
        """One constant with its interval, from logs."""
        logs = (log_value, *interval(log_value, cloud, level, self.freedom))
        return Constant(name, *(math.exp(min(log, LARGEST_LOG)) for log in logs))

    def between(self, logs: Array, level: float) -> tuple[float, float]:
        """Where the loss of one run falls, its own noise included: (J,) -> low, high."""
        x = logs[:, None] - self.middle
        expected = float(log_loss(self.best, x)[0])
        spread = math.hypot(float((log_loss(self.cloud, x)[:, 0] - expected).std()), self.noise)
        reach = float(student.ppf((1 + level) / 2, self.freedom)) * spread
        return math.exp(expected - reach), math.exp(min(expected + reach, LARGEST_LOG))


def fit_terms(logs: Array, losses: Array) -> TermsFit:
    """The sum of least Huber loss: (J, n), (n,).

    Residuals weigh linearly beyond Hoffmann's 1e-3, or beyond 1.345 standard deviations where the noise is larger:
    there 1e-3 would be least absolute deviations, which throws away a third of what the runs tell.
    """
    x = logs - logs.mean(axis=1, keepdims=True)
    first = TermsFit(logs, np.log(losses), fit_huber(x, losses), HUBER)
    # A fit this close to least absolute deviations passes through as many points as it has constants: look at the rest.
    largest = np.sort(np.abs(first.residuals))[-first.freedom :]
    huber = EFFICIENT * TO_DEVIATION * float(np.median(largest))
    return first if huber <= HUBER else TermsFit(logs, np.log(losses), fit_huber(x, losses, huber), huber)
