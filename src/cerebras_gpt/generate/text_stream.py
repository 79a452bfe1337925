"""Text out of a stream of bytes: no broken characters, and nothing of a stop string."""

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns bytes into text as early as possible and ends before the first stop string.

    The joined pieces depend on the joined bytes only, not on how they were cut: of several stop strings, the one
    that is complete first counts, and of those complete at the same character the longest.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        if isinstance(stop, str):
            raise ValueError(f"stop is the string {stop!r}; give a list of strings, such as [{stop!r}]")
        if not all(stop):
            raise ValueError("a stop string is empty; leave it out or give at least one character")
        self.stop = tuple(stop)
        self.is_stopped = False
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def push(self, data: bytes) -> str:
        """The text that is certain once these bytes have come."""
        self._take(self._decoder.decode(data))
        return self._release(self._n_undecided())

    def close(self) -> str:
        """The rest: what was held back, and U+FFFD for a character that never became complete."""
        self._take(self._decoder.decode(b"", final=True))
        return self._release(0)

    def _take(self, text: str) -> None:
        if self.is_stopped:
            return
        self._held += text
        starts = [(self._held.find(stop), stop) for stop in self.stop]
        found = [(start + len(stop), start) for start, stop in starts if start >= 0]
        if found:
            self.is_stopped = True
            self._held = self._held[: min(found)[1]]

    def _n_undecided(self) -> int:
        """Length of the longest end of the held text that a stop string could begin with."""
        if self.is_stopped:
            return 0
        longest = min(len(self._held), max(map(len, self.stop), default=1) - 1)
        return next((n for n in range(longest, 0, -1) if self._could_stop(self._held[-n:])), 0)

    def _could_stop(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self.stop)

    def _release(self, n_held: int) -> str:
        cut = len(self._held) - n_held
        text, self._held = self._held[:cut], self._held[cut:]
        return text
