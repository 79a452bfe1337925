"""From logits to the next tokens: penalty, temperature, top-k, top-p, and a draw with one generator per sequence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the defaults draw from the model's own distribution."""

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the likeliest token, whatever top_k, top_p and seed say."""
    top_k: int = 0
    """Only the k likeliest tokens remain; 0 keeps all."""
    top_p: float = 1.0
    """Only the likeliest tokens that together reach this probability remain (Holtzman et al. 2020); 1 keeps all."""
    repetition_penalty: float = 1.0
    """Tokens seen before get logits divided (if positive) or multiplied by it (Keskar et al. 2019, section 4.1)."""
    seed: int = 0
    """Sequence i of a batch draws with seed + i, so it can be made again alone."""
    presence_penalty: float = 0.0
    """Taken off the logits of tokens that the answer already holds."""
    frequency_penalty: float = 0.0
    """The same, once for each time."""
    bias: tuple[tuple[int, float], ...] = ()
    """Added to the logits of these ids; -100 bans one in practice."""
    no_repeat: int = 0
    """No run of so many tokens occurs twice in prompt and answer (Paulus et al. 2018, section 2.5); 0 is off."""

    def __post_init__(self) -> None:
        rules = {
            "temperature": (0 <= self.temperature < math.inf, "0 (greedy) or a positive number"),
            "top_k": (self.top_k >= 0, "0 (off) or a positive whole number"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "a positive number; 1 is off"),
            "seed": (0 <= self.seed < 2**63, "from 0 to 2^63 - 1"),
            "no_repeat": (self.no_repeat >= 0, "0 (off) or a positive whole number"),
            "presence_penalty": (abs(self.presence_penalty) <= 1e4, "from -10,000 to 10,000; 0 is off"),
            "frequency_penalty": (abs(self.frequency_penalty) <= 1e4, "from -10,000 to 10,000; 0 is off"),
        }
        for name, (is_allowed, allowed) in rules.items():
            if not is_allowed:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {allowed}")

    @property
    def is_greedy(self) -> bool:
        """Whether no chance is involved."""
        return self.temperature == 0

    def generator(self, index: int) -> torch.Generator:
        """The random numbers of one sequence of a batch; on the CPU, so that they are the same on every device."""
        return torch.Generator().manual_seed((self.seed + index) % 2**63)


LIKELIEST = 1024
"""Tokens that are put in order first: they nearly always hold the share that is kept."""
PLAIN = Sampling()
"""The model's own distribution, seed 0."""


def finite(logits: Tensor) -> tuple[float, float]:
    """The least and the largest number of a tensor's type."""
    numbers = torch.finfo(logits.dtype)
    return numbers.min, numbers.max


