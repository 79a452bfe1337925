"""Pieces on their way from the engine's thread to the loop of events, together if they come fast."""

import asyncio
import math
from collections import deque
from collections.abc import Sequence

from cerebras_gpt.generate.answer import NOTHING, Piece
from cerebras_gpt.serve.worker import Job

PACE_SECONDS = 0.01
"""Between two events of a stream at least: each takes time from the engine, and nobody reads faster."""


class Inbox:
    """What one reader waits for. After each look there is a rest of `pace` seconds, which only a last piece ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pace: float) -> None:
        self._loop, self._pace = loop, pace
        self._pieces, self._filled = deque[tuple[Job, Piece]](), asyncio.Event()
        self._rests = pace == math.inf

    def put(self, job: Job, piece: Piece) -> None:
        """Called from the engine's thread."""
        self._pieces.append((job, piece))
        if (piece.reason is not None or not self._rests) and not self._loop.is_closed():
            self._rests = True
            self._loop.call_soon_threadsafe(self._filled.set)

    async def take(self) -> list[tuple[Job, Piece]]:
        """What came since."""
        await self._filled.wait()
        self._filled.clear()
        found = [self._pieces.popleft() for _ in range(len(self._pieces))]
        if self._pace < math.inf:
            self._loop.call_later(self._pace, self._look)
        return found

    def _look(self) -> None:
        """The rest is over: what has come meanwhile is told now, what comes next at once."""
        self._rests = False
        if self._pieces:
            self._rests = True
            self._filled.set()


def together(pieces: Sequence[tuple[Job, Piece]]) -> list[tuple[Job, Piece]]:
    """In one piece for each job."""
    found: dict[Job, Piece] = {}
    for job, piece in pieces:
        before = found.get(job, NOTHING)
        found[job] = Piece(before.text + piece.text, [*before.choices, *piece.choices], piece.reason)
    return list(found.items())
