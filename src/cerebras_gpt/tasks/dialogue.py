"""Dialogue: every answer of the assistant is an example, with the turns before it as its prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from cerebras_gpt.data.example_batches import prompt_ids
from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.tasks.answers import GREEDY, overlap
from cerebras_gpt.tasks.rows import Columns, Findings, Row, is_text, named_columns
from cerebras_gpt.tasks.task import Scores
from cerebras_gpt.text.chat import ROLES, ChatTemplate, Message, Recall, forget

MAX_TOKENS = 64


@dataclass(frozen=True)
class Dialogue:
    """Conversations."""

    chat: ChatTemplate = field(default_factory=ChatTemplate)

    columns: ClassVar[Columns] = {"messages": ("messages", "conversation", "conversations", "turns", "dialogue")}

    @classmethod
    def of(cls, rows: Sequence[Row], template: str) -> "Dialogue":
        """The task; the rows decide nothing, and the template of a chat is its own."""
        if template:
            raise ValueError("a dialogue has no --template; its turns begin with System:, User: and Assistant:")
        return cls()

    def conversations(self, rows: Sequence[Row], findings: Findings) -> Iterator[tuple[int, list[Message]]]:
        """Line and turns of each row; what is no conversation is refused."""
        name = named_columns(rows, self.columns)["messages"]
        for line, values in rows:
            try:
                yield line, list(messages_of(values.get(name)))
            except ValueError as error:
                findings.refuse(line, str(error))

    def examples(self, rows: Sequence[Row], findings: Findings) -> list[Example]:
        """One for each answer of the assistant."""
        found: list[Example] = []
        for line, messages in self.conversations(rows, findings):
            places = [i for i, message in enumerate(messages) if message.role == "assistant" and i > 0]
            if not places:
                findings.refuse(line, "no answer of the assistant")
            found += [
                Example(self.chat.prompt(messages[:i]), f" {messages[i].content}", name=f"line {line}") for i in places
            ]
        return found

    def score(self, lm: LM, examples: Sequence[Example]) -> Scores:
        """Word overlap with the answers that people gave; low by nature, as there are many good ones."""
        return overlap(lm, examples, MAX_TOKENS)

    def reply(
        self,
        lm: LM,
        messages: Sequence[Message],
        max_tokens: int = 64,
        sampling: Sampling = GREEDY,
        recall: Recall = forget,
    ) -> str:
        """The assistant's next turn; `recall` stands for the turns that no longer fit, the oldest first."""
        room = lm.model.architecture.seq_len - max_tokens
        if room < 1:
            raise ValueError(f"max_tokens is {max_tokens}; the window of {room + max_tokens} must also hold a prompt")
        seen = self.chat.window(messages, lambda text: len(prompt_ids(text, lm.tokenizer)) <= room, recall)
        return lm.generate(self.chat.prompt(seen), max_tokens, sampling, self.chat.stop, "slide").strip()


def messages_of(value: object) -> Iterator[Message]:
    """The turns of a conversation: objects with role and content, or plain texts by turns, the user first."""
    if not isinstance(value, list) or not value:
        raise ValueError("messages are no list")
    for place, turn in enumerate(value):
        role, content = (ROLES[1 + place % 2], turn) if isinstance(turn, str) else _role_and_content(turn)
        if role not in ROLES:
            raise ValueError(f"role {role!r} is not one of {', '.join(ROLES)}")
        if not is_text(content):
            raise ValueError("a message is no text, or not UTF-8")
        if not str(content).strip():
            raise ValueError("empty message")
        yield Message(str(role), str(content).strip())


def _role_and_content(turn: object) -> tuple[object, object]:
    if not isinstance(turn, dict):
        raise ValueError("a message is no object with role and content")
    role = turn.get("role", turn.get("from"))
    return {"human": "user", "gpt": "assistant"}.get(str(role), role), turn.get("content", turn.get("value"))
