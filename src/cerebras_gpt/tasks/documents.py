"""Questions over a folder of documents: passages found by BM25, answered from the best one, and its source cited."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt.data.accounting import Accounting
from cerebras_gpt.data.documents import Document, read_documents
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.question_answering import NOT_THERE, QuestionAnswering

WORD = re.compile(r"\w+")
ENOUGH = 0.5
"""Share of a question's words that a passage must have; below, the answer is that it is not there."""
STOPWORDS = """a an and are as at be been but by can could did do does for from had has have how i if in is it its me
my of on or our shall should so that the their them then there these they this to was we were what when where which
who whom whose why will with would you your"""


class Passage(NamedTuple):
    """A paragraph and where it stands."""

    source: str
    """File and number of the paragraph, from 1."""
    text: str


class Answer(NamedTuple):
    """An answer with what it rests on."""

    text: str
    source: str
    """Empty if it is not in the documents."""
    covered: float
    """Share of the question's words that the passage has."""


def words(text: str) -> list[str]:
    """The words of a text that say something, in lower case."""
    return [word for word in WORD.findall(text.lower()) if word not in STOPWORDS.split()]


def passages(documents: Sequence[Document]) -> list[Passage]:
    """The paragraphs of documents."""
    return [
        Passage(f"{document.id}, paragraph {number}", text.strip())
        for document in documents
        for number, text in enumerate(re.split(r"\n\s*\n", document.text), 1)
        if words(text)
    ]


class Library:
    """Documents that can be asked."""

    def __init__(self, documents: Sequence[Document]) -> None:
        try:
            import bm25s
        except ImportError:
            raise ValueError('asking documents needs bm25s; pip install "cerebras-gpt[tasks]"') from None
        self.passages = passages(documents)
        if not self.passages:
            raise ValueError("the documents hold no words; give a folder with text")
        self._index = bm25s.BM25()
        self._index.index([words(passage.text) for passage in self.passages], show_progress=False)

    @classmethod
    def read(cls, folder: Path) -> "Library":
        """The documents of a folder, in every format that `pack` reads."""
        return cls(list(read_documents([str(folder)], Accounting())))

    def find(self, question: str, n: int = 3) -> list[Passage]:
        """The passages that fit a question best, best first; none if no word of it is known."""
        asked = [word for word in words(question) if word in self._index.vocab_dict]
        if not asked:
            return []
        found, scores = self._index.retrieve([asked], k=min(n, len(self.passages)), show_progress=False)
        return [self.passages[int(i)] for i, score in zip(found[0], scores[0], strict=True) if score > 0]

    def ask(self, lm: LM, task: QuestionAnswering, question: str) -> Answer:
        """The model's answer from the passage that fits best, or that it is not there."""
        best = max(self.find(question), key=lambda passage: coverage(question, passage.text), default=None)
        covered = coverage(question, best.text) if best else 0.0
        if best is None or covered < ENOUGH:
            return Answer(NOT_THERE, "", covered)
        said = task.answer(lm, question, best.text)
        return Answer(said, "" if said == NOT_THERE else best.source, covered)


def coverage(question: str, text: str) -> float:
    """Share of the question's words that a text has.

    >>> coverage("Where is the red house?", "A house is green.")
    0.5
    """
    asked = set(words(question))
    return len(asked & set(words(text))) / len(asked) if asked else 0.0
