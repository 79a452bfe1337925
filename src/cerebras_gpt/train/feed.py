"""Batches on their way to the device."""

from collections.abc import Sequence
from typing import Protocol

from cerebras_gpt.data.batches import Batch


class Batches(Protocol):
    """A pure function from the step to the rows of its global batch."""

    def rows(self, step: int, rows: Sequence[int]) -> Batch:
        """The given rows of the batch of a step, counted from 0."""


class Feed:
    """Gives batches on the device; the next one of a GPU is read and copied while it still computes."""

    def __init__(self, batches: Batches, device: str) -> None:
        self.batches, self.device = batches, device
        self._next: tuple[int, Sequence[int], Batch] | None = None

    def take(self, step: int, rows: Sequence[int]) -> Batch:
        """The rows of the batch of a step, counted from 0."""
        ready, self._next = self._next, None
        if ready is not None and ready[:2] == (step, rows):
            return ready[2]
        return self._copied(self.batches.rows(step, rows))

    def prepare(self, step: int, rows: Sequence[int]) -> None:
        """Has a GPU take the batch of a step that will probably be asked for; a CPU has no time to spare meanwhile."""
        if self.device != "cpu":
            self._next = (step, rows, self._copied(self.batches.rows(step, rows)))

    def _copied(self, batch: Batch) -> Batch:
        if self.device == "cpu":
            return batch
        return Batch(*(tensor.pin_memory().to(self.device, non_blocking=True) for tensor in batch))
