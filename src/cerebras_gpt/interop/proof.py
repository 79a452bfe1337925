"""Whether a model that was written reads back as the one it was made from: logits and greedy text, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cerebras_gpt.errors import OURS

TOLERANCE = 1e-5
"""Largest difference of a logit, over the largest logit: float32 rounding through a deep network stays below it."""
N_IDS = 256
"""Ids of the compared row, if the context holds so many."""


class ProofError(Exception):
    """What was written does not read back as the model; nothing is left of it."""

    exit_code = OURS


class Reader(Protocol):
    """A program that has opened the model."""

    name: str

    def logits(self, ids: Tensor) -> Tensor:
        """Next-token logits at every position: (1, T) -> (1, T, V)."""

    def greedy(self, prompt: Sequence[int], n_tokens: int) -> list[int]:
        """The likeliest next tokens, one after the other, up to n_tokens or the end of the text."""


class Expected(NamedTuple):
    """What the model itself computes."""

    prompt: list[int]
    greedy: list[int]
    """What the model says after the prompt."""
    ids: Tensor
    """The prompt, the greedy text, then random ids: (1, T)."""
    logits: Tensor
    """(1, T, V)."""


@dataclass(frozen=True)
class Comparison:
    """How one reader's results differ from the model's."""

    reader: str
    absolute: float
    """Largest difference of a logit."""
    relative: float
    """The same over the model's largest logit."""
    n_positions: int
    """Positions compared, each over the whole vocabulary."""
    n_tokens: int
    """Tokens of the model's greedy text."""
    n_same: int
    """Tokens up to the first that differs."""
    margin: float
    """How much the model prefers its own token to the reader's there, over the largest logit; 0 if none differs."""

    def __str__(self) -> str:
        text = f"{self.n_same} of {self.n_tokens} greedy tokens the same"
        return f"{self.reader}: logits differ by {self.absolute:.1e}, {self.relative:.1e} of the largest; {text}"


@torch.no_grad()
def expected(ours: Reader, prompt: Sequence[int], n_tokens: int, vocab_size: int, seq_len: int) -> Expected:
    """What there is to compare: a greedy text of up to n_tokens, and logits over it and over random ids."""
    prompt = list(prompt[: max(1, seq_len // 2)])
    greedy = ours.greedy(prompt, min(n_tokens, seq_len - len(prompt))) if seq_len > len(prompt) else []
    text = [*prompt, *greedy]
    n_random = max(0, min(N_IDS, seq_len) - len(text))
    random = torch.randint(vocab_size, (n_random,), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([torch.tensor(text), random])[None]  # (1, T)
    return Expected(prompt, greedy, ids, ours.logits(ids))


@torch.no_grad()
def compare(model: Expected, reader: Reader) -> Comparison:
    """Runs the reader on the same ids and the same prompt."""
    found = reader.logits(model.ids)
    scale = model.logits.abs().max().item()
    absolute = (found - model.logits).abs().max().item()
    theirs = reader.greedy(model.prompt, len(model.greedy)) if model.greedy else []
    n_same = next((n for n, pair in enumerate(zip(model.greedy, theirs, strict=False)) if pair[0] != pair[1]), None)
    margin = 0.0
    if n_same is not None:
        row = model.logits[0, len(model.prompt) + n_same - 1]  # (V,)
        margin = (row[model.greedy[n_same]] - row[theirs[n_same]]).item() / scale
    same = min(len(model.greedy), len(theirs)) if n_same is None else n_same
    n_positions = model.ids.shape[1]
    return Comparison(reader.name, absolute, absolute / scale, n_positions, len(model.greedy), same, margin)


def require_equal(found: Comparison) -> None:
    """Raises ProofError unless the two are equal to rounding.

    Two logits may be so close that rounding decides which is larger; a text that parts at such a place is no fault.
    """
    if not found.relative <= TOLERANCE:
        raise ProofError(
            f"{found.reader} computes other logits: they differ by {found.relative:.1e} of the largest, at most "
            f"{TOLERANCE:.0e} is allowed; nothing was written"
        )
    if not found.margin <= 2 * TOLERANCE:
        raise ProofError(
            f"{found.reader} writes another greedy text from token {found.n_same + 1} on; nothing was written"
        )
