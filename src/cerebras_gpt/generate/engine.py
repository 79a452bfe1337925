"""Ids in, ids out: any number of sequences continued together, each as if it were alone."""

import logging
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from cerebras_gpt.generate.draft import Draft, Drafter, Guess, Silent, settle
from cerebras_gpt.generate.network import Network, Stretch, fitting
from cerebras_gpt.generate.request import Choice, Continuation, Finish, Overflow, Request, check
from cerebras_gpt.generate.sampling import Sampling, chances, next_token
from cerebras_gpt.generate.slots import PAGE, SlotCache
from cerebras_gpt.model.gpt import GPT

log = logging.getLogger("cerebras_gpt")
MOST_SLOTS = 16
"""Sequences that are continued together by default."""
PREFILL_TOKENS = 128
"""Tokens of prompts that a step reads at most, so that those who wait for their next token wait little."""
CROWD = 8
"""For each so many who wait for their first token, a step may read as many again."""
Read = tuple[Stretch, tuple[int, ...]]
"""Of a prompt, and what its slot holds then."""


class Engine:
    """Continues sequences, first come first served. Each step gives all that are read their next token and reads on.

    The tokens of a sequence, to the last bit of their log-probabilities, do not depend on what else is going on.
    """

    def __init__(
        self,
        network: Network,
        n_slots: int = MOST_SLOTS,
        n_tokens: int | None = None,
        draft: Network | None = None,
    ) -> None:
        self.network = network
        self.seq_len = network.architecture.seq_len
        most = min(n_tokens or self.seq_len, self.seq_len)
        self.cache: SlotCache = network.slots(n_slots, most)
        self.drafter: Drafter = Silent() if draft is None else Draft(draft, network, n_slots, most)
        self.waiting: deque[Continuation] = deque()
        self.active: list[Continuation] = []

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self.waiting and not self.active

    def submit(self, request: Request) -> Continuation:
        """Takes a request; its first token comes once a slot is free and its prompt is read."""
        check([request.ids], request.max_tokens or 1, request.overflow, self.seq_len)
        if not 0 <= request.n_kept <= self.seq_len // 4:
            raise ValueError(
                f"n_kept is {request.n_kept}; it must be 0 to {self.seq_len // 4}, a quarter of the context"
            )
        self.waiting.append(Continuation(request, list(request.ids), request.sampling.generator(request.index)))
        return self.waiting[-1]

    def cancel(self, continuation: Continuation) -> None:
        """Ends a sequence at once, if it has not ended by itself; its slot is free."""
        if continuation.finish is None:
            self._end(continuation, "cancelled")

    @torch.inference_mode()
    def step(self) -> list[Continuation]:
        """Makes the next token of every sequence that is ready; those that got one or ended."""
        read = self._next_stretches()
        scoring = [c for c in self.active if c.is_read and c.n_new == c.request.max_tokens]
        for one in scoring:  # asked for the prompt's scores alone
            self._end(one, "length")
        ready = sorted((c for c in self.active if c.is_read), key=lambda c: c.slot or 0)
        if ready or read:
            self._advance(ready, read)
        return scoring + ready

    def _advance(self, ready: Sequence[Continuation], read: Sequence[Read]) -> None:
        """One pass over the newest token of each, what is guessed to follow it, and what is to be read of prompts."""
        guesses = self.drafter.guess(ready)
        rows = [
            (token, c.slot or 0, c.n_cached + n)
            for c, guessed in zip(ready, guesses, strict=True)
            for n, token in enumerate([c.ids[-1], *(guess.id for guess in guessed)])
        ]
        ids, slots, places = zip(*rows, strict=True) if rows else ((), (), ())
        logits = iter(self.network.advance([one for one, _ in read], ids, slots, places, self.cache))  # of (V,)
        for stretch, learned in read:
            self.cache.learn(stretch.slot, learned)
        for continuation, guessed in zip(ready, guesses, strict=True):
            self._go_on(continuation, guessed, [next(logits) for _ in range(len(guessed) + 1)])

    def _go_on(self, continuation: Continuation, guesses: Sequence[Guess], logits: Sequence[Tensor]) -> None:
        """Takes tokens up to the first that was guessed wrong, whose scores are still those of its true past."""
        for row, guess in zip(logits, [*guesses, None], strict=True):
            self._choose(continuation, row, guess)
            if guess is None or continuation.finish is not None or continuation.ids[-1] != guess.id:
                return

    def _choose(self, continuation: Continuation, logits: Tensor, guess: Guess | None) -> None:
        """Takes the next token from its scores: (V,)."""
        n_top = continuation.request.n_top
        try:
            token = self._token(continuation, logits, guess)
            made = Choice(token) if n_top is None else choice(logits, token, n_top)
        except Exception as error:  # one row's, want of memory too; what ails the engine the next pass meets as well
            return self._fail(continuation, error)
        continuation.choices.append(made)
        continuation.ids.append(token)
        continuation.n_cached += 1
        self._look_for_end(continuation)

    def _fail(self, continuation: Continuation, error: Exception) -> None:
        """Ends one sequence whose next token cannot be had."""
        continuation.problem = "the next token could not be chosen; try again"
        if isinstance(error, ValueError):
            continuation.problem = str(error)
        else:
            log.error("the next token could not be chosen: %s", type(error).__name__, exc_info=error)
        self.cache.wipe(continuation.slot or 0)
        self._end(continuation, "failed")

    def _token(self, continuation: Continuation, logits: Tensor, guess: Guess | None) -> int:
        """Drawn, or settled if there is a guess."""
        request, n_prompt = continuation.request, len(continuation.request.ids)
        prompt, answer = continuation.ids[:n_prompt], continuation.ids[n_prompt:]
        if guess is None:
            return next_token(logits, prompt, answer, request.sampling, continuation.generator)
        token = settle(chances(logits, prompt, answer, request.sampling), guess, continuation.generator)
        continuation.n_settled += 1
        continuation.n_right += token == guess.id
        return token

    def _look_for_end(self, continuation: Continuation) -> None:
        request = continuation.request
        if continuation.ids[-1] in request.stop_ids:
            self._end(continuation, "end")
        elif continuation.n_new == request.max_tokens:
            self._end(continuation, "length")
        elif continuation.n_window > self.seq_len and request.overflow == "stop":
            self._end(continuation, "context")
        elif continuation.n_window > self.seq_len:
            continuation.start = len(continuation.ids) - max(1, self.seq_len // 2)
            continuation.n_cached = 0

    def _end(self, continuation: Continuation, finish: Finish) -> None:
        continuation.finish = finish
        if continuation.slot is None:
            self.waiting.remove(continuation)
        else:
            self.active.remove(continuation)
            continuation.slot = None

    def _n_to_read(self) -> int:
        """Tokens of prompts for this step: more where many wait for their first token."""
        n_free = self.cache.n_slots - len(self.active)
        n_waiting = sum(not c.is_read for c in self.active) + min(len(self.waiting), n_free)
        return min(max(PREFILL_TOKENS, self.network.piece), PREFILL_TOKENS * -(-n_waiting // CROWD))

    def _next_stretches(self) -> list[Read]:
        """What this step reads of prompts; of the first as much as there can be, if nobody waits for the next token."""
        left, found, are_answered = self._n_to_read(), list[Read](), any(c.is_read for c in self.active)
        while left > 0:
            continuation = next((c for c in self.active if not c.is_read), None)
            if continuation is None:
                if not self._admit({learned[:PAGE] for _, learned in found}):
                    break
                continue
            window, done = continuation.window[:-1], continuation.n_cached
            least = self.network.prefill_rows[0] if found or are_answered else self.network.piece
            n = min(self.network.piece, max(left + -left % PAGE, least))
            stretch, learned = Stretch(window[done : done + n], continuation.slot or 0, done), tuple(window[: done + n])
            self.drafter.read(*stretch, learned)
            if continuation.request.scores_prompt and continuation.start == 0:
                self._score(continuation, stretch)
                self.cache.learn(stretch.slot, learned)
            else:
                found.append((stretch, learned))
            continuation.n_cached += len(stretch.ids)
            left -= max(len(stretch.ids), fitting(len(stretch.ids), self.network.prefill_rows))
        return found

    def _admit(self, begun: Collection[tuple[int, ...]]) -> bool:
        """Gives the first in the queue a slot, best one that holds the beginning of its prompt; whether it could.

        Not yet if it begins with a page that is just being read: once that is done it need not be read again.
        """
        free = sorted(set(range(self.cache.n_slots)) - {c.slot for c in self.active})
        if not self.waiting or not free:
            return False
        prompt = tuple(self.waiting[0].ids[:-1])
        if len(prompt) >= PAGE and prompt[:PAGE] in begun:
            return False
        continuation = self.waiting.popleft()
        continuation.slot = max(free, key=lambda slot: (self.cache.common(slot, prompt), -self.cache.used[slot], -slot))
        known = () if continuation.request.scores_prompt else prompt
        continuation.n_cached = continuation.n_reused = self.cache.take(continuation.slot, known)
        self.drafter.take(continuation.slot, known)
        if continuation.request.scores_prompt:
            continuation.prompt_choices.append(Choice(continuation.ids[0]))
        self.active.append(continuation)
        return True

    def _score(self, continuation: Continuation, stretch: Stretch) -> None:
        """Reads a piece of a prompt for the scores of its own ids."""
        hidden = self.network.hidden(self.network.prefill(*stretch), self.cache)  # (N, C)
        following, n_top = continuation.ids[stretch.start + 1 :], continuation.request.n_top or 0
        scores = zip(self.network.logits(hidden), stretch.ids, following, strict=False)
        continuation.prompt_choices += [choice(row, token, n_top) for row, _, token in scores]


def choice(logits: Tensor, token: int, n_top: int) -> Choice:
    """A token with its log-probability, and those of the likeliest: (V,)."""
    log_probabilities = logits.double().log_softmax(-1)  # (V,)
    best = log_probabilities.topk(min(n_top, len(logits)))
    top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return Choice(token, float(log_probabilities[token]), top)


class Generation:
    """A batch of prompts being continued in step; more than fit together wait for their turn."""

    def __init__(
        self,
        model: GPT | Network,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        max_tokens: int,
        stop_ids: Collection[int] = (),
        overflow: Overflow = "stop",
        draft: Network | None = None,
    ) -> None:
        network = model if isinstance(model, Network) else Network(model)
        check(prompts, max_tokens, overflow, network.architecture.seq_len)
        most = max(map(len, prompts), default=1) + max_tokens
        self.engine = Engine(network, fitting(max(1, len(prompts)), (*range(1, MOST_SLOTS + 1),)), most, draft)
        self.continuations = [
            self.engine.submit(Request(tuple(ids), max_tokens, sampling, i, frozenset(stop_ids), overflow))
            for i, ids in enumerate(prompts)
        ]
        self._given: Mapping[int, int] = dict.fromkeys(range(len(prompts)), 0)

    @property
    def is_finished(self) -> bool:
        """Whether no sequence goes on."""
        return self.engine.is_idle and all(self._is_told(index) for index in range(len(self.continuations)))

    def cancel(self, index: int) -> None:
        """Ends one sequence before the next step, if it has not ended by itself."""
        self.engine.cancel(self.continuations[index])

    def step(self) -> list[int | None]:
        """The next token of each sequence, a stop id included; None for those that have none left."""
        assert not self.is_finished
        while any(c.n_new == self._given[i] for i, c in enumerate(self.continuations) if c.slot is not None) or (
            self.engine.waiting and len(self.engine.active) < self.engine.cache.n_slots
        ):
            self._advance()
        tokens: list[int | None] = [None] * len(self.continuations)
        given = dict(self._given)
        for index, continuation in enumerate(self.continuations):
            if continuation.finish != "cancelled" and continuation.n_new > given[index]:
                tokens[index] = continuation.choices[given[index]].id
                given[index] += 1
        self._given = given
        return tokens

    def _advance(self) -> None:
        for continuation in self.engine.step():
            if continuation.finish == "failed":
                raise ValueError(continuation.problem)

    def _is_told(self, index: int) -> bool:
        continuation = self.continuations[index]
        return continuation.finish == "cancelled" or self._given[index] == continuation.n_new


def generate_ids(
    model: GPT | Network,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    max_tokens: int,
    stop_ids: Collection[int] = (),
    overflow: Overflow = "stop",
) -> Iterator[list[int | None]]:
    """Steps of a batch, each with the new token of every sequence, or None for those that have none left."""
    return _steps(Generation(model, prompts, sampling, max_tokens, stop_ids, overflow))


def _steps(generation: Generation) -> Iterator[list[int | None]]:
    while not generation.is_finished:
        yield generation.step()
