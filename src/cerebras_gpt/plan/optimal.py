"""From compute, tokens or money to the compute-optimal plan of the family, on the text at hand."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from cerebras_gpt import config
from cerebras_gpt.plan.budget import MOST_EPOCHS, PUBLISHED_VALUES, SEQ_LEN, WARMUP_FRACTION, Text
from cerebras_gpt.plan.families import mup
from cerebras_gpt.plan.flops import FORMULAS, training_flops
from cerebras_gpt.plan.laws import effective_tokens
from cerebras_gpt.plan.plan import TOKENS_PER_PARAMETER, WARMUP_TOKENS, Plan
from cerebras_gpt.plan.sizes import (
    FAMILY_WIDTHS,
    MUP_PEAK_LR,
    PUBLISHED_SEQ_LEN,
    PUBLISHED_VOCAB_SIZE,
    SIZES,
    family_architecture,
    family_batch_tokens,
    size_name,
)

ENDLESS = Text(PUBLISHED_VOCAB_SIZE, sys.maxsize, sys.maxsize)
"""No pack at hand: GPT-2's vocabulary, and text enough."""

BEYOND = 2.0
"""How far a budget may lie outside the smallest and the largest size, in tokens per parameter."""

LONGEST_WARMUP = 0.2
"""Of all steps; the published 375M tokens are 17 % of 111M."""

SMALLEST_PUBLISHED = SIZES["111M"].d_model

SEQUENCES = 64
"""Sequences that a batch should have before they get longer than SEQ_LEN."""


class Budget(NamedTuple):
    """What may be spent, in one unit."""

    amount: float
    unit: str
    """FLOPs or tokens, as messages say it."""
    option: str
    """As it is given on the command line."""
    tokens: Callable[[Plan], float]
    """How many tokens of a plan's training it pays for."""


def compute(flops: float, formula: str = "cerebras") -> Budget:
    """Training FLOPs, counted by a named formula."""
    if formula not in FORMULAS:
        raise ValueError(config.unknown("FLOP formula", formula, FORMULAS))
    return Budget(
        _amount(flops, "FLOPs", "1e18"),
        f"FLOPs by the `{formula}` formula",
        "--flops",
        lambda plan: flops / training_flops(plan.architecture, 1, formula),
    )


def reading(tokens: float) -> Budget:
    """Tokens to train on."""
    return Budget(_amount(tokens, "tokens", "1e9"), "tokens", "--tokens", lambda plan: tokens)


def money(cost: float, price: float, device_flops: float) -> float:
    """FLOPs that money buys: at a price of one device for an hour and the FLOP/s that it reaches in training."""
    given = (("--cost", cost, "100"), ("--price", price, "2"), ("--device-flops", device_flops, "1e14"))
    for option, value, example in given:
        if not 0 < value < math.inf:
            raise ValueError(f"{option} {value:g} is not possible; give a positive number such as {example}")
    return cost / price * 3600 * device_flops


def _amount(value: float, unit: str, example: str) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"a budget of {value:g} {unit} is none; give a positive number such as {example}")
    return value


