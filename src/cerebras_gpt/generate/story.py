"""Texts longer than the context, told segment by segment, and of about as many words as wanted.

When the context is full the model goes on from what it still sees: the beginning of the prompt (a title, an opening),
at most a quarter of the context, and the last half of it. What lies between is out of sight, on purpose: a small
network with learned positions has no other memory. Words are what lies between white space.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cerebras_gpt.data.example_batches import prompt_ids
from cerebras_gpt.generate.answer import Answer
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.request import Request
from cerebras_gpt.generate.sampling import Sampling

SLACK = 1.25
"""Times the wanted words after which the text ends even within a sentence."""
TOKENS_PER_WORD = 16
"""At most: a model that makes no words is not heard forever."""
BAN = -1e4
"""Added to the logit of a token that is not to come."""
ENDS = (".", "!", "?", '."', '!"', '?"', ".\u201d", "!\u201d", "?\u201d")


def tell(lm: LM, prompt: str, max_tokens: int, sampling: Sampling, stop: Sequence[str] = ()) -> Iterator[str]:
    """What follows the prompt, piece by piece, up to the end of the text or max_tokens, however long the context."""
    ids, end = prompt_ids(prompt, lm.tokenizer), lm.tokenizer.end_of_text
    n_kept = min(len(ids), lm.model.architecture.seq_len // 4)
    engine = lm.engine(n_slots=1)
    request = Request(tuple(ids), max_tokens, sampling, stop_ids=frozenset({end}), overflow="slide", n_kept=n_kept)
    continuation = engine.submit(request)
    answer, reason = Answer(continuation, lm.tokenizer, stop), None
    while reason is None:
        engine.step()
        if continuation.finish == "failed":
            raise ValueError(continuation.problem)
        piece = answer.pull()
        reason = piece.reason
        if piece.text:
            yield piece.text


def tell_words(lm: LM, prompt: str, words: int, sampling: Sampling, stop: Sequence[str] = ()) -> Iterator[str]:
    """The same with so many words, then to the end of the sentence; no end of the text is taken before."""
    if words < 1:
        raise ValueError(f"words is {words}; it must be at least 1")
    endless = replace(sampling, bias=(*sampling.bias, (lm.tokenizer.end_of_text, BAN)))
    most = int(SLACK * words) + 1
    return until(tell(lm, prompt, TOKENS_PER_WORD * most, endless, stop), words, most)


def until(pieces: Iterator[str], words: int, most: int) -> Iterator[str]:
    """Pieces up to the first end of a sentence from so many words on, and never a word beyond the most.

    >>> list(until(iter(["One", " two.", " Three", " four.", " Five"]), words=3, most=5))
    ['One', ' two.', ' Three', ' four.']
    """
    n, last, tail = 0, " ", ""
    for piece in pieces:
        begun = len((last + piece).split()) - (not last.isspace())
        if n + begun > most:
            return
        n, last, tail = n + begun, piece[-1], (tail + piece)[-8:]
        yield piece
        if n >= words and tail.rstrip().endswith(ENDS):
            return
