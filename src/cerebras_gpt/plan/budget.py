"""From minutes on this machine to a plan: of all small sizes, the one with the least predicted loss."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from cerebras_gpt.plan.families import mup
from cerebras_gpt.plan.laws import ParametricLaw, effective_tokens
from cerebras_gpt.plan.plan import Plan, Prediction
from cerebras_gpt.plan.sizes import MUP_PEAK_LR, WIDTHS, small_architecture

SEQ_LEN = 256
BATCH_SIZE = 8
"""2,048 tokens a step: a run of minutes needs many steps more than large ones."""
WARMUP_FRACTION = 0.05
"""Of all steps; the published 375M tokens of warm-up are more than a run of minutes sees."""
START_WIDTH = 128
PILOT_FRACTION = 0.05
"""Of all steps; how long the pilot is."""
FEWEST_PILOT_STEPS = 40

MOST_EPOCHS = 40.0
"""Muennighoff et al. 2023: text read more often than this teaches nothing more."""

PUBLISHED_VALUES = "learning rate, init std, embedding scale: published muP values (Dey et al. 2023), over the width"

SMALL_RUNS = ParametricLaw(E=0.935, A=4.9e04, alpha=1.000, B=20.759, beta=0.2600, band=0.070)
"""Bits per byte of runs of minutes on the built-in corpora, fitted by benchmarks/small_runs.py; its band is how far
predictions from a pilot were off there. A corpus of its own difficulty scales the law, and the pilot measures that."""


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
    """The vocabulary for so much text: the power of two nearest to twice its square root, from 512 to 32,768.

    Longer tokens carry more text through every step, but each must occur often enough to be learned, and its row of
    the table costs time: 8,192 for 12 MB, 32,768 for 250 MB; far above that GPT-2's 50,257 are right.
    """
    return int(min(32768, max(512, 2 ** round(1 + math.log2(max(1, n_bytes)) / 2))))


def small_plan(d_model: int, text: Text, steps: int) -> Plan:
    """The muP recipe at one small width: the published learning rate, init std and embedding scale, transferred."""
    architecture = small_architecture(d_model, text.vocab_size, min(SEQ_LEN, max(16, text.n_tokens // 64)))
    steps = max(2, steps)
    return Plan(
        name=f"{architecture.n_parameters / 1e6:.2g}M",
        architecture=architecture,
        parametrization=mup(architecture),
        batch_size=BATCH_SIZE,
        steps=steps,
        warmup_steps=max(1, round(WARMUP_FRACTION * steps)),
        peak_lr=MUP_PEAK_LR,
        reasons=(PUBLISHED_VALUES,),
    )


def steps_in(minutes: float, plan: Plan, tokens_per_second: float) -> int:
    """Steps of the plan that fit into so many minutes."""
    return max(2, int(60 * minutes * tokens_per_second / plan.tokens_per_step))


def size_for(minutes: float, text: Text, speed: Speed) -> int:
    """The width whose predicted loss after so many minutes is least.

    Climbs from one width to a better neighbour, measuring each size that it looks at: the loss falls and then rises
    with the width, because a wider model sees fewer tokens in the same time.
    """
    losses: dict[int, float] = {}

    def loss(index: int) -> float:
        if index not in losses:
            candidate = small_plan(WIDTHS[index], text, 2)
            steps = steps_in(minutes, candidate, speed(candidate))
            losses[index] = law_loss(small_plan(WIDTHS[index], text, steps), text)
        return losses[index]

    best = WIDTHS.index(START_WIDTH)
    while (near := min(range(max(0, best - 1), min(len(WIDTHS), best + 2)), key=loss)) != best:
        best = near
    return WIDTHS[best]


def law_loss(plan: Plan, text: Text) -> float:
    """Bits per byte by the law of small runs, repeated text counted for less than new text."""
    return SMALL_RUNS.loss(plan.architecture.n_parameters, effective_tokens(plan.tokens, text.n_tokens))


def pilot_of(plan: Plan) -> Plan:
    """A short run of the same model with a whole schedule of its own."""
    steps = max(FEWEST_PILOT_STEPS, round(PILOT_FRACTION * plan.steps))
    warmup = max(1, round(WARMUP_FRACTION * steps))
    return replace(plan, name=f"{plan.name} pilot", steps=steps, warmup_steps=warmup, evaluations=1, saves=1)


def predicted(plan: Plan, pilot: Plan, pilot_bits: float, text: Text, minutes: float) -> Plan:
    """The plan with the loss to expect: the pilot's, times what the law says that the longer run gains."""
    expected = pilot_bits * law_loss(plan, text) / law_loss(pilot, text)
    low, high = expected / (1 + SMALL_RUNS.band), expected * (1 + SMALL_RUNS.band)
    prediction = Prediction("law of small runs from a pilot", expected, low, high)
    return replace(plan, prediction=prediction, reasons=reasons(plan, pilot, pilot_bits, text, minutes))


def reasons(plan: Plan, pilot: Plan, pilot_bits: float, text: Text, minutes: float) -> tuple[str, ...]:
    """Why each figure is what it is; the plan already says it of the values that muP carries over."""
    shape = plan.architecture
    return (
        f"size: of the widths measured here, the least loss after {minutes:g} minutes by the law of small runs",
        f"depth and heads: {shape.n_layers} layers and heads of {shape.d_head} follow from width {shape.d_model}",
        f"vocabulary: {text.vocab_size:,}, near twice the square root of {text.n_bytes / 1e6:.1f} MB of text",
        f"tokens: {plan.tokens / text.n_tokens:.2f} epochs of {text.n_tokens:,}, as many as fit into the time",
        *surplus(plan, text, minutes),
        *plan.reasons,
        f"prediction: {pilot_bits:.3f} bits per byte after a pilot of {pilot.tokens:,} tokens, carried on by the law",
    )


def surplus(plan: Plan, text: Text, minutes: float) -> tuple[str, ...]:
    """What to say of a time that is too long for the text."""
    enough = minutes * MOST_EPOCHS * text.n_tokens / plan.tokens
    if enough >= minutes:
        return ()
    return (
        f"caution: beyond {MOST_EPOCHS:g} epochs nothing more is learned (Muennighoff et al. 2023); pack more text, or "
        f"plan --minutes {enough:.3g}",
    )
