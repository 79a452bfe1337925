"""A conversation as one text: the plain form, for models that were not taught another."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """One turn."""

    role: str
    """system, user or assistant."""
    content: str


class Transcript(Protocol):
    """How a model has learned to read conversations; a field of its checkpoint, in the plain form if it has none."""

    stop: tuple[str, ...]
    """Where the answer ends."""

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text whose continuation is the answer."""


class PlainTranscript:
    r"""Speakers by name, a blank line between turns; the system's words stand first as they are.

    >>> PlainTranscript().prompt([Message("system", "Be brief."), Message("user", "Hi")])
    'Be brief.\n\nUser: Hi\n\nAssistant:'
    """

    stop = ("\n\nUser:",)
    _names: tuple[tuple[str, str], ...] = (("system", ""), ("user", "User: "), ("assistant", "Assistant: "))

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text whose continuation is the answer."""
        names = dict(self._names)
        return "".join(f"{names[role]}{content.strip()}\n\n" for role, content in messages) + "Assistant:"
