"""From minutes on this machine to a plan: of all small sizes, the one with the least predicted loss."""

import math
from collections.abc import Callable
from typing import NamedTuple

from cerebras_gpt.plan.laws import DataLimitedLaw
from cerebras_gpt.plan.plan import Plan, Prediction
from cerebras_gpt.plan.sizes import WIDTHS, mup, small_architecture

SEQ_LEN = 256
BATCH_SIZE = 8
"""2,048 tokens a step: a run of minutes needs many steps more than large ones."""
PEAK_LR = 1.2e-2
WARMUP_FRACTION = 0.05
"""Of all steps; the published 375M tokens of warm-up are more than a run of minutes sees."""


class Text(NamedTuple):
    """What the planner must know of the data at hand."""

    vocab_size: int
    n_tokens: int
    """Of the train split."""
    n_bytes: int
    """Of the train split."""


Speed = Callable[[Plan], float]
"""Tokens a second of a plan on this machine."""


def vocabulary_for(n_bytes: int) -> int:
    """The vocabulary for so much text: the power of two nearest to its square root, from 512 to 32,768.

    A token must occur often enough to be learned and an embedding table must stay a small part of a small model:
    4,096 tokens for 12 MB, 32,768 for 1 GB; above that GPT-2's 50,257 are right.
    """
    return int(min(32768, max(512, 2 ** round(math.log2(max(1, n_bytes)) / 2))))


def small_plan(d_model: int, text: Text, steps: int) -> Plan:
    """The muP recipe of the small sizes at one width."""
    architecture = small_architecture(d_model, text.vocab_size, min(SEQ_LEN, max(16, text.n_tokens // 64)))
    return Plan(
        name=f"{architecture.n_parameters / 1e6:.2g}M",
        architecture=architecture,
        parametrization=mup(architecture),
        batch_size=BATCH_SIZE,
        steps=max(2, steps),
        warmup_steps=max(1, round(WARMUP_FRACTION * steps)),
        peak_lr=PEAK_LR,
    )
