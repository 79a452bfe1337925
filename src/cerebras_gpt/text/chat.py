"""How a conversation is put into one text, and which of its turns the model still sees."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROLES = ("system", "user", "assistant")


class Message(NamedTuple):
    """One turn."""

    role: str
    """system, user or assistant."""
    content: str


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

    def window(self, messages: Sequence[Message], fits: Callable[[str], bool]) -> list[Message]:
        """System messages and as many of the last turns as fit; the newest is always there."""
        system = [message for message in messages if message.role == "system"]
        turns = [message for message in messages if message.role != "system"]
        while len(turns) > 1 and not fits(self.prompt([*system, *turns])):
            turns = turns[1:]
        return [*system, *turns]

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
