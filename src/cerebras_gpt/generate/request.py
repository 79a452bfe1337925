"""What is asked of the engine, and what becomes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch

from cerebras_gpt.config import unknown
from cerebras_gpt.generate.sampling import PLAIN, Sampling

Overflow = Literal["stop", "slide"]
"""When the context is full: end the sequence, or go on from the last half of the context."""
Finish = Literal["end", "length", "context", "cancelled", "failed"]
"""A stop id came, max_tokens were made, the context is full, the caller has enough, or the scores are not finite."""


@dataclass(frozen=True)
class Request:
    """What is asked of the engine."""

    ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = PLAIN
    index: int = 0
    """Which of several answers this is: it draws with seed + index."""
    stop_ids: frozenset[int] = frozenset()
    overflow: Overflow = "stop"
    n_top: int | None = None
    """Log-probabilities wanted: None for none, else of the chosen token and of this many likeliest ones."""
    scores_prompt: bool = False
    """Whether those of the prompt's own ids are wanted too."""
    n_kept: int = 0
    """First ids, such as a title, that stay in sight when the context slides; at most a quarter of the context."""


class Choice(NamedTuple):
    """A token of a sequence, with log-probabilities under the model alone, before any setting of the sampling."""

    id: int
    log_probability: float | None = None
    """None for the very first id of a prompt, and where none were wanted."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest ids in its place, likeliest first."""


@dataclass(eq=False)
class Continuation:
    """One request and what follows it so far."""

    request: Request
    ids: list[int]
    """The prompt's ids, then the new ones."""
    generator: torch.Generator
    choices: list[Choice] = field(default_factory=list)
    """The new ids."""
    prompt_choices: list[Choice] = field(default_factory=list)
    """The prompt's ids, once they are read and if their scores are wanted."""
    start: int = 0
    """First id the model still sees; grows when the context slides."""
    slot: int | None = None
    n_cached: int = 0
    n_reused: int = 0
    """Ids of the prompt that did not have to be read again."""
    n_settled: int = 0
    """Guesses of a smaller model that the model itself has looked at."""
    n_right: int = 0
    """Those of them that it took."""
    finish: Finish | None = None
    problem: str = ""
    """Why it failed."""

    @property
    def n_new(self) -> int:
        """How many ids were made."""
        return len(self.choices)

    @property
    def n_sinks(self) -> int:
        """How many of the first ids are still seen though the context has slid past them."""
        return min(self.request.n_kept, self.start)

    @property
    def window(self) -> list[int]:
        """The ids that the model sees: those that are kept, then from `start` on."""
        return self.ids[: self.n_sinks] + self.ids[self.start :]

    @property
    def n_window(self) -> int:
        """How many ids the model sees."""
        return self.n_sinks + len(self.ids) - self.start

    @property
    def is_read(self) -> bool:
        """Whether only the newest id is not in the cache yet."""
        return self.n_cached == self.n_window - 1


def check(prompts: Sequence[Sequence[int]], max_tokens: int, overflow: str, seq_len: int) -> None:
    """Refuses what cannot be generated, in one line that says what to do."""
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; it must be at least 1")
    if overflow not in get_args(Overflow):
        raise ValueError(unknown("overflow", overflow, get_args(Overflow)))
    longest = max(map(len, prompts), default=1)
    if longest > seq_len:
        raise ValueError(f"a prompt has {longest} tokens, the context holds {seq_len}; keep at most its last {seq_len}")
    if not all(prompts):
        raise ValueError("a prompt has no tokens; start it with the end-of-text token")
