"""Which text is held out: by the hash of a document's id, or the tail of each of a few documents."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from cerebras_gpt.data.documents import Document

FEWEST_DOCUMENTS = 20
"""With fewer, whole documents are too coarse a unit, so the tail of each is held out."""
NEAR = 1000  # characters within which a line break is preferred for the cut

SplitName = Literal["train", "val"]


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


def _tails(documents: Iterable[Document], fraction: float) -> Iterator[Part]:
    for document in documents:
        cut = _tail_start(document.text, fraction)
        yield Part("train", document.text[:cut])
        yield Part("val", document.text[cut:])


def _by_hash(documents: Iterable[Document], fraction: float) -> Iterator[Part]:
    """Each document whole; until one is held out, the one of the smallest hash waits, so that val is never empty."""
    waiting: Document | None = None
    found = False
    for document in documents:
        if is_held_out(document.id, fraction):
            found = True
            yield Part("val", document.text)
        elif found:
            yield Part("train", document.text)
        elif waiting is None:
            waiting = document
        else:
            waiting, released = sorted((waiting, document), key=lambda candidate: position(candidate.id))
            yield Part("train", released.text)
        if found and waiting is not None:
            yield Part("train", waiting.text)
            waiting = None
    if waiting is not None:
        yield Part("val", waiting.text)


def split_documents(documents: Iterable[Document], fraction: float) -> Splitting:
    """Divides a stream of documents into train and val; of a long stream only the first 20 documents are held."""
    if not 0 <= fraction < 1:
        raise ValueError(f"val fraction must be at least 0 and less than 1, not {fraction}")
    stream = iter(documents)
    if fraction == 0:
        return Splitting("nothing is held out", (Part("train", document.text) for document in stream))
    first = list(itertools.islice(stream, FEWEST_DOCUMENTS))
    if len(first) < FEWEST_DOCUMENTS:
        rule = f"the last {fraction:g} of each document, as there are fewer than {FEWEST_DOCUMENTS}"
        return Splitting(rule, (part for part in _tails(first, fraction) if part.text))
    rule = f"documents with sha1(id)[:8 hex] / 2**32 < {fraction:g}, at least the one of the smallest hash"
    return Splitting(rule, _by_hash(itertools.chain(first, stream), fraction))