def family_plan(d_model: int, text: Text, tokens: float) -> Plan:
    """The muP plan of a width of the family on so many tokens: shape, batch and warm-up by the family's rules."""
    size = family_architecture(d_model, text.vocab_size, PUBLISHED_SEQ_LEN).n_parameters
    batch_tokens = family_batch_tokens(size)
    longest = 2 ** int(math.log2(max(SEQ_LEN, min(PUBLISHED_SEQ_LEN, batch_tokens / SEQUENCES))))
    seq_len = min(longest, max(16, text.n_tokens // 64))
    architecture = family_architecture(d_model, text.vocab_size, seq_len)
    batch_size = max(8, 8 * round(batch_tokens / seq_len / 8))  # as all published ones are
    steps = max(2, int(tokens / (batch_size * seq_len)))
    return Plan(
        name=size_name(architecture.n_parameters),
        architecture=architecture,
        parametrization=mup(architecture),
        batch_size=batch_size,
        steps=steps,
        warmup_steps=warmup(steps, batch_size * seq_len, d_model),
        peak_lr=MUP_PEAK_LR,
    )


def warmup(steps: int, tokens_per_step: int, d_model: int) -> int:
    """Steps of warm-up: from 111M on the published 375M tokens, at most a fifth of the run; below, 5 % of the steps."""
    if d_model < SMALLEST_PUBLISHED:
        return max(1, round(WARMUP_FRACTION * steps))
    return max(1, min(WARMUP_TOKENS // tokens_per_step, int(LONGEST_WARMUP * steps)))


def optimal_plan(budget: Budget, text: Text = ENDLESS) -> Plan:
    """The size whose tokens per parameter come nearest to 20 when the whole budget is spent on it.

    Raises ValueError naming the nearest possible budget when the family has no such size or the text does not suffice.
    """
    best = min((_spent(budget, d_model, text) for d_model in FAMILY_WIDTHS), key=_distance)
    if _distance(best) > math.log(BEYOND):
        raise ValueError(_outside(budget, best, text))
    check_epochs(best, text)
    return replace(best, reasons=(_size_reason(best, budget), *rules(best), text_reason(best, text)))


def _spent(budget: Budget, d_model: int, text: Text) -> Plan:
    plan = family_plan(d_model, text, 1)
    return family_plan(d_model, text, min(budget.tokens(plan), 1e18))


def _distance(plan: Plan) -> float:
    return abs(math.log(plan.tokens_per_parameter / TOKENS_PER_PARAMETER))


def _optimal_tokens(plan: Plan) -> float:
    return TOKENS_PER_PARAMETER * plan.architecture.n_parameters


def _outside(budget: Budget, nearest: Plan, text: Text) -> str:
    many = nearest.tokens_per_parameter > TOKENS_PER_PARAMETER
    wanted = budget.amount / budget.tokens(nearest) * _optimal_tokens(nearest)
    return (
        f"{budget.amount:.3g} {budget.unit} are too {'many for the largest' if many else 'few for the smallest'} size "
        f"of the family ({nearest.name} with a vocabulary of {text.vocab_size:,}); "
        f"the nearest possible plan: {budget.option} {wanted:.3g}"
    )


def check_epochs(plan: Plan, text: Text) -> None:
    """Refuses a plan that reads its text more often than teaches anything, saying which one does not."""
    most = MOST_EPOCHS * text.n_tokens
    if plan.tokens > most:
        raise ValueError(
            f"too little data: {plan.tokens:.3g} tokens are {plan.tokens / max(1, text.n_tokens):,.0f} epochs of the "
            f"pack's {text.n_tokens:,}, and beyond {MOST_EPOCHS:g} nothing more is learned (Muennighoff et al. 2023); "
            f"pack more text, or take the nearest possible plan: --tokens {most:.3g}"
        )


def text_reason(plan: Plan, text: Text) -> str:
    """How often the plan reads the text at hand, and what the repetition is worth."""
    if text is ENDLESS:
        return f"text: no pack given; enough of it is assumed, in a vocabulary of {text.vocab_size:,}"
    epochs = plan.tokens / text.n_tokens
    worth = effective_tokens(plan.tokens, text.n_tokens)
    return (
        f"text: {epochs:.2f} epochs of {text.n_tokens:,} tokens, worth {worth / plan.tokens:.0%} of as much new text "
        "(Muennighoff et al. 2023, equation 5)"
    )


def _size_reason(plan: Plan, budget: Budget) -> str:
    return (
        f"size: {budget.amount:.4g} {budget.unit} give it {plan.tokens_per_parameter:.1f} tokens per parameter, of all "
        "widths nearest to the compute-optimal 20 (Hoffmann et al. 2022; all parameters counted, embeddings included)"
    )


def rules(plan: Plan) -> tuple[str, ...]:
    """What of a family plan follows from its width, and by which rule."""
    shape = plan.architecture
    published = shape.d_model >= SMALLEST_PUBLISHED
    warmup_rule = "the published 375M tokens, at most a fifth of the run" if published else "5 % of the steps"
    return (
        f"shape: {shape.n_layers} layers and heads of {shape.d_head} follow from width {shape.d_model}, by the "
        "published shapes (Dey et al. 2023, table 1) and lines between them; below 111M d_model / 80",
        f"batch: {plan.tokens_per_step:,} tokens, by the published sizes and lines between them; below 111M in "
        "proportion to the parameters, at least 2,048; whole eights of sequences",
        f"warm-up: {warmup_rule}",
        PUBLISHED_VALUES,
    )
