"""How far a fitted law can be trusted: its constants, the test on the largest run, and how far it reaches."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cerebras_gpt.plan.points import Point, compute, named

CONSTANT_LEVEL = 0.95
"""Of the intervals of constants."""
PREDICTION_LEVEL = 0.90
"""Of the intervals of predicted losses, the noise of a single run included."""
REACH = 1 / 3
"""Decades beyond the largest run per decade that was fitted; further is called too far. A rule of thumb: the paper's
13B lies 0.17 of its fitted decades beyond 6.7B."""
FEWEST_DECADES = 1.0
"""A fit over less supports no extrapolation at all."""


@dataclass(frozen=True)
class Constant:
    """One fitted constant with its interval."""

    name: str
    value: float
    low: float
    high: float


class Fit(Protocol):
    """A law with the points it came from."""

    @property
    def points(self) -> tuple[Point, ...]:
        """What it was fitted to."""

    @property
    def noise(self) -> float:
        """Relative standard deviation of a run about the law."""

    def constants(self, level: float = CONSTANT_LEVEL) -> tuple[Constant, ...]:
        """The constants with their intervals."""

    def expected(self, point: Point) -> float:
        """The loss that the law gives a run of that compute, or of those parameters and tokens."""

    def interval(self, point: Point, level: float = PREDICTION_LEVEL) -> tuple[float, float]:
        """Where the loss of one such run falls, its own noise included."""


class Verdict(NamedTuple):
    """A prediction of a run that was left out, beside what it reached."""

    name: str
    predicted: float
    low: float
    high: float
    measured: float

    @property
    def error(self) -> float:
        """Relative: positive when the run came out worse than predicted."""
        return self.measured / self.predicted - 1

    @property
    def is_inside(self) -> bool:
        """Whether the run fell into its interval."""
        return self.low <= self.measured <= self.high


def judged(fit: Fit, point: Point, name: str) -> Verdict:
    """What a fit says of a run that it has not seen."""
    return Verdict(name, fit.expected(point), *fit.interval(point), point.loss)


def leave_largest_out(fit: Callable[[Sequence[Point]], Fit], points: Sequence[Point]) -> Verdict:
    """The run of most compute, predicted from all others."""
    flops = compute(points)
    largest = int(flops.argmax())
    rest = [point for i, point in enumerate(points) if i != largest]
    return judged(fit(rest), points[largest], named(points)[largest])


def deviations(fit: Fit) -> list[float]:
    """How far each point lies above the law, relative."""
    return [point.loss / fit.expected(point) - 1 for point in fit.points]


class Reach(NamedTuple):
    """How far a prediction lies from the runs that it comes from."""

    ratio: float
    """Its compute over that of the largest run."""
    decades: float
    """Of compute, that the runs span."""

    @property
    def beyond(self) -> float:
        """Decades outside the runs, 0 among them; the smaller side counts like the larger."""
        return max(0.0, math.log10(self.ratio), -math.log10(self.ratio) - self.decades)

    @property
    def is_too_far(self) -> bool:
        """Whether the runs do not support it."""
        return self.beyond > (REACH * self.decades if self.decades >= FEWEST_DECADES else 0.0)

    def __str__(self) -> str:
        where = f"{self.ratio:.3g} times the compute of the largest run; the fit spans {self.decades:.1f} decades"
        if self.is_too_far:
            return f"extrapolates further than the data supports: {where}"
        return f"extrapolates, as far as the data supports: {where}" if self.beyond else f"inside the fit: {where}"


def reach(points: Sequence[Point], flops: float) -> Reach:
    """Where a compute lies beside that of the points."""
    known = compute(points)
    return Reach(flops / float(known.max()), math.log10(float(known.max() / known.min())))
