"""The sentry of a run: judges every loss before its update, and knows which batches are left out."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Literal

import torch

from cerebras_gpt.distributed import World
from cerebras_gpt.plan.guard import Answer, Guard, Span

Cause = Literal["not finite", "spike"]

DEVIATION = 1.4826
"""Standard deviations of a normal distribution per median absolute deviation."""

LEAST_DEVIATION = 0.01
"""Of the median loss: where losses hardly vary, a little noise is no spike."""


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same batches as spans that are in order and do not touch.

    >>> merged([(5, 7), (1, 3), (2, 4), (7, 8)])
    ((1, 4), (5, 8))
    """
    found: list[Span] = []
    for first, end in sorted(spans):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((first, end))
    return tuple(found)


def batch_of(step: int, skipped: Sequence[Span]) -> int:
    """The batch of an update, both counted from 0: the step-th of those that are not skipped (spans as `merged`).

    >>> [batch_of(step, ((1, 3), (5, 6))) for step in range(5)]
    [0, 3, 4, 6, 7]
    """
    batch = step
    for first, end in skipped:
        if batch < first:
            break
        batch += end - first
    return batch


def threshold(losses: Sequence[float], deviations: float) -> float:
    """The loss above which there is a spike: so many robust standard deviations above the median."""
    middle = median(losses)
    deviation = DEVIATION * median(abs(loss - middle) for loss in losses)
    return middle + deviations * max(deviation, LEAST_DEVIATION * abs(middle))


class Sentry:
    """Applies a guard; its state is a part of every checkpoint, so that a resumed run decides alike."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.losses: deque[float] = deque(maxlen=guard.window)
        self.skipped = merged(guard.skipped)
        self.n_decisions = 0

    def cause(self, loss: float, norm: float, world: World, device: str) -> Cause | None:
        """What is wrong with a step, the same in every process: all of them must ask."""
        wrong = [float(not (math.isfinite(loss) and math.isfinite(norm))), float(self._is_spike(loss))]
        seen = torch.tensor(wrong, device=device)
        world.sum_([seen])
        not_finite, spike = seen.tolist()
        return "not finite" if not_finite else "spike" if spike else None

    def _is_spike(self, loss: float) -> bool:
        enough = 2 * len(self.losses) >= self.guard.window
        return self.guard.spike != "go on" and enough and loss > threshold(self.losses, self.guard.deviations)

    def answer(self, cause: Cause) -> Answer:
        """What to do about it; too many causes end the run."""
        if self.n_decisions >= self.guard.most:
            return "halt"
        return self.guard.not_finite if cause == "not finite" else self.guard.spike

    def skip(self, first: int, end: int) -> None:
        """Leaves out batches, once and for all."""
        self.skipped = merged([*self.skipped, (first, end)])
        self.n_decisions += 1

    def state(self) -> dict[str, object]:
        """All that it knows, as plain JSON."""
        return {"losses": list(self.losses), "skipped": self.skipped, "n_decisions": self.n_decisions}

    def take(self, state: Mapping[str, object]) -> None:
        """What `state` gave at an earlier time; nothing of it is in older checkpoints."""
        losses, spans = state.get("losses", ()), state.get("skipped", self.guard.skipped)
        assert isinstance(losses, list | tuple) and isinstance(spans, list | tuple)
        self.losses = deque(map(float, losses), maxlen=self.guard.window)
        self.skipped = merged((int(first), int(end)) for first, end in spans)
        self.n_decisions = int(str(state.get("n_decisions", 0)))
