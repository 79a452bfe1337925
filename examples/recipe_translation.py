"""English to German from the interface of Django and wagtail: python examples/recipe_translation.py runs/quickstart."""

import gettext
from collections.abc import Iterator
from pathlib import Path

from recipe import adapted, arguments, package_file

from cerebras_gpt.generate.beam import Beam
from cerebras_gpt.tasks.table import load_task
from cerebras_gpt.tasks.translation import Translation

CATALOGUES = {"Django": "conf/locale/de/LC_MESSAGES/django.mo", "wagtail": "admin/locale/de/LC_MESSAGES/django.mo"}
ASKED = ("Save changes", "This field is required.", "Page not found")


def pairs(file: Path) -> Iterator[dict[str, object]]:
    """Every message of one line with its translation."""
    with file.open("rb") as stream:
        catalogue = gettext.GNUTranslations(stream)
    for english, german in catalogue._catalog.items():  # type: ignore[attr-defined]
        if isinstance(english, str) and english.strip() and german.strip() and "\n" not in english + german:
            yield {"source": english, "target": german, "pair": "en-de"}


def main() -> None:
    """Tunes, and translates three messages."""
    given = arguments(__doc__, "runs/translation")
    rows = [row for package, tail in CATALOGUES.items() for row in pairs(package_file(package, tail))]
    lm = adapted(given, "translation", rows)
    task = load_task(given.out)
    assert isinstance(task, Translation)
    for english, german in zip(ASKED, task.translate(lm, ASKED, "en-de", Beam()), strict=True):
        print(f"{english} -> {german}")


if __name__ == "__main__":
    main()
