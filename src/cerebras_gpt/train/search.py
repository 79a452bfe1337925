"""The search for learning rate, init std and embedding scale on a proxy: quasi-random points, each one trial."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy.stats import qmc

from cerebras_gpt import config
from cerebras_gpt.plan.families import PARAMETRIZATIONS, Base
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.trial import Outcome, Trial, Workers, outcomes

N_FINALISTS = 4
"""The best of all samples was also lucky, so this many of the best are repeated before one is chosen."""
N_REPEATS = 2
"""Further seeds for each finalist."""
FEWEST_FOR_A_FIT = 20
"""Twice the ten coefficients of a quadratic in three values."""
EDGE = 0.05
"""A point this near to the end of its range, as a part of it, makes one doubt the range."""


class Range(NamedTuple):
    """Values from low to high, spread evenly in their logarithm; a single value if both are equal."""

    low: float
    high: float

    def at(self, share: float) -> float:
        """The value that lies so far along the range: 0 is low, 1 is high."""
        return self.low * (self.high / self.low) ** share

    def share(self, value: float) -> float:
        """How far along the range a value lies."""
        return math.log(value / self.low) / math.log(self.high / self.low) if self.high > self.low else 0.5


# The published values 6e-3, 0.08 and 10 lie well inside (Dey et al. 2023, section 2.3).
PEAK_LR = Range(1e-3, 6e-2)
INIT_STD = Range(0.02, 0.32)
EMBEDDING_SCALE = Range(1.0, 32.0)


class Point(NamedTuple):
    """What is tuned."""

    peak_lr: float
    init_std: float
    embedding_scale: float

    def __str__(self) -> str:
        return " ".join(f"{axis}={value:.4g}" for axis, value in self._asdict().items())


@dataclass(frozen=True)
class Space:
    """Where to search."""

    peak_lr: Range = PEAK_LR
    init_std: Range = INIT_STD
    embedding_scale: Range = EMBEDDING_SCALE

    def __post_init__(self) -> None:
        for axis, (low, high) in self.axes().items():
            if not 0 < low <= high < math.inf:
                raise ValueError(
                    f"{axis} from {low:g} to {high:g} is no range; give positive LOW:HIGH with LOW <= HIGH"
                )

    def axes(self) -> dict[str, Range]:
        """The range of each value by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def points(self, n: int, seed: int) -> list[Point]:
        """The first n points of a scrambled Sobol sequence; more points begin with the same ones."""
        whole = qmc.Sobol(len(Point._fields), scramble=True, seed=seed).random_base2(math.ceil(math.log2(n)))
        ranges = self.axes().values()
        return [Point(*(range_.at(x) for range_, x in zip(ranges, row, strict=True))) for row in whole[:n].tolist()]

    def edges(self, point: Point) -> list[str]:
        """The axes on which a point lies at the end of its range."""
        shares = {axis: range_.share(getattr(point, axis)) for axis, range_ in self.axes().items()}
        return [axis for axis, share in shares.items() if min(share, 1 - share) < EDGE]


@dataclass(frozen=True)
class Proxy:
    """The small run whose values are tuned."""

    template: Plan
    """All but learning rate and parametrization."""
    parametrization: str = "mup"

    def __post_init__(self) -> None:
        if self.parametrization not in PARAMETRIZATIONS:
            raise ValueError(config.unknown("parametrization", self.parametrization, PARAMETRIZATIONS))

    def base(self, point: Point) -> Base:
        """What the parametrization carries from the proxy to other shapes."""
        shape = self.template.architecture
        return Base(shape.d_model, shape.n_layers, point.init_std, point.embedding_scale)

    def trial(self, point: Point, seed: int) -> Trial:
        """The proxy trained at a point."""
        name = f"{point} seed={seed}"
        parametrization = PARAMETRIZATIONS[self.parametrization](self.template.architecture, self.base(point))
        settings = {"name": name, "parametrization": parametrization, "peak_lr": point.peak_lr, "seed": seed}
        return Trial(name, replace(self.template, **settings))  # type: ignore[arg-type]


