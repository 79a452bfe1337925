"""What a run does about a step that would spoil it: a policy, which is a part of the plan."""

import math
from dataclasses import dataclass
from typing import Literal

Answer = Literal["go on", "skip", "rewind", "halt"]
"""go on: as if nothing were. skip: no update, the next batch takes the place of this one. rewind: back to an older
checkpoint, and on from there with later batches. halt: the run ends with an error."""

Span = tuple[int, int]
"""Batches, as the first and the one after the last."""


@dataclass(frozen=True)
class Guard:
    """What is a spoiled step, and what to do about it; by itself only what is no number stops a run.

    OLMo-core's SkipStepOptimizer skips a step whose loss is 6 standard deviations above the mean of the 128 before it;
    PaLM was taken back to about 100 steps before a spike, and 200 to 500 batches were left out (Chowdhery et al. 2022,
    section 5.1). Deviations here are around the median, which no spike moves.
    """

    not_finite: Answer = "halt"
    """When the loss, the gradient's norm, or what is to be saved is not finite; `go on` is not allowed."""
    spike: Answer = "go on"
    """When the loss is far above those before it."""
    deviations: float = 6.0
    """How far: robust standard deviations (1.4826 median absolute deviations) above the median."""
    window: int = 128
    """Losses that are looked back on; nothing is a spike before half as many are there."""
    rewind_steps: int = 100
    """Go back at least so many steps, where the two last regular checkpoints reach that far."""
    skip_batches: int = 200
    """After going back leave out at least so many batches, and all up to the spoiled one."""
    most: int = 20
    """How many times a run is helped, before it halts: a plan that needs more is no good."""
    skipped: tuple[Span, ...] = ()
    """Batches that are left out from the beginning."""

    def __post_init__(self) -> None:
        if self.not_finite == "go on":
            raise ValueError("guard.not_finite is 'go on', which no number allows; choose halt, skip or rewind")
        for name in ("window", "most"):
            if getattr(self, name) < 1:
                raise ValueError(f"guard.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("rewind_steps", "skip_batches"):
            if getattr(self, name) < 0:
                raise ValueError(f"guard.{name} is {getattr(self, name)}; it must not be negative")
        if not 0 < self.deviations < math.inf:
            raise ValueError(f"guard.deviations is {self.deviations}; it must be positive and finite")
        for first, end in self.skipped:
            if not 0 <= first < end:
                raise ValueError(f"guard.skipped holds [{first}, {end}]; give the first and the one after the last")

    @property
    def rewinds(self) -> bool:
        """Whether a run may be taken back, so that it needs checkpoints to go back to."""
        return "rewind" in (self.not_finite, self.spike)
