"""From minutes on this machine to a plan: of all small sizes, the one with the least predicted loss."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from cerebras_gpt.plan.laws import ParametricLaw, effective_tokens
from cerebras_gpt.plan.plan import Plan, Prediction
from cerebras_gpt.plan.sizes import WIDTHS, mup, small_architecture

SEQ_LEN = 256
BATCH_SIZE = 8
"""2,048 tokens a step: a run of minutes needs many steps more than large ones."""
PEAK_LR = 1.2e-2
START_WIDTH = 128
WARMUP_FRACTION = 0.05
"""Of all steps; the published 375M tokens of warm-up are more than a run of minutes sees."""


class Text(NamedTuple):
    """What the planner must know of the data at hand."""

    vocab_size: int
    n_tokens: int
    """Of the train split."""
    n_bytes: int
    """Of the train split."""


SMALL_RUNS = ParametricLaw(E=0.6, A=3.0, alpha=0.12, B=20.0, beta=0.24, band=0.1)

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


def plan_for_minutes(minutes: float, text: Text, speed: Speed) -> Plan:
    """The small size whose predicted loss after so many minutes is least, with the steps that fit into them.

    Climbs from one width to a better neighbour, measuring each size that it looks at: the loss falls and then rises
    with the width, because a wider model sees fewer tokens in the same time.
    """
    steps_by_width: dict[int, int] = {}

    def loss(index: int) -> float:
        d_model = WIDTHS[index]
        if d_model not in steps_by_width:
            candidate = small_plan(d_model, text, 1)
            steps_by_width[d_model] = int(60 * minutes * speed(candidate) / candidate.tokens_per_step)
        return expected(small_plan(d_model, text, steps_by_width[d_model]), text)

    best = WIDTHS.index(START_WIDTH)
    while (near := min(range(max(0, best - 1), min(len(WIDTHS), best + 2)), key=loss)) != best:
        best = near
    d_model = WIDTHS[best]
    plan = small_plan(d_model, text, steps_by_width[d_model])
    return replace(plan, prediction=predict(plan, text), reasons=reasons(plan, text, minutes))


def expected(plan: Plan, text: Text) -> float:
    """Loss by the law of small runs, repeated text counted for less than new text."""
    return SMALL_RUNS.loss(plan.architecture.n_parameters, effective_tokens(plan.tokens, text.n_tokens))


def predict(plan: Plan, text: Text) -> Prediction:
    """The band in which the held-out loss of the plan should end."""
    tokens = effective_tokens(plan.tokens, text.n_tokens)
    low, high = SMALL_RUNS.interval(plan.architecture.n_parameters, tokens)
    return Prediction("law of small runs", expected(plan, text), low, high)


def reasons(plan: Plan, text: Text, minutes: float) -> tuple[str, ...]:
    """Why each figure is what it is."""
    shape = plan.architecture
    return (
        f"size: least predicted loss after {minutes:g} minutes at the speed measured here",
        f"depth and heads: {shape.n_layers} layers and heads of {shape.d_head} follow from width {shape.d_model}",
        f"vocabulary: {text.vocab_size:,} for {text.n_bytes / 1e6:.1f} MB of text",
        f"text: {plan.tokens / text.n_tokens:.2f} epochs of {text.n_tokens:,} tokens",
        "learning rate, init std and embedding scale: muP, tuned on a small proxy",
    )
