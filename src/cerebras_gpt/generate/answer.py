"""One answer as text: what follows a prompt, piece by piece, up to a stop string."""

from collections.abc import Sequence
from typing import NamedTuple

from cerebras_gpt.generate.request import Choice, Continuation
from cerebras_gpt.generate.text_stream import TextStream
from cerebras_gpt.text.tokenizer import Tokenizer

REASONS = {"end": "stop", "length": "length", "context": "length", "cancelled": "cancelled", "failed": "failed"}
"""What the ways to end are called outside."""


class Piece(NamedTuple):
    """Text that has become certain, and the tokens that were made since the piece before."""

    text: str
    choices: list[Choice]
    reason: str | None = None
    """Why it is the last piece: "stop", "length", "cancelled" or "failed"."""


NOTHING = Piece("", [])


class Answer:
    """Follows one continuation and tells its text."""

    def __init__(self, continuation: Continuation, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.continuation, self._tokenizer = continuation, tokenizer
        self._stream, self._told = TextStream(stop), 0

    def pull(self) -> Piece:
        """What came since the last call; a stop string ends the answer, whatever the continuation does."""
        new = self.continuation.choices[self._told :]
        self._told += len(new)
        text = self._stream.push(b"".join(self._tokenizer.decode_bytes([made.id]) for made in new))
        if self._stream.is_stopped:
            return Piece(text, new, "stop")
        if self.continuation.finish is None:
            return Piece(text, new)
        text += self._stream.close()
        return Piece(text, new, "stop" if self._stream.is_stopped else REASONS[self.continuation.finish])
