"""The law of a ladder: fitted to the means of repeated runs, it predicts one run that nobody has trained yet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from scipy.stats import norm as normal
from scipy.stats import t as student

from cerebras_gpt.plan.certainty import PREDICTION_LEVEL
from cerebras_gpt.plan.laws import PowerLaw
from cerebras_gpt.plan.points import BITS, Point
from cerebras_gpt.plan.power_law import PowerFit, fit_power
from cerebras_gpt.plan.rungs import FORMULA


@dataclass(frozen=True)
class Rung:
    """One size, trained once or with several seeds."""

    name: str
    d_model: int
    n_parameters: int
    n_tokens: int
    flops: float
    bits_per_byte: tuple[float, ...]
    """Held-out, of every seed."""

    @property
    def mean(self) -> float:
        """Bits per byte over all seeds."""
        return fmean(self.bits_per_byte)

    @property
    def point(self) -> Point:
        """What it says to a law."""
        return Point(self.n_parameters, self.n_tokens, self.mean, self.flops, self.name)


FEWEST_FITTED = 4
"""Rungs for a law of three constants that still says how well it fits."""


def run_noise(rungs: Sequence[Rung]) -> tuple[float, int]:
    """Relative standard deviation of one run about the mean of its rung, pooled, and its degrees of freedom."""
    squares = math.fsum((bits / rung.mean - 1) ** 2 for rung in rungs for bits in rung.bits_per_byte)
    freedom = sum(len(rung.bits_per_byte) - 1 for rung in rungs)
    return (math.sqrt(squares / freedom), freedom) if freedom else (0.0, 0)


def nearness(rungs: Sequence[Rung], flops: float | None) -> tuple[float, ...]:
    """The weight of every rung in a law that predicts at `flops`: 1 / ln of the ratio of the computes.

    A real curve bends away from any three constants in proportion to the distance in ln C, so a rung tells as much
    less as it lies further from what is predicted. Without a prediction all count alike.
    """
    return tuple(1 / abs(math.log(flops / rung.flops)) for rung in rungs) if flops is not None else ()


@dataclass(frozen=True)
class LadderLaw:
    """The law through the fitted rungs, and how far one run falls from it."""

    rungs: tuple[Rung, ...]
    predicted_flops: float | None = None
    """The compute that it is there to predict, above that of every rung; None: a law of all rungs alike."""

    @cached_property
    def fit(self) -> PowerFit:
        """The power law through the means, the rungs weighted by their `nearness`."""
        return self._through(self.rungs, self.predicted_flops)

    def _through(self, rungs: Sequence[Rung], flops: float | None) -> PowerFit:
        return fit_power([rung.point for rung in rungs], FORMULA, BITS, weights=nearness(rungs, flops))

    @property
    def law(self) -> PowerLaw:
        """Its constants."""
        return self.fit.law

    def interval(self, flops: float) -> tuple[float, float]:
        """Where one run of that compute falls in nine cases of ten.

        Three parts, added as squares. Where the law itself runs: the profile over its valley, with the scatter of the
        means about it or, if that came out smaller by luck, the scatter that the seeds make one expect. And the noise
        of a single run, measured between seeds; both by Student's quantiles of their own degrees of freedom. And how
        far the largest fitted rung lies from the law of the others, with the quantile of the normal distribution: a
        real curve that bends has missed there already.
        """
        fit, (noise, freedom) = self.fit, run_noise(self.rungs)
        loss = fit.law.loss(flops)
        low, high = fit.curve_interval(flops)
        if not freedom:
            return fit.interval(Point(None, None, loss, flops))
        expected = noise / math.sqrt(fmean(len(rung.bits_per_byte) for rung in self.rungs))
        widened = max(1.0, expected / fit.noise)
        own = float(student.ppf((1 + PREDICTION_LEVEL) / 2, freedom)) * noise * loss
        bent = float(normal.ppf((1 + PREDICTION_LEVEL) / 2)) * abs(self.bend) * loss
        below, above = widened * (loss - low), widened * (high - loss)
        return loss - math.hypot(below, own, bent), loss + math.hypot(above, own, bent)

    @property
    def bend(self) -> float:
        """How far the largest rung lies from the law of the others, relative; 0 if they are too few for a law."""
        *others, largest = self.rungs
        if len(others) < FEWEST_FITTED:
            return 0.0
        law = self._through(others, largest.flops if self.predicted_flops is not None else None).law
        return largest.mean / law.loss(largest.flops) - 1


@dataclass(frozen=True)
class Foretold:
    """What was written down before the last rung was trained."""

    d_model: int
    flops: float
    bits_per_byte: float
    low: float
    high: float
    """Ends of the 90 % interval."""
    noise: float
    """Relative standard deviation between seeds."""
    law: PowerLaw
    rungs: tuple[Rung, ...]


def foretell(rungs: Sequence[Rung], d_model: int, flops: float) -> Foretold:
    """The prediction for the next rung; raises ValueError when a rung diverged or the losses follow no law."""
    for rung in rungs:
        if not math.isfinite(rung.mean):
            raise ValueError(f"{rung.name} diverged, so there is no law; tune on this text and give --tuned")
    law = LadderLaw(tuple(rungs), flops)
    return Foretold(
        d_model, flops, law.law.loss(flops), *law.interval(flops), run_noise(rungs)[0], law.law, tuple(rungs)
    )


@dataclass(frozen=True)
class Climbed:
    """A ladder up to where it is: the prediction, and beside it what the last rung reached."""

    foretold: Foretold
    last: Rung
    twin: tuple[Rung, ...] = ()
    """The same sizes under SP, or none."""

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """All of them, the predicted one last."""
        return (*self.foretold.rungs, self.last)

    @property
    def error(self) -> float:
        """Relative: positive when the last rung came out worse than predicted."""
        return self.last.mean / self.foretold.bits_per_byte - 1

    @property
    def is_inside(self) -> bool:
        """Whether the last rung fell into its interval."""
        return self.foretold.low <= self.last.mean <= self.foretold.high


@dataclass(frozen=True)
class Compared:
    """A family beside its twin, as in the paper (Dey et al. 2023, figure 5): all relative."""

    difference: float
    """Mean over the rungs; negative when the family is better than its twin."""
    about_twin_law: float
    """Mean deviation of the family from the law of the twin."""
    spread: float
    """Standard deviation of the family's rungs about its own law."""
    twin_spread: float


def compared(rungs: Sequence[Rung], twin: Sequence[Rung]) -> Compared:
    """How the two differ; both laws are fitted to all rungs."""
    own, other = (LadderLaw(tuple(family)).fit for family in (rungs, twin))
    return Compared(
        fmean(a.mean / b.mean - 1 for a, b in zip(rungs, twin, strict=True)),
        fmean(rung.mean / other.law.loss(rung.flops) - 1 for rung in rungs),
        own.noise,
        other.noise,
    )
