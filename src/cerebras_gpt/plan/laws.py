"""Scaling laws: the loss to expect from compute, or from parameters and tokens, and how to fit it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls
from scipy.special import logsumexp, softmax
from scipy.stats import t as student

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaw:
    """L(C) = (C / f0)^-a + c along a compute-optimal family (Dey et al. 2023, equation 1)."""

    exponent: float
    """a"""
    scale_flops: float
    """f0"""
    irreducible: float
    """c, the loss that no compute removes."""
    formula: str
    """Which FLOP formula counts C; see `flops.FORMULAS`."""
    unit: str = "nats per token"

    def loss(self, flops: float) -> float:
        """The loss that so much training compute reaches."""
        return (flops / self.scale_flops) ** -self.exponent + self.irreducible


PUBLISHED_SP = PowerLaw(exponent=0.0737, scale_flops=5.984e22, irreducible=0.5066, formula="cerebras")
"""The published law of the standard family: test loss on the Pile per GPT-2 token, fitted from 111M to 6.7B."""


class Point(NamedTuple):
    """What one finished run says to a law."""

    n_parameters: float
    n_tokens: float
    loss: float


@dataclass(frozen=True)
class ParametricLaw:
    """L(N, D) = E + A / N^alpha + B / D^beta, in the unit of the losses it was fitted to (Hoffmann et al. 2022)."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    band: float = 0.0
    """Half width of the 90 % interval, relative: the loss lies between loss / (1 + band) and loss (1 + band)."""

    def loss(self, n_parameters: float, n_tokens: float) -> float:
        """The loss that so many parameters reach on so many tokens."""
        return self.E + self.A / n_parameters**self.alpha + self.B / n_tokens**self.beta

    def interval(self, n_parameters: float, n_tokens: float) -> tuple[float, float]:
        """Low and high end of the 90 % interval."""
        loss = self.loss(n_parameters, n_tokens)
        return loss / (1 + self.band), loss * (1 + self.band)

    @classmethod
    def fit(cls, points: Sequence[Point]) -> "ParametricLaw":
        """The law closest to the points: Huber loss of log-loss, best of a grid of starts (Hoffmann, approach 3).

        Points that all have one ratio of tokens to parameters fix the sum of the two terms but not their shares.
        """
        if len(points) <= N_CONSTANTS:
            raise ValueError(f"a law of {N_CONSTANTS} constants needs at least 6 runs, {len(points)} given; train more")
        values = np.array(points, dtype=np.float64)
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"parameters, tokens and losses must be finite and positive; given {points}")
        n, d, loss = np.log(values).T
        constants = _best(n - n.mean(), d - d.mean(), loss)
        e, a, b, alpha, beta = constants
        residuals = loss - _log_loss(constants, n - n.mean(), d - d.mean())
        freedom = len(points) - N_CONSTANTS
        spread = math.sqrt(float(residuals @ residuals) / freedom)
        # The terms were fitted around the mean of log N and log D, where their sizes and slopes hardly correlate.
        A, B = math.exp(a + alpha * n.mean()), math.exp(b + beta * d.mean())
        return cls(
            *(float(math.exp(e)), A, float(alpha), B, float(beta)),
            band=math.exp(float(student.ppf(0.95, freedom)) * spread) - 1,
        )


def effective_tokens(n_tokens: float, n_unique: float) -> float:
    """What repeated text is worth in new tokens: u + u r (1 - exp(-(e - 1) / r)), r = 15.4, for e epochs of u tokens.

    Muennighoff et al. 2023, equation 5: up to about four epochs are nearly as good as new text.
    """
    repeats = max(0.0, n_tokens / n_unique - 1)
    unique = min(n_tokens, n_unique)
    return unique + unique * REPEAT_DECAY * (1 - math.exp(-repeats / REPEAT_DECAY))


REPEAT_DECAY = 15.39
"""R*_D of Muennighoff et al. 2023: how many repeats until their worth has fallen to 1/e."""

N_CONSTANTS = 5
HUBER = 1e-3
"""Log-losses further off than this weigh linearly (Hoffmann et al. 2022, appendix D.2)."""
STARTS = [(alpha, beta) for alpha in (0.1, 0.3, 0.5, 0.8) for beta in (0.1, 0.3, 0.5, 0.8)]


def _best(n: Array, d: Array, loss: Array) -> Array:
    bounds = [(None, None)] * 3 + [(0.0, 2.0)] * 2
    options = {"ftol": 1e-14, "gtol": 1e-10, "maxiter": 2000, "maxfun": 20000}
    fits = [
        minimize(_huber, start, (n, d, loss), "L-BFGS-B", jac=True, bounds=bounds, options=options)
        for start in (_start(alpha, beta, n, d, loss) for alpha, beta in STARTS)
    ]
    return min(fits, key=lambda fit: float(fit.fun)).x


def _start(alpha: float, beta: float, n: Array, d: Array, loss: Array) -> Array:
    # At given exponents the law is linear in E, A and B: begin at their non-negative least squares.
    terms = np.stack([np.ones_like(n), np.exp(-alpha * n), np.exp(-beta * d)], axis=1)
    sizes, _ = nnls(terms, np.exp(loss))
    return np.array([*np.log(np.maximum(sizes, 1e-3 * np.exp(loss).mean())), alpha, beta])


def _terms(constants: Array, n: Array, d: Array) -> Array:
    e, a, b, alpha, beta = constants
    return np.stack([np.full_like(n, e), a - alpha * n, b - beta * d])


def _log_loss(constants: Array, n: Array, d: Array) -> Array:
    return logsumexp(_terms(constants, n, d), axis=0)


def _huber(constants: Array, n: Array, d: Array, loss: Array) -> tuple[float, Array]:
    """The Huber loss in units of HUBER squared, which keeps the optimizer's tolerances meaningful, and its slope."""
    terms = _terms(constants, n, d)
    residual = (logsumexp(terms, axis=0) - loss) / HUBER
    slope = np.clip(residual, -1.0, 1.0) / HUBER
    value = np.where(np.abs(residual) <= 1, residual**2 / 2, np.abs(residual) - 0.5).sum()
    by_term = softmax(terms, axis=0) * slope
    gradient = [*by_term.sum(axis=1), -(by_term[1] @ n), -(by_term[2] @ d)]
    return float(value), np.array(gradient)