class Sample(NamedTuple):
    """A point and what became of it."""

    point: Point
    outcome: Outcome


class Finalist(NamedTuple):
    """One of the best points, with the held-out losses of all its seeds."""

    point: Point
    held_out: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over all seeds."""
        return fmean(self.held_out)


class Findings(NamedTuple):
    """What a search found."""

    samples: list[Sample]
    """In the order of the sequence."""
    finalists: list[Finalist]
    """Best first."""
    repeats: dict[str, Outcome]
    """Of the finalists, by the name of the trial."""

    @property
    def best(self) -> Finalist:
        """The point that is chosen."""
        return self.finalists[0]

    @property
    def noise(self) -> float:
        """Standard deviation of the held-out loss between seeds, pooled over the finalists."""
        squares = [(x - finalist.mean) ** 2 for finalist in self.finalists for x in finalist.held_out]
        freedom = len(squares) - len(self.finalists)
        return math.sqrt(sum(squares) / freedom) if freedom else 0.0


@dataclass(frozen=True)
class Search:
    """A search of a space on a proxy, on the text of a pack."""

    proxy: Proxy
    space: Space
    n_samples: int
    seed: int = 0
    """Of the sequence of points; the proxy's own seed is in its template."""

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(f"{self.n_samples} samples find nothing; give 1 or more, such as 40")

    def run(self, data: Path, record: Path, workers: Workers, execution: Execution) -> Findings:
        """Trains every sample, then the best of them with other seeds; goes on from the record.

        Raises ValueError if every sample diverged.
        """
        first_seed = self.proxy.template.seed
        points = self.space.points(self.n_samples, self.seed)
        trials = [self.proxy.trial(point, first_seed) for point in points]
        found = outcomes(trials, data, record, workers, execution, "samples")
        samples = [Sample(point, outcome) for point, outcome in zip(points, found, strict=True)]
        ranked = [s for s in sorted(samples, key=lambda s: s.outcome.held_out) if math.isfinite(s.outcome.held_out)]
        if not ranked:
            raise ValueError(f"all {self.n_samples} samples diverged; search lower learning rates")
        leaders = [sample.point for sample in ranked[:N_FINALISTS]]
        seeds = range(first_seed, first_seed + 1 + N_REPEATS)
        again = [self.proxy.trial(point, seed) for point in leaders for seed in seeds]
        repeated = outcomes(again, data, record, workers, execution, "finalists")
        losses = np.reshape([outcome.held_out for outcome in repeated], (len(leaders), len(seeds))).tolist()
        finalists = [Finalist(point, tuple(row)) for point, row in zip(leaders, losses, strict=True)]
        finalists.sort(key=lambda finalist: finalist.mean)
        return Findings(samples, finalists, {outcome.name: outcome for outcome in repeated})


def rises(samples: Sequence[Sample], best: Point) -> dict[str, float]:
    """Nats per token that a factor of two off the best costs on each axis; none if the samples are too few.

    Half the curvature of a quadratic in the logarithms, fitted by least squares to the better half of the samples.
    An axis that was not searched, or on which the fit bends down, is left out: there is no best to be off.
    """
    half = sorted(samples, key=lambda sample: sample.outcome.held_out)[: len(samples) // 2]
    losses = np.array([sample.outcome.held_out for sample in half])
    if len(half) < FEWEST_FOR_A_FIT or not np.isfinite(losses).all():
        return {}
    x = np.log2([sample.point for sample in half]) - np.log2(best)  # (N, 3) octaves
    pairs = [(i, j) for i in range(x.shape[1]) for j in range(i, x.shape[1])]
    terms = np.column_stack([np.ones(len(x)), x, *(x[:, i] * x[:, j] for i, j in pairs)])  # (N, 10)
    found = dict(zip(pairs, np.linalg.lstsq(terms, losses, rcond=None)[0][1 + x.shape[1] :].tolist(), strict=True))
    spread = np.ptp(x, axis=0)
    return {axis: found[i, i] for i, axis in enumerate(Point._fields) if spread[i] > 0 and found[i, i] > 0}