def penalize_repetition(logits: Tensor, history: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Makes each row's earlier tokens less likely, once however often they occurred: (B, V) -> (B, V)."""
    if penalty == 1:
        return logits
    logits = logits.clone()
    for row, ids in zip(logits, history, strict=True):
        seen = torch.tensor(ids, dtype=torch.long, device=row.device)  # (T,)
        scores = row[seen]  # (T,)
        # A penalty next to 0 would make a score infinite, of which no probability comes.
        row[seen] = torch.where(scores > 0, scores / penalty, scores * penalty).clamp(*finite(row))
    return logits


def temper(logits: Tensor, temperature: float) -> Tensor:
    """Sharpens (below 1) or flattens (above 1), the largest logit moved to 0: (B, V) -> (B, V).

    Taking the maximum off first lets the smallest temperature end in 0 and -inf instead of NaN.
    """
    return (logits - logits.amax(-1, keepdim=True)) / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Sets all but the k largest to -inf, exactly k remaining even among equals: (B, V) -> (B, V)."""
    if k == 0 or k >= logits.shape[-1]:
        return logits
    top = logits.topk(k)  # (B, k)
    return torch.full_like(logits, -math.inf).scatter(-1, top.indices, top.values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Sets all but the smallest set of likeliest tokens with probability p to -inf: (B, V) -> (B, V)."""
    if p == 1:
        return logits
    probabilities = logits.softmax(-1)
    likely, ids = probabilities.topk(min(LIKELIEST, logits.shape[-1]))  # (B, N) each
    if likely.sum(-1).amin() < p:
        likely, ids = probabilities.sort(dim=-1, descending=True, stable=True)  # (B, V) each
    # A token stays if those before it do not reach p yet, so the likeliest always stays.
    beyond = likely.cumsum(-1) - likely >= p  # (B, N)
    kept = logits.gather(-1, ids).masked_fill(beyond, -math.inf)  # (B, N)
    return torch.full_like(logits, -math.inf).scatter(-1, ids, kept)


def draw(probabilities: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """One token per row by inverting its cumulative distribution at one uniform number: (B, V) -> (B,).

    A row takes exactly one number from its own generator, so neither batch-mates nor the vocabulary shift the others.
    """
    numbers = [torch.rand((), generator=generator, dtype=torch.float64) for generator in generators]
    cumulative = probabilities.cumsum(-1)  # (B, V)
    # Scaling by the sum, which rounding leaves near 1, and `right` keep tokens of probability 0 out of reach.
    targets = torch.stack(numbers)[:, None] * cumulative[:, -1:]  # (B, 1)
    return torch.searchsorted(cumulative, targets, right=True)[:, 0]  # (B,)


def adjust(logits: Tensor, answer: Sequence[int], sampling: Sampling) -> Tensor:
    """Adds the bias and takes off the penalties for what the answer holds: (V,) -> (V,)."""
    if sampling.bias:
        ids, values = zip(*sampling.bias, strict=True)
        logits = logits.index_add(0, torch.tensor(ids, device=logits.device), logits.new_tensor(values))
    if answer and (sampling.presence_penalty or sampling.frequency_penalty):
        counts = torch.bincount(torch.tensor(answer), minlength=len(logits)).to(logits)  # (V,)
        logits = logits - sampling.presence_penalty * (counts > 0) - sampling.frequency_penalty * counts
    return logits


def forbid_repeats(logits: Tensor, ids: Sequence[int], n: int) -> Tensor:
    """Sets tokens that would end a run of n that occurred before to -inf, unless that leaves none: (V,) -> (V,)."""
    if n == 0 or len(ids) < n:
        return logits
    end = tuple(ids[len(ids) - n + 1 :])
    banned = [ids[i + n - 1] for i in range(len(ids) - n + 1) if tuple(ids[i : i + n - 1]) == end]
    if not banned:
        return logits
    left = logits.index_fill(0, torch.tensor(banned, device=logits.device), -math.inf)  # (V,)
    return left if left.amax() > -math.inf else logits


def scores(logits: Tensor, prompt: Sequence[int], answer: Sequence[int], sampling: Sampling) -> Tensor:
    """What the model and all settings but the temperature and the cuts say of the next token: (V,) -> (V,)."""
    row = adjust(logits, answer, sampling)[None]  # (1, V)
    row = penalize_repetition(row, [[*prompt, *answer]], sampling.repetition_penalty)
    return forbid_repeats(row[0], [*prompt, *answer], sampling.no_repeat)


def best(scores: Tensor) -> int:
    """The likeliest token, the first among equals: (V,) -> an id; raises ValueError where that says nothing."""
    found = (
        scores.float().cpu().numpy()
    )  # numpy's search takes a fifth of the time of torch's, and a NaN for the largest
    token = int(found.argmax())
    if not math.isfinite(found[token]):
        raise ValueError("the model's scores are not finite; its training diverged: use an earlier checkpoint")
    return token


def chances(logits: Tensor, prompt: Sequence[int], answer: Sequence[int], sampling: Sampling) -> Tensor:
    """The probabilities that the next token is drawn with; greedy is all for one: (V,) -> (V,) in float64."""
    row = scores(logits, prompt, answer, sampling)
    token = best(row)
    if sampling.is_greedy:
        return torch.zeros(len(row), dtype=torch.float64).index_fill_(0, torch.tensor(token), 1)
    row = temper(row.cpu().double()[None], sampling.temperature)  # (1, V)
    return keep_top_p(keep_top_k(row, sampling.top_k), sampling.top_p).softmax(-1)[0]


def next_token(
    logits: Tensor, prompt: Sequence[int], answer: Sequence[int], sampling: Sampling, generator: torch.Generator
) -> int:
    """The chosen token of one sequence, given all its earlier ids: (V,) -> an id."""
    if sampling.is_greedy:
        return best(scores(logits, prompt, answer, sampling))
    return int(draw(chances(logits, prompt, answer, sampling)[None], [generator]))


def next_tokens(
    logits: Tensor,
    history: Sequence[Sequence[int]],
    sampling: Sampling,
    generators: Sequence[torch.Generator],
) -> list[int]:
    """The chosen token of each row, given all its earlier ids: (B, V) -> B ids."""
    rows = zip(logits, history, generators, strict=True)
    return [next_token(row, ids, (), sampling, generator) for row, ids, generator in rows]
