"""Sums of falling powers, E + A1 / x1^a1 + A2 / x2^a2 + ...: their robust fit, and a thousand refits at once.

The law of parameters and tokens has this form. Letters: J terms, n points, R fits at once, p = 1 + 2 J constants
(log E, log A1..., a1...) around the middle of every log x, where the size of a term and its slope hardly correlate.
"""

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls

Array = NDArray[np.float64]

HUBER = 1e-3
"""Log-losses further off than this weigh linearly (Hoffmann et al. 2022, appendix D.2)."""
EXPONENTS = (0.1, 0.2, 0.3, 0.5, 0.8)
"""Where the search begins, for every term."""
LARGEST_EXPONENT = 2.0
FINISHERS = 3
"""How many of the starts, the best after least squares, L-BFGS brings to their ends."""
ROUNDS = 60
"""Most steps of a refit; nearly all settle long before."""


def shares(constants: Array, x: Array) -> tuple[Array, Array]:
    """Log of the sum, and the share of every term in it: (..., p), (J, n) -> (..., n), (..., 1 + J, n)."""
    J = len(x)
    logs = np.repeat(constants[..., : J + 1, None], x.shape[1], axis=-1)  # (..., 1 + J, n)
    logs[..., 1:, :] -= constants[..., J + 1 :, None] * x
    highest = logs.max(axis=-2, keepdims=True)
    sizes = np.exp(logs - highest)
    total = sizes.sum(axis=-2, keepdims=True)
    return (np.log(total) + highest)[..., 0, :], sizes / total


def log_loss(constants: Array, x: Array) -> Array:
    """Log of the sum: (..., p), (J, n) -> (..., n)."""
    return shares(constants, x)[0]


def slopes(share: Array, x: Array) -> Array:
    """How the log of the sum moves with each constant: (..., 1 + J, n), (J, n) -> (..., p, n)."""
    return np.concatenate([share, -share[..., 1:, :] * x], axis=-2)


def fit_huber(x: Array, losses: Array, huber: float = HUBER) -> Array:
    """The constants of least Huber loss in log-loss, best of a grid of starts: (J, n), (n,) -> (p,)."""
    target = np.log(losses)
    exponents = itertools.product(EXPONENTS, repeat=len(x))
    starts = np.array([_start(np.array(e), x, losses) for e in exponents])  # (R, p)
    starts = refits(starts, x, np.broadcast_to(target, (len(starts), len(target))), huber)
    best = np.argsort(huber_loss(log_loss(starts, x) - target, huber), kind="stable")[:FINISHERS]
    bounds = [(None, None)] * (1 + len(x)) + [(0.0, LARGEST_EXPONENT)] * len(x)
    options = {"ftol": 1e-14, "gtol": 1e-10, "maxiter": 2000, "maxfun": 20000}
    fits = [
        minimize(_objective, start, (x, target, huber), "L-BFGS-B", jac=True, bounds=bounds, options=options)
        for start in starts[best]
    ]
    return min(fits, key=lambda fit: float(fit.fun)).x


def _start(exponents: Array, x: Array, losses: Array) -> Array:
    # At given exponents the law is linear in E and the A: begin at their non-negative least squares.
    columns = np.concatenate([np.ones((1, x.shape[1])), np.exp(-exponents[:, None] * x)]).T
    sizes, _ = nnls(columns, losses)
    return np.concatenate([np.log(np.maximum(sizes, 1e-3 * losses.mean())), exponents])


def _objective(constants: Array, x: Array, target: Array, huber: float) -> tuple[float, Array]:
    """The Huber loss in units of huber squared, which keeps the optimizer's tolerances meaningful, and its slope."""
    value, share = shares(constants, x)
    residual = (value - target) / huber
    return float(huber_loss(residual, 1.0)), slopes(share, x) @ np.clip(residual, -1.0, 1.0) / huber


def huber_loss(residual: Array, huber: float) -> Array:
    """Half the square up to huber, linear beyond, summed: (..., n) -> (...)."""
    size = np.abs(residual)
    return np.where(size <= huber, size**2 / 2, huber * (size - huber / 2)).sum(axis=-1)


def refits(starts: Array, x: Array, targets: Array, huber: float = HUBER) -> Array:
    """Fits to many sets of log-losses over the same points: (R, p), (J, n), (R, n) -> (R, p).

    Levenberg-Marquardt on all of them at once; the Huber loss is least squares whose weights follow the residuals.
    """
    constants, damping = starts.copy(), np.full(len(starts), 1e-3)
    value, share = shares(constants, x)
    cost = huber_loss(targets - value, huber)
    active = np.arange(len(starts))
    for _ in range(ROUNDS):
        tried = constants[active] + _step(share, x, (targets - value)[active], huber, damping[active])
        tried[:, 1 + len(x) :] = tried[:, 1 + len(x) :].clip(0.0, LARGEST_EXPONENT)
        new_value, new_share = shares(tried, x)
        new_cost = huber_loss(targets[active] - new_value, huber)
        better = new_cost <= cost[active]
        settled = better & (cost[active] - new_cost <= 1e-8 * new_cost)
        won = active[better]
        constants[won], value[won], cost[won] = tried[better], new_value[better], new_cost[better]
        share[better] = new_share[better]
        damping[active] = np.where(better, damping[active] / 5, damping[active] * 4).clip(1e-12, 1e8)
        going = ~settled & (damping[active] < 1e7)
        active, share = active[going], share[going]
        if not len(active):
            break
    return constants


def _step(share: Array, x: Array, residual: Array, huber: float, damping: Array) -> Array:
    """One damped Gauss-Newton step of weighted least squares: -> (R, p)."""
    weights = np.minimum(1.0, huber / np.maximum(np.abs(residual), 1e-300))  # (R, n)
    slope = slopes(share, x)  # (R, p, n)
    weighted = slope * weights[:, None, :]
    normal = weighted @ np.swapaxes(slope, 1, 2)  # (R, p, p)
    diagonal = np.einsum("rpp->rp", normal)
    normal = normal + np.eye(slope.shape[1]) * (damping[:, None] * diagonal + 1e-14)[:, None, :]
    return np.linalg.solve(normal, weighted @ residual[..., None])[..., 0]
