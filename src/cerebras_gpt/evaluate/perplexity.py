"""How well a model predicts a text: the language-model score."""

import math
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt.generate.lm import LM


class Perplexity(NamedTuple):
    """One loss in its usual units."""

    loss: float
    """Nats per token."""
    perplexity: float
    """exp of the loss; comparable only between models with the same tokenizer."""
    bits_per_byte: float
    """Comparable between all models."""
    n_tokens: int
    n_bytes: int


def perplexity(lm: LM, path: Path, stride: int = 0) -> Perplexity:
    """Scores a UTF-8 file; raises FileNotFoundError, or ValueError if it is empty or not text.

    Each window scores `stride` tokens, half of its length if 0: the smaller, the more context each has, and the dearer.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}); convert it first") from None
    if not text:
        raise ValueError(f"{path} is empty; give a file with text")
    score = lm.score(text, stride)
    loss = score.nats / score.n_tokens
    bits = score.nats / math.log(2) / score.n_bytes
    return Perplexity(loss, math.exp(loss), bits, score.n_tokens, score.n_bytes)
