"""Pieces on their way from the engine's thread to the loop of events, together if they come fast."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar
from weakref import WeakKeyDictionary

from cerebras_gpt.generate.answer import NOTHING, Piece
from cerebras_gpt.serve.worker import Job

PACE_SECONDS, MORE_SECONDS = 0.01, 0.002
"""Between two events of a stream at least, and for each answer under way: events take 0.1 ms each from the engine."""


def pace(n_open: int) -> float:
    """Seconds from one event of a stream to the next, if so many answers are under way."""
    return PACE_SECONDS + MORE_SECONDS * n_open


class Bell:
    """Wakes a loop of events from other threads, once for all that is there by then: to be woken takes long."""

    bells: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, "Bell"]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._due, self._is_rung = loop, deque[asyncio.Event](), False

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> "Bell":
        """The one of this loop."""
        return cls.bells.setdefault(loop, cls(loop))

    def ring(self, event: asyncio.Event) -> None:
        """Has the loop set an event soon; called from any thread."""
        self._due.append(event)
        if not self._is_rung and not self._loop.is_closed():
            self._is_rung = True
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._is_rung = False  # before the look, so that what comes during it rings anew
        while self._due:
            self._due.popleft().set()


class Inbox:
    """What one reader waits for. After each look there is a rest of `pace()` seconds, which only a last piece ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pace: Callable[[], float]) -> None:
        self._loop, self._bell, self._pace = loop, Bell.of(loop), pace
        self._pieces, self._filled = deque[tuple[Job, Piece]](), asyncio.Event()
        self._rests = pace() == math.inf

    def put(self, job: Job, piece: Piece) -> None:
        """Called from the engine's thread."""
        self._pieces.append((job, piece))
        if piece.reason is not None or not self._rests:
            self._rests = True
            self._bell.ring(self._filled)

    async def take(self) -> list[tuple[Job, Piece]]:
        """What came since."""
        await self._filled.wait()
        self._filled.clear()
        found = [self._pieces.popleft() for _ in range(len(self._pieces))]
        if (seconds := self._pace()) < math.inf:
            self._loop.call_later(seconds, self._look)
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
