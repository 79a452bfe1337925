"""English to German and Chinese, from Django and wagtail: python examples/recipe_translation.py runs/quickstart."""

import gettext
from collections.abc import Iterator
from pathlib import Path

from recipe import adapted, arguments, package_file

from cerebras_gpt.generate.beam import Beam
from cerebras_gpt.tasks.table import load_task
from cerebras_gpt.tasks.translation import Translation
from cerebras_gpt.tasks.tuning_plan import Tuning

PACKAGES = {"Django": "django/__init__.py", "wagtail": "wagtail/__init__.py"}
LANGUAGES = {"en-de": "de", "en-zh": "zh_Hans"}
"""Pairs of one model, and the names of their second languages in the packages."""
FROM_AFAR = Tuning(epochs=20, rate=0.003)
"""The run has read neither language: more of it, and at half the rate of pretraining instead of a twentieth."""
ASKED = ("Save changes", "This field is required.", "Page not found")


def messages(file: Path) -> Iterator[tuple[str, str]]:
    """Every message of one line with its translation."""
    with file.open("rb") as stream:
        catalogue = gettext.GNUTranslations(stream)
    for english, other in catalogue._catalog.items():  # type: ignore[attr-defined]
        if isinstance(english, str) and english.strip() and other.strip() and "\n" not in english + other:
            yield english, other


def rows() -> Iterator[dict[str, object]]:
    """The messages of the packages in both languages, each once."""
    folders = [package_file(package, file).parent for package, file in PACKAGES.items()]
    for pair, language in LANGUAGES.items():
        files = [file for folder in folders for file in sorted(folder.glob(f"**/{language}/LC_MESSAGES/*.mo"))]
        for english, other in dict.fromkeys(found for file in files for found in messages(file)):
            yield {"source": english, "target": other, "pair": pair}


def main() -> None:
    """Tunes one model on both, and translates three messages."""
    given = arguments(__doc__, "runs/translation")
    lm = adapted(given, "translation", rows(), tuning=FROM_AFAR)
    task = load_task(given.out)
    assert isinstance(task, Translation)
    for pair in LANGUAGES:
        for english, other in zip(ASKED, task.translate(lm, ASKED, pair, Beam()), strict=True):
            print(f"{english} -> {other}")


if __name__ == "__main__":
    main()
