"""The coordinate check's verdict: with which power of the width or depth each activation grows, and whether it may."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from cerebras_gpt.train.activations import QUANTITIES
from cerebras_gpt.train.coordinates import Axis, Size

TOLERANCE = 0.15
"""A power this close to 0 counts as flat. The smallest power by which a wrong table is off is 1/2."""

LARGEST_ERROR = 0.15
"""Above this standard error of a power nothing is decided: 1/2 could no longer be told from 0."""

_WRITES = {"attention write": 1.0, "feed-forward write": 1.0}

MAY_SHRINK: dict[Axis, dict[str, float]] = {
    "width": {"logits": 0.5},
    "head": {"logits": 0.5, "attention logits": 0.5},
    "depth": {**_WRITES, "residual stream": 0.5},
}
"""By which power a quantity may shrink at the start: what is not yet aligned adds up like the root (microsoft/mup)."""

CHANGE_MAY_SHRINK: dict[Axis, dict[str, float]] = {"width": {}, "head": {}, "depth": _WRITES}
"""The same of the change by training: one branch of L may write 1/L, for what must be flat is their sum, the stream."""


class Slope(NamedTuple):
    """With which power one quantity goes along an axis, at one step."""

    axis: Axis
    quantity: str
    step: int
    """0: the size as initialised; later: the change since then."""
    power: float
    """Mean over the seeds of the log-log slope."""
    error: float
    """Its standard error over the seeds."""
    lowest: float
    highest: float

    @property
    def moment(self) -> str:
        """When, in words."""
        return "at the start" if self.step == 0 else f"after {self.step} steps"

    @property
    def margin(self) -> float:
        """What chance may add to the allowed range: two standard errors."""
        return 2 * self.error

    @property
    def inside(self) -> bool:
        """Whether chance alone may have moved the power out of its range, if it is out at all."""
        return self.lowest - self.margin <= self.power <= self.highest + self.margin

    @property
    def holds(self) -> bool:
        """Whether the power is in its range, and known well enough to say so."""
        return self.inside and self.error <= LARGEST_ERROR

    def __str__(self) -> str:
        what = f"the size of {self.quantity}" if self.step == 0 else f"the change of {self.quantity}"
        allowed = f"allowed {self.lowest:+.2f} to {self.highest:+.2f}"
        if not math.isfinite(self.power):
            return f"{what} {self.moment} is 0 or not finite at some {self.axis} ({allowed})"
        goes = f"{what} {'grows' if self.power > 0 else 'shrinks'} with {self.axis}^{self.power:.2f} {self.moment}"
        if self.inside and self.error > LARGEST_ERROR:
            return f"{goes}, known to +-{self.margin:.2f} only: give more seeds"
        return f"{goes} ({allowed})"


def power(xs: Sequence[float], means: Sequence[float]) -> float:
    """The slope of log means against log xs, NaN if one is not positive and finite.

    >>> round(power([64, 128, 256], [3.0, 6.0, 12.0]), 3)
    1.0
    """
    if not all(0 < mean < math.inf for mean in means):
        return math.nan
    return float(np.polyfit(np.log(xs), np.log(means), 1)[0])


def slopes(axis: Axis, measured: Iterable[Size], tolerance: float = TOLERANCE) -> list[Slope]:
    """One slope for every quantity and step, in the order of the quantities."""
    by_line: dict[tuple[str, int], dict[int, list[Size]]] = defaultdict(lambda: defaultdict(list))
    for size in measured:
        by_line[size.quantity, size.step][size.seed].append(size)
    found = []
    for quantity, step in sorted(by_line, key=lambda line: (QUANTITIES.index(line[0]), line[1])):
        lines = by_line[quantity, step].values()
        powers = [power([size.x for size in line], [size.mean for size in line]) for line in lines]
        if len(powers) < 2:
            raise ValueError("one seed has no standard error; give 2 seeds or more")
        error = float(np.std(powers, ddof=1)) / math.sqrt(len(powers))
        shrinks = (CHANGE_MAY_SHRINK if step else MAY_SHRINK)[axis].get(quantity, 0.0)
        found.append(Slope(axis, quantity, step, float(np.mean(powers)), error, -tolerance - shrinks, tolerance))
    return found


def judged(found: Sequence[Slope]) -> list[Slope]:
    """The slopes that a verdict is about: those at the start and after the last step."""
    last = max(slope.step for slope in found)
    return [slope for slope in found if slope.step in (0, last)]
