"""The gradient noise scale: what a run measured of it, and the batch that it gives the next plan."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import Row, rows_of

KIND = "noise"
"""Of the rows in metrics.jsonl."""

EVERY = 100
"""Steps between two measurements; one costs about a step, so all together about 1 % of a run."""

MOST_MEASUREMENTS = 256

FEWEST = 4
"""Measurements in the second half of a run that its noise scale rests on; one alone is off by its own size."""

OVERHEAD = 0.2
"""Batch over noise scale, and so the share of tokens that it costs beyond tiny batches: a batch B needs 1 + B / noise
times as many (McCandlish et al. 2018, equation 2.11), and at 20 % Zhang et al. 2024 define the critical batch."""

GROWTH = 0.5
"""Power of the training tokens by which the critical batch grows, whatever the size of the model: 0.47 in Zhang et al.
2024 (arXiv 2410.21676); the best batch, at a free learning rate, grows like D^0.4 in Bergsma et al. 2025 (arXiv
2505.13738)."""

FEWEST_STEPS = 100
"""A plan keeps at least so many, whatever the noise."""

SEQUENCES = 8
"""Larger batches are whole multiples of so many sequences, as all published ones are."""


def measured_every(steps: int) -> int:
    """Steps between two measurements of a run of so many steps."""
    return max(EVERY, math.ceil(steps / MOST_MEASUREMENTS))


class Norms(NamedTuple):
    """Squared norms of the mean gradient over a small and a big batch, and how many tokens those have."""

    small: float
    """Mean over the parts of the big batch."""
    big: float
    small_tokens: float
    big_tokens: float

    @property
    def squared_gradient(self) -> float:
        """Unbiased estimate of the true gradient's squared norm (McCandlish et al. 2018, equation A.2)."""
        b, B = self.small_tokens, self.big_tokens
        return (B * self.big - b * self.small) / (B - b)

    @property
    def variance(self) -> float:
        """Unbiased estimate of the trace of a single token's gradient covariance (the same, equation A.3)."""
        return (self.small - self.big) / (1 / self.small_tokens - 1 / self.big_tokens)


class NoiseScale(NamedTuple):
    """What a run says of its gradient noise."""

    tokens: float
    """tr(covariance) / |gradient|^2: the batch at which both halves of an update, signal and noise, are equal."""
    error: float
    """Standard error."""
    n: int
    """Measurements that it rests on."""


def ratio(pairs: Sequence[tuple[float, float]]) -> NoiseScale:
    """Mean variance over mean squared gradient, each averaged alone: the ratio of one measurement means little."""
    above, below = fmean(v for v, _ in pairs), fmean(g for _, g in pairs)
    tokens = above / below if below > 0 else math.nan
    rest = [v - tokens * g for v, g in pairs]
    error = stdev(rest) / below / math.sqrt(len(pairs)) if len(pairs) > 1 and below > 0 else math.nan
    return NoiseScale(tokens, error, len(pairs))


def pairs_of(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Variance and squared gradient of every measurement, oldest first."""
    found = [row for row in rows if row.get("kind") == KIND]
    return [(float(str(row["variance"])), float(str(row["squared_gradient"]))) for row in found]


def noise_of(run: Path) -> NoiseScale:
    """The noise scale over the second half of a run; raises ValueError where it measured too little of it."""
    if not (run / "metrics.jsonl").exists():
        raise FileNotFoundError(f"{run} holds no metrics.jsonl; give a run folder, the --out of pretrain")
    pairs = pairs_of(rows_of(run / "metrics.jsonl", KIND))
    half = pairs[len(pairs) // 2 :]
    if len(half) < FEWEST:
        raise ValueError(
            f"{run} measured its gradient noise {len(pairs)} times, {2 * FEWEST} are needed; "
            f"give a run of {2 * FEWEST * EVERY} steps or more"
        )
    found = ratio(half)
    if not 0 < found.tokens < math.inf:
        raise ValueError(f"{run} has a gradient lost in its noise; give a longer run")
    return found


def batch_from_noise(plan: Plan, noise: NoiseScale, measured_on: float) -> Plan:
    """The plan on equally many tokens with the batch that the noise of another run, on so many tokens, asks for.

    The learning rate stays and the prediction is dropped, because it was for another batch.
    """
    seq_len = plan.architecture.seq_len
    wanted = OVERHEAD * noise.tokens * (plan.tokens / measured_on) ** GROWTH
    most = plan.tokens / max(1, min(FEWEST_STEPS, plan.steps))
    batch_size = whole(min(wanted, most) / seq_len)
    steps = max(2, round(plan.tokens / (batch_size * seq_len)))
    warmup_steps = min(steps - 1, max(1, round(plan.warmup_steps / plan.steps * steps)))
    made = replace(plan, batch_size=batch_size, steps=steps, warmup_steps=warmup_steps, prediction=None)
    return replace(made, reasons=(*plan.reasons, *_reasons(plan, made, noise, measured_on)))


def whole(sequences: float) -> int:
    """The number of sequences that a batch has: a multiple of SEQUENCES, or fewer."""
    return SEQUENCES * round(sequences / SEQUENCES) if sequences >= SEQUENCES else max(1, round(sequences))


def _reasons(plan: Plan, made: Plan, noise: NoiseScale, measured_on: float) -> tuple[str, ...]:
    factor = made.tokens_per_step / plan.tokens_per_step
    fits = f"; not fewer than {FEWEST_STEPS} steps" if made.steps <= FEWEST_STEPS else ""
    return (
        f"batch: {made.tokens_per_step:,} tokens in place of the {plan.tokens_per_step:,} above: {OVERHEAD:g} of the "
        f"gradient noise scale, {noise.tokens:,.0f} +- {noise.error:,.0f} tokens measured over {measured_on:.3g} "
        f"tokens, times the {GROWTH:g}th power of {plan.tokens / measured_on:.3g} times as many{fits}",
        f"why: a batch of {OVERHEAD:g} noise scales takes {OVERHEAD:.0%} more tokens than a tiny one (McCandlish et "
        "al. 2018), and the scale grows with the tokens, not the size (Zhang et al. 2024)",
        f"learning rate: stays as it was for the other batch; the batch is {factor:.3g} times that, for which the rule "
        f"of Adam (Malladi et al. 2022) would change it by {math.sqrt(factor):.3g} at most",
    )
