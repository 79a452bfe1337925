"""How a conversation is put into one text, and which of its turns the model still sees."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROLES = ("system", "user", "assistant")
RECALLED_TURNS, OPENING_WORDS = 8, 12
"""Of the turns that left the window so many are recalled, by so many words: a text that stays short."""


class Message(NamedTuple):
    """One turn."""

    role: str
    """system, user or assistant."""
    content: str


Recall = Callable[[Sequence[Message]], str]
"""What is kept in words of turns that no longer fit; "" is nothing."""


def forget(messages: Sequence[Message]) -> str:
    """Nothing: turns that leave the window are gone."""
    return ""


def opening_words(messages: Sequence[Message]) -> str:
    """What the user's last turns began with, the oldest first: an extract, so nothing in it is made up.

    >>> opening_words([Message("user", "I am Ada."), Message("assistant", "Hello!"), Message("user", "I like bees.")])
    'Earlier the user said: I am Ada. / I like bees.'
    """
    turns = [message.content.split() for message in messages if message.role == "user"][-RECALLED_TURNS:]
    said = [" ".join(words[:OPENING_WORDS]) + ("..." if len(words) > OPENING_WORDS else "") for words in turns]
    return f"Earlier the user said: {' / '.join(said)}" if said else ""


@dataclass(frozen=True)
class ChatTemplate:
    """The words that begin a turn; each begins a line, and what looks like another turn inside one is indented."""

    system: str = "System:"
    user: str = "User:"
    assistant: str = "Assistant:"

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text before the assistant's next words, which begin with a space."""
        return "".join(f"{self._begin(role)} {self._safe(content)}\n" for role, content in messages) + self.assistant

    @property
    def stop(self) -> tuple[str, ...]:
        """What ends an answer if the model goes on alone."""
        return tuple(f"\n{begin}" for begin in (self.system, self.user, self.assistant))

    def window(
        self, messages: Sequence[Message], fits: Callable[[str], bool], recall: Recall = forget
    ) -> list[Message]:
        """System messages, what `recall` says of the turns that do not fit, and as many of the last turns as do.

        The newest is always there.
        """
        system = [message for message in messages if message.role == "system"]
        turns = [message for message in messages if message.role != "system"]
        for n_gone in range(len(turns)):
            words = recall(turns[:n_gone])
            seen = [*system, *([Message("system", words)] if words else []), *turns[n_gone:]]
            if fits(self.prompt(seen)):
                return seen
        return [*system, *turns[-1:]]

    def _begin(self, role: str) -> str:
        if role not in ROLES:
            raise ValueError(f"role {role!r} is not one of {', '.join(ROLES)}")
        return str(getattr(self, role))

    def _safe(self, content: str) -> str:
        """Content that cannot pass for another turn."""
        for mark in self.stop:
            content = content.replace(mark, f"\n {mark[1:]}")
        return content.strip()


def chat_template(checkpoint: Path) -> ChatTemplate:
    """The template that a checkpoint folder's model was tuned with, or the usual one."""
    file = checkpoint / "task.json"
    found = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return ChatTemplate(**found.get("chat", {}))
