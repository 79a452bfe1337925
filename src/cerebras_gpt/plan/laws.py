"""Scaling laws: the loss to expect from compute, or from parameters and tokens."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from cerebras_gpt import config


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

    def flops(self, loss: float) -> float:
        """The training compute that reaches a loss; raises ValueError for a loss that none reaches."""
        if not loss > self.irreducible:
            raise ValueError(f"no compute reaches a loss of {loss:g}; this law ends at {self.irreducible:g}")
        return self.scale_flops * (loss - self.irreducible) ** (-1 / self.exponent)


PUBLISHED_SP = PowerLaw(exponent=0.0737, scale_flops=5.984e22, irreducible=0.5066, formula="cerebras")
"""The published law of the standard family: test loss on the Pile per GPT-2 token, fitted from 111M to 6.7B."""


class Optimum(NamedTuple):
    """The best split of a budget."""

    n_parameters: float
    n_tokens: float


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

    def optimum(self, flops: float) -> Optimum:
        """Parameters and tokens of least loss for so much compute, counted as 6 N D (Hoffmann et al., equation 4)."""
        powers = self.alpha + self.beta
        balance = (self.alpha * self.A / (self.beta * self.B)) ** (1 / powers)
        n = balance * (flops / 6) ** (self.beta / powers)
        return Optimum(n, flops / 6 / n)

    def tokens(self, loss: float, n_parameters: float) -> float:
        """The tokens on which so many parameters reach a loss; infinite for a loss that they never reach."""
        left = loss - self.E - self.A / n_parameters**self.alpha
        return (self.B / left) ** (1 / self.beta) if left > 0 else math.inf


HOFFMANN = ParametricLaw(E=1.69, A=406.4, alpha=0.34, B=410.7, beta=0.28)
"""As printed by Hoffmann et al. 2022, approach 3; its rounded exponents bias it towards small models."""

EPOCH = ParametricLaw(E=1.8169, A=482.01, alpha=0.3478, B=2085.43, beta=0.3658)
"""Besiroglu et al. 2024: the same runs fitted to the end; about 20 tokens per parameter, as by other approaches."""

PARAMETRIC_LAWS = {"epoch": EPOCH, "hoffmann": HOFFMANN}
"""Published laws of parameters and tokens; nats per token of another tokenizer and text, so use them for sizes."""


def parametric_law(name: str) -> ParametricLaw:
    """A published law of parameters and tokens by its name."""
    if name not in PARAMETRIC_LAWS:
        raise ValueError(config.unknown("parametric law", name, PARAMETRIC_LAWS))
    return PARAMETRIC_LAWS[name]


def effective_tokens(n_tokens: float, n_unique: float) -> float:
    """What repeated text is worth in new tokens: u + u r (1 - exp(-(e - 1) / r)), r = 15.4, for e epochs of u tokens.

    Muennighoff et al. 2023, equation 5: up to about four epochs are nearly as good as new text.
    """
    repeats = max(0.0, n_tokens / n_unique - 1)
    unique = min(n_tokens, n_unique)
    return unique + unique * REPEAT_DECAY * (1 - math.exp(-repeats / REPEAT_DECAY))


REPEAT_DECAY = 15.39
"""R*_D of Muennighoff et al. 2023: how many repeats until their worth has fallen to 1/e."""
