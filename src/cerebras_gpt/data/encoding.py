"""What a pack is made of: the ids of each document with its split, from text or as they are."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cerebras_gpt.data.held_out import Division, Part
from cerebras_gpt.data.token_documents import TokenDocument
from cerebras_gpt.text.tokenizer import Tokenizer, pieces

BATCH_CHARACTERS = 1 << 22  # encoded at once; bounds the memory whatever the length of a document


class _Piece(NamedTuple):
    split: str
    text: str
    is_first: bool
    """It starts a document."""


class Encoded(NamedTuple):
    """The ids of a document, or of a part of one."""

    split: str
    ids: list[int]
    n_bytes: int
    """Length of the text that the ids stand for."""
    is_first: bool
    """It starts a document."""


class Source(NamedTuple):
    """All that a pack is to hold."""

    held_out_rule: str
    batches: Iterator[list[Encoded]]


def _pieces(parts: Iterable[Part]) -> Iterator[_Piece]:
    for part in parts:
        for index, text in enumerate(pieces(part.text)):
            yield _Piece(part.split, text, index == 0)


def _batches(stream: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    batch: list[_Piece] = []
    n_characters = 0
    for piece in stream:
        batch.append(piece)
        n_characters += len(piece.text) + 1  # empty texts count too
        if n_characters >= BATCH_CHARACTERS:
            yield batch
            batch, n_characters = [], 0
    if batch:
        yield batch


def encoded(parts: Iterable[Part], tokenizer: Tokenizer) -> Iterator[list[Encoded]]:
    """The ids of texts, in batches that bound the memory whatever the length of a document."""
    for batch in _batches(_pieces(parts)):
        many = tokenizer.encode_batch([piece.text for piece in batch])
        yield [
            Encoded(piece.split, ids, len(piece.text.encode()), piece.is_first)
            for piece, ids in zip(batch, many, strict=True)
        ]


def as_they_are(division: Division[TokenDocument], tokenizer: Tokenizer) -> Iterator[list[Encoded]]:
    """The ids of documents that are ids already, one document a batch."""
    for split, document in division.pairs:
        ids = document.ids.tolist()
        yield [Encoded(split, ids, len(tokenizer.decode_bytes(ids)), is_first=True)]
