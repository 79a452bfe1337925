"""Documents that are token ids already: divided at each end of text, and into train and val."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from cerebras_gpt.data.held_out import Division, SplitName, divided
from cerebras_gpt.text.tokenizer import Tokenizer


class TokenDocument(NamedTuple):
    """The ids of a document without its end of text, with an id that does not depend on where its corpus lies."""

    id: str
    ids: np.ndarray
    """(n_tokens,)."""


def token_documents(sequences: Iterable[np.ndarray], name: str, tokenizer: Tokenizer) -> Iterator[TokenDocument]:
    """The documents of sequences of ids, divided at each end of text.

    So the documents, each with one end of text after it, are again the sequences; one that does not end with an end of
    text gains it. Raises ValueError naming an id that the tokenizer does not have.
    """
    for number, ids in enumerate(sequences):
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < tokenizer.vocab_size:
            wrong = int(ids.max()) if int(ids.min()) >= 0 else int(ids.min())
            raise ValueError(
                f"document {number:,} of {name} has the id {wrong:,}; the tokenizer has ids 0 to "
                f"{tokenizer.vocab_size - 1:,}, so give the one that made them"
            )
        ends = np.flatnonzero(ids == tokenizer.end_of_text)
        parts = np.split(ids, ends + 1)
        for index, part in enumerate(parts):
            is_ended = index < len(ends)
            if is_ended or len(part) or not len(ends):
                yield TokenDocument(f"{name}:{number}:{index}", part[:-1] if is_ended else part)


def _cut_ids(document: TokenDocument, fraction: float) -> Iterator[tuple[SplitName, TokenDocument]]:
    start = round(len(document.ids) * (1 - fraction))
    if start:
        yield "train", document._replace(ids=document.ids[:start])
    if start < len(document.ids):
        yield "val", document._replace(ids=document.ids[start:])


def split_token_documents(documents: Iterable[TokenDocument], fraction: float) -> Division[TokenDocument]:
    """The documents with the split of each; the tails of a few documents are cut by tokens."""
    return divided(documents, fraction, _cut_ids)
