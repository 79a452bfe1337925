"""The watch over the engines: how long each has stood still, and the end of the process if that is too long."""

import asyncio
import logging
import os
import time
from collections.abc import Sequence

from cerebras_gpt.errors import OURS
from cerebras_gpt.serve.limits import Limits
from cerebras_gpt.serve.worker import Worker

log = logging.getLogger("cerebras_gpt")
LOOK_SECONDS = 0.05
"""Between two looks at the engines."""
MOST_SECONDS = 0.15
"""What counts of the time between two looks: a process that was stopped, or starved of its cores, and goes on finds
every engine behind its time."""


class Watch:
    """Looks again and again whether each engine has moved since the last look."""

    def __init__(self, workers: Sequence[Worker], limits: Limits) -> None:
        self.limits, self._looked = limits, time.monotonic()
        self._beats = dict.fromkeys(workers, 0.0)
        self._still = dict.fromkeys(workers, 0.0)

    def is_red(self, worker: Worker) -> bool:
        """Whether an engine stands still, or its thread is gone."""
        return worker.is_gone or self._still[worker] >= self.limits.stalled_seconds

    async def keep(self) -> None:
        """Ends the process when an engine hangs, for whoever watches it to start another."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._look()
            for worker, seconds in self._still.items():
                if seconds >= self.limits.exit_seconds:
                    log.critical("the engine of %s has not moved for %g seconds", worker.name, seconds)
                    os._exit(OURS)

    def _look(self) -> None:
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, MOST_SECONDS), now
        for worker, before in self._beats.items():
            self._still[worker] = self._still[worker] + passed if worker.beat == before else 0.0
            self._beats[worker] = worker.beat
