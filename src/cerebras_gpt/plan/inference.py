"""Training against use: the size and tokens for which both together cost least, and where two models cost the same.

F_total = F_train + n f, with n tokens of inference at f = 2 N FLOPs each (Dey et al. 2023, section on trade-offs).
"""

import math
from typing import NamedTuple

from scipy.optimize import minimize_scalar

from cerebras_gpt.plan.laws import EPOCH, ParametricLaw, PowerLaw

SEARCHED_DECADES = 4
"""Of parameters, below and above the compute-optimal size."""


class Trade(NamedTuple):
    """A model that reaches a loss, and what it costs."""

    n_parameters: float
    n_tokens: float
    train_flops: float
    total_flops: float


class Cost(NamedTuple):
    """What one model takes to train, once, and to use, per token."""

    train_flops: float
    flops_per_token: float


def inference_flops(n_parameters: float) -> float:
    """FLOPs of one token of inference: a multiplication and an addition per parameter."""
    return 2.0 * n_parameters


def optimal_for_loss(loss: float, inference_tokens: float, law: ParametricLaw = EPOCH) -> Trade:
    """The size and tokens that reach a loss at least total FLOPs; training counts 6 N D."""
    _check(inference_tokens)
    if not loss > law.E:
        raise ValueError(f"no model reaches a loss of {loss:g}; this law ends at {law.E:g}")

    def total(log_n: float) -> float:
        n = math.exp(log_n)
        return math.log(6 * n * law.tokens(loss, n) + inference_flops(n) * inference_tokens)

    start = math.log(compute_optimal_for_loss(loss, law).n_parameters)
    smallest = math.log((law.A / (loss - law.E)) ** (1 / law.alpha))  # below it no number of tokens is enough
    reach = SEARCHED_DECADES * math.log(10)
    bounds = (max(smallest * (1 + 1e-12), start - reach), start + reach)
    found = minimize_scalar(total, bounds=bounds, method="bounded", options={"xatol": 1e-10})
    n = math.exp(found.x)
    d = law.tokens(loss, n)
    return Trade(n, d, 6 * n * d, 6 * n * d + inference_flops(n) * inference_tokens)


def optimal_for_budget(flops: float, inference_tokens: float, law: ParametricLaw = EPOCH) -> Trade:
    """The size and tokens that reach the loss of a compute-optimal run of that budget at least total FLOPs.

    Training then takes more than the budget, and training and inference together less than before.
    """
    if not 0 < flops < math.inf:
        raise ValueError(f"a budget of {flops:g} FLOPs is none; give a positive number such as 1e18")
    return optimal_for_loss(law.loss(*law.optimum(flops)), inference_tokens, law)


def compute_optimal_for_loss(loss: float, law: ParametricLaw) -> Trade:
    """The size and tokens that reach a loss at least training FLOPs, as if nobody used the model."""
    powers = law.alpha + law.beta
    # At the optimum alpha A / N^alpha = beta B / D^beta, so both terms are fixed shares of what is left above E.
    n = (law.A * powers / (law.beta * (loss - law.E))) ** (1 / law.alpha)
    d = (law.B * powers / (law.alpha * (loss - law.E))) ** (1 / law.beta)
    return Trade(n, d, 6 * n * d, 6 * n * d)


def equal_loss_cost(loss: float, law: PowerLaw, largest_parameters: float, largest_flops: float) -> Cost:
    """What the member of a compute-optimal family costs that reaches a loss, by the family's law.

    Its compute grows with the square of its size, from the largest member on: tokens are in proportion to parameters.
    """
    flops = law.flops(loss)
    return Cost(flops, inference_flops(largest_parameters * math.sqrt(flops / largest_flops)))


def crossover(ours: Cost, theirs: Cost) -> float:
    """Tokens of inference from which theirs costs less in total than ours; 0: from the start, infinite: never."""
    saved_in_training = theirs.train_flops - ours.train_flops
    lost_in_use = ours.flops_per_token - theirs.flops_per_token
    if lost_in_use <= 0:
        return math.inf if saved_in_training >= 0 else 0.0
    return max(0.0, saved_in_training / lost_in_use)


def _check(inference_tokens: float) -> None:
    if not 0 <= inference_tokens < math.inf:
        raise ValueError(f"{inference_tokens:g} tokens of inference cannot be; give 0 or more, such as 1e11")
