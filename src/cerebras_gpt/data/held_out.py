"""Which text is held out: by the hash of a document's id, or the tail of each of a few documents."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from cerebras_gpt.data.documents import Document

FEWEST_DOCUMENTS = 20
"""With fewer, whole documents are too coarse a unit, so the tail of each is held out."""
NEAR = 1000  # characters within which a line break is preferred for the cut

SplitName = Literal["train", "val"]


class Identified(Protocol):
    """What can be held out: anything with an id."""

    @property
    def id(self) -> str:
        """An id that does not depend on where the corpus lies."""


D = TypeVar("D", bound=Identified)
Cut = Callable[[D, float], Iterable[tuple[SplitName, D]]]
"""Gives the head of a document to train and its tail, of about that fraction, to val; neither if it is empty."""


class Division(NamedTuple, Generic[D]):
    """Documents with the split of each, and in words how they were chosen."""

    rule: str
    pairs: Iterator[tuple[SplitName, D]]


class Part(NamedTuple):
    """A text and the split that it belongs to."""

    split: SplitName
    text: str


class Splitting(NamedTuple):
    """The parts of a corpus, and in words how they were chosen."""

    rule: str
    parts: Iterator[Part]


def position(id: str) -> float:
    """Where an id falls in [0, 1), from its SHA-1 alone."""
    return int(hashlib.sha1(id.encode("utf-8", "surrogatepass")).hexdigest()[:8], 16) / 2**32


def is_held_out(id: str, fraction: float) -> bool:
    """True for about `fraction` of all ids, always the same ones."""
    return position(id) < fraction


def _tail_start(text: str, fraction: float) -> int:
    """Where the held-out tail begins: after the nearest line break if one is near."""
    exact = round(len(text) * (1 - fraction))
    near = min(NEAR, (len(text) - exact) // 2)
    before = text.rfind("\n", max(0, exact - near), exact) + 1
    after = text.find("\n", exact, exact + near) + 1
    breaks = [cut for cut in (before, after) if 0 < cut < len(text)]
    return min(breaks, key=lambda cut: abs(cut - exact), default=exact)


def _by_hash(documents: Iterable[D], fraction: float) -> Iterator[tuple[SplitName, D]]:
    """Each document whole; until one is held out, the one of the smallest hash waits, so that val is never empty."""
    waiting: D | None = None
    found = False
    for document in documents:
        if is_held_out(document.id, fraction):
            found = True
            yield "val", document
        elif found:
            yield "train", document
        elif waiting is None:
            waiting = document
        else:
            waiting, released = sorted((waiting, document), key=lambda candidate: position(candidate.id))
            yield "train", released
        if found and waiting is not None:
            yield "train", waiting
            waiting = None
    if waiting is not None:
        yield "val", waiting


def divided(documents: Iterable[D], fraction: float, cut: Cut[D]) -> Division[D]:
    """Divides a stream of documents into train and val; of a long stream only the first 20 documents are held.

    `cut` divides a document, for corpora of few.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"val fraction must be at least 0 and less than 1, not {fraction}")
    stream = iter(documents)
    if fraction == 0:
        return Division("nothing is held out", (("train", document) for document in stream))
    first = list(itertools.islice(stream, FEWEST_DOCUMENTS))
    if len(first) < FEWEST_DOCUMENTS:
        rule = f"the last {fraction:g} of each document, as there are fewer than {FEWEST_DOCUMENTS}"
        return Division(rule, (pair for document in first for pair in cut(document, fraction)))
    rule = f"documents with sha1(id)[:8 hex] / 2**32 < {fraction:g}, at least the one of the smallest hash"
    return Division(rule, _by_hash(itertools.chain(first, stream), fraction))


def _cut_text(document: Document, fraction: float) -> Iterator[tuple[SplitName, Document]]:
    start = _tail_start(document.text, fraction)
    if start:
        yield "train", document._replace(text=document.text[:start])
    if start < len(document.text):
        yield "val", document._replace(text=document.text[start:])


def split_documents(documents: Iterable[Document], fraction: float) -> Splitting:
    """The parts of a corpus of texts; a tail begins after a line break if one is near."""
    rule, pairs = divided(documents, fraction, _cut_text)
    return Splitting(rule, (Part(split, document.text) for split, document in pairs))
