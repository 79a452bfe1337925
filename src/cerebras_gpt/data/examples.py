"""One question with its right answer: what tuning learns from, and what evaluation asks."""

from typing import NamedTuple


class Example(NamedTuple):
    """What a task is made of, in text."""

    prompt: str
    """What the model is given."""
    answer: str
    """What it should say."""
    choices: tuple[str, ...] = ()
    """All answers that it may choose from, the right one among them; empty where any text may be said."""
    gold: int | None = None
    """Place of the right answer among the choices."""
    name: str = ""
    """Where it comes from, such as dev.jsonl:12, to find it again."""
