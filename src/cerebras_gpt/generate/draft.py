"""Speculative decoding: a smaller model guesses the next tokens, and one pass of the larger one settles them all.

A token of one sequence takes as long as reading every weight, and a pass over a few tokens hardly longer. Each guess
is taken or replaced so that the token has the larger model's distribution, whatever it was guessed from (Leviathan et
al. 2023, algorithm 1; Chen et al. 2023, algorithm 2). How many are guessed follows from how often the sequence's own
guesses were right, never from what else is going on or how fast the machine is: the same request stays the same text.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cerebras_gpt.generate.network import Network
from cerebras_gpt.generate.request import Continuation
from cerebras_gpt.generate.sampling import chances, draw
from cerebras_gpt.model.architecture import Architecture

MOST_GUESSES = 7
"""With the newest token, eight rows of a pass."""
PER_LAYER = 10**6
"""Numbers that could be read in the time a layer takes beside reading its own."""
PRIOR = (2, 3)
"""Right guesses of so many, taken for granted at the beginning."""


class Guess(NamedTuple):
    """A token that may come next."""

    id: int
    chances: Tensor
    """The probabilities it was drawn with: (V,)."""


class Drafter(Protocol):
    """Follows what the engine's slots hold and guesses what comes next."""

    def take(self, slot: int, ids: tuple[int, ...]) -> None:
        """A slot begins anew, with prompt ids that may be known already."""

    def read(self, ids: Sequence[int], slot: int, start: int, learned: tuple[int, ...]) -> None:
        """A piece of a prompt from a position on; all that the slot now holds."""

    def guess(self, ready: Sequence[Continuation]) -> list[list[Guess]]:
        """Tokens that may follow each sequence, none if that does not pay."""


class Silent:
    """Guesses nothing: the engine alone."""

    def take(self, slot: int, ids: tuple[int, ...]) -> None:
        """Nothing to follow."""

    def read(self, ids: Sequence[int], slot: int, start: int, learned: tuple[int, ...]) -> None:
        """Nothing to follow."""

    def guess(self, ready: Sequence[Continuation]) -> list[list[Guess]]:
        """None for any."""
        return [[] for _ in ready]


class Draft:
    """Guesses with a smaller network of the same vocabulary, whose slots mirror the engine's."""

    def __init__(self, network: Network, target: Network, n_slots: int, n_tokens: int) -> None:
        self.network, own = network, network.architecture.seq_len
        self.cache = network.slots(n_slots, min(n_tokens, own))
        self.seq_len = min(own, target.architecture.seq_len, self.cache.n_positions)
        """Tokens that both see."""
        self.cost = effort(network.architecture) / effort(target.architecture)
        self._passes = [target.pass_cost(n) for n in range(1, MOST_GUESSES + 2)]
        self._known = [0] * n_slots
        """Positions of each slot that hold what the sequence really has there, or had guessed."""

    def take(self, slot: int, ids: tuple[int, ...]) -> None:
        """Shares known beginnings as the engine does."""
        self._known[slot] = self.cache.take(slot, ids)

    def read(self, ids: Sequence[int], slot: int, start: int, learned: tuple[int, ...]) -> None:
        """Reads the same pieces; beyond a gap or its own context it has nothing to say."""
        if start > self._known[slot] or start + len(ids) > self.seq_len:
            return
        for n in range(0, len(ids), self.network.piece):
            part = ids[n : n + self.network.piece]
            self.network.read(self.network.prefill(part, slot, start + n), self.cache)
        self._known[slot] = start + len(ids)
        self.cache.learn(slot, learned)

    def guess(self, ready: Sequence[Continuation]) -> list[list[Guess]]:
        """One pass for each further guess, over all sequences that want one."""
        made: list[list[Guess]] = [[] for _ in ready]
        wanted = [self._n_wanted(continuation) for continuation in ready]
        for n in range(MOST_GUESSES):
            going = [i for i, most in enumerate(wanted) if most > n and len(made[i]) == n]
            if not going:
                break
            fed = [self._unread(ready[i], made[i]) for i in going]
            logits = self._logits([ready[i].slot or 0 for i in going], fed)
            for i, row in zip(going, logits, strict=True):
                if row.amax().isfinite():
                    made[i].append(self._drawn(ready[i], made[i], row))
        return made

    def _n_wanted(self, continuation: Continuation) -> int:
        """As many as pay, that fit in both contexts and are still asked for."""
        room = self.seq_len - continuation.n_window
        left = continuation.request.max_tokens - continuation.n_new - 1
        right = (continuation.n_right + PRIOR[0]) / (continuation.n_settled + PRIOR[1])
        return max(0, min(n_paying(right, self.cost, self._passes), room, left))

    def _unread(self, continuation: Continuation, guesses: Sequence[Guess]) -> tuple[int, list[int]]:
        """Where to go on in the slot, and with which ids."""
        slot, newest = continuation.slot or 0, continuation.n_window - 1
        if guesses:
            return newest + len(guesses), [guesses[-1].id]
        start = min(self._known[slot], newest)  # beyond it there are guesses of the pass before
        return start, continuation.window[start:]

    def _logits(self, slots: Sequence[int], fed: Sequence[tuple[int, list[int]]]) -> Tensor:
        """Scores after the last of each sequence's ids: (N, V)."""
        ids = [token for _, new in fed for token in new]
        rows = [slot for slot, (_, new) in zip(slots, fed, strict=True) for _ in new]
        places = [start + n for start, new in fed for n in range(len(new))]
        last = torch.tensor([len(new) for _, new in fed]).cumsum(0) - 1  # (N,)
        for slot, (start, new) in zip(slots, fed, strict=True):
            self._known[slot] = start + len(new)
        return self.network.follow(ids, rows, places, self.cache)[last]

    def _drawn(self, continuation: Continuation, guesses: Sequence[Guess], logits: Tensor) -> Guess:
        request, n_prompt = continuation.request, len(continuation.request.ids)
        answer = [*continuation.ids[n_prompt:], *(guess.id for guess in guesses)]
        found = chances(logits, continuation.ids[:n_prompt], answer, request.sampling)  # (V,)
        return Guess(int(draw(found[None], [continuation.generator])), found)


def settle(found: Tensor, guess: Guess, generator: torch.Generator) -> int:
    """The guess, or a token in its place; distributed as `found` whatever the guess was drawn from: (V,) -> an id."""
    number = torch.rand((), generator=generator, dtype=torch.float64)
    if number * guess.chances[guess.id] < found[guess.id]:
        return guess.id
    missing = (found - guess.chances).clamp_(min=0)  # (V,)
    # All 0 only where rounding alone set the two apart.
    return int(draw((missing if missing.any() else found)[None], [generator]))


def n_paying(right: float, cost: float, passes: Sequence[float]) -> int:
    """How many guesses make a token cheapest, if each is right with this chance and costs this share of a pass.

    n guesses give (1 - right^(n + 1)) / (1 - right) tokens (Leviathan et al. 2023, equation 1) for n times the cost
    and a pass over n + 1 rows.

    >>> [n_paying(right, cost=0.1, passes=(1, 1, 1, 1, 2)) for right in (0.05, 0.4, 0.9)]
    [0, 2, 3]
    """
    return max(range(len(passes)), key=lambda n: sum(right**i for i in range(n + 1)) / (passes[n] + n * cost))


def effort(architecture: Architecture) -> float:
    """What a pass over one token takes, in numbers read."""
    d_model = architecture.d_model
    per_layer = 4 * d_model**2 + 2 * d_model * architecture.d_ffn + PER_LAYER
    return architecture.n_layers * per_layer + architecture.vocab_size * d_model
