"""The published sizes, the shapes between and below them, and their recipes."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from cerebras_gpt import config
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.plan.families import mup, standard

Family = Literal["sp", "mup", "sp-yaml", "mup-yaml"]
"""As the paper says, and as the released configurations say where those differ."""

Decay = Literal["linear", "cosine"]


class Size(NamedTuple):
    """What differs between the published sizes (Dey et al. 2023, table 1, and the released configurations)."""

    d_model: int
    n_layers: int
    n_heads: int
    batch_size: int
    """Sequences of 2,048 tokens in one step."""
    peak_lr: float
    """Peak learning rate in the standard parametrization."""
    decay: Decay
    adam_eps: float = 1e-8
    notes: tuple[str, ...] = ()
    """Where sources differ, and what this row cannot say."""


NOTE_STD = "residual_out std: 0.02/sqrt(2 L) by the rule (sp), 0.0025 as configured in the release (sp-yaml)"
NOTE_DECAY = "decay: linear as in the paper (mup), cosine as configured in the release (mup-yaml)"
NOTE_PHASES = "released run: 720 sequences a step for its first 84e9 tokens, then 1080"

SIZES: dict[str, Size] = {
    "111M": Size(768, 10, 12, 120, 6e-4, "linear"),
    "256M": Size(1088, 14, 17, 264, 6e-4, "linear"),
    "590M": Size(1536, 18, 12, 264, 2e-4, "linear"),
    "1.3B": Size(2048, 24, 16, 528, 2e-4, "cosine", notes=(NOTE_STD,)),
    "2.7B": Size(2560, 32, 32, 528, 2e-4, "cosine"),
    "6.7B": Size(4096, 32, 32, 1040, 1.2e-4, "linear", adam_eps=1e-9),
    "13B": Size(5120, 40, 40, 1080, 1.2e-4, "cosine", adam_eps=1e-9, notes=(NOTE_STD, NOTE_PHASES)),
}

PUBLISHED_VOCAB_SIZE = 50257
PUBLISHED_SEQ_LEN = 2048

RELEASED_RESIDUAL_OUT_STD = {"1.3B": 0.0025, "13B": 0.0025}
"""Where the released configurations print the value of 32 layers; `sp` uses 0.02/sqrt(2 L), like all others."""

MUP_PEAK_LR = 6e-3
"""eta_base, tuned once on a proxy of width 256 and used at every muP size."""

MUP_DECAY: Decay = "linear"
"""As in the paper, for all sizes."""

RELEASED_MUP_DECAY: dict[str, Decay] = {"1.3B": "cosine", "2.7B": "cosine"}
"""Where the released muP configurations say otherwise."""


class Recipe(NamedTuple):
    """How one size is trained in one family."""

    peak_lr: float
    decay: Decay
    parametrization: Callable[[Architecture], Parametrization]
    notes: tuple[str, ...] = ()


def with_residual_out_std(std: float) -> Callable[[Architecture], Parametrization]:
    """The standard parametrization whose residual projections start with that std at the given shape."""

    def parametrization(architecture: Architecture) -> Parametrization:
        table = standard(architecture)
        power = math.log(table.base_init_std / std) / math.log(2 * architecture.n_layers)
        return replace(table, residual_init_power=power)

    return parametrization


SP = {name: Recipe(size.peak_lr, size.decay, standard, size.notes) for name, size in SIZES.items()}
MUP = {
    name: Recipe(MUP_PEAK_LR, MUP_DECAY, mup, (NOTE_DECAY,) if name in RELEASED_MUP_DECAY else ())
    for name in ("111M", "256M", "590M", "1.3B", "2.7B")
}
SP_YAML = {
    name: SP[name]._replace(parametrization=with_residual_out_std(std))
    for name, std in RELEASED_RESIDUAL_OUT_STD.items()
}
MUP_YAML = {name: MUP[name]._replace(decay=decay) for name, decay in RELEASED_MUP_DECAY.items()}

FAMILIES: dict[Family, dict[str, Recipe]] = {
    "sp": SP,
    "mup": MUP,
    "sp-yaml": SP | SP_YAML,
    "mup-yaml": MUP | MUP_YAML,
}


def architecture(name: str, vocab_size: int = PUBLISHED_VOCAB_SIZE, seq_len: int = PUBLISHED_SEQ_LEN) -> Architecture:
    """The shape of a published size; the name counts parameters at the published vocabulary and length."""
    if name not in SIZES:
        raise ValueError(config.unknown("size", name, SIZES))
    size = SIZES[name]
    return Architecture(size.d_model, size.n_layers, size.n_heads, vocab_size, seq_len)


WIDTHS = (64, 96, 128, 160, *range(192, 769, 64))
"""Widths of the small sizes; the last is that of 111M."""

ASPECT_RATIO = 80
"""d_model per layer, which the published shapes keep close to (model card of the release)."""


def small_architecture(d_model: int, vocab_size: int, seq_len: int) -> Architecture:
    """A shape below 111M: the family's aspect ratio, at least two layers, heads of 64 where they fit and else of 32.

    At width 768 this is 111M itself. At small widths a deeper model costs time for little: compare two and three
    layers with benchmarks/small_runs.py --grid "sotu:192x2x600 sotu:192x3x600".
    """
    if d_model < 32 or d_model % 32:
        raise ValueError(f"d_model {d_model} is not a multiple of 32; choose one of {', '.join(map(str, WIDTHS))}")
    d_head = 64 if d_model % 64 == 0 else 32
    return Architecture(d_model, max(2, round(d_model / ASPECT_RATIO)), d_model // d_head, vocab_size, seq_len)


PUBLISHED = sorted(SIZES.values())
"""From narrow to wide."""

FAMILY_WIDTHS = (*WIDTHS, *range(832, 1537, 64), *range(1664, 5121, 128))
"""Widths from the smallest size to 13B; the published ones are among them."""


def family_architecture(d_model: int, vocab_size: int, seq_len: int) -> Architecture:
    """A shape of any of FAMILY_WIDTHS: small, published, or between two published ones.

    Between them the layers are interpolated over the width and heads are 64 wide, from width 1,536 on 128; at a
    published width everything is as published.
    """
    if d_model <= WIDTHS[-1]:
        return small_architecture(d_model, vocab_size, seq_len)
    published = next((size for size in PUBLISHED if size.d_model == d_model), None)
    if published is not None:
        return Architecture(d_model, published.n_layers, published.n_heads, vocab_size, seq_len)
    widths, depths = [size.d_model for size in PUBLISHED], [size.n_layers for size in PUBLISHED]
    d_head = 128 if d_model > 1536 else 64
    return Architecture(d_model, round(interpolated(d_model, widths, depths)), d_model // d_head, vocab_size, seq_len)


def size_name(n_parameters: int) -> str:
    """A count of parameters as sizes are called: 57.5M, 2.7B."""
    return f"{n_parameters / 1e9:.2g}B" if n_parameters >= 1e9 else f"{n_parameters / 1e6:.3g}M"


def interpolated(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """The value at x on the straight lines through the points, the last ones continued; xs ascend."""
    i = min(max(1, bisect_left(xs, x)), len(xs) - 1)
    return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])


def family_batch_tokens(n_parameters: float) -> float:
    """Tokens of a step for a compute-optimal size: the published ones, straight lines in both logarithms between.

    Below 111M in proportion to the parameters, so that such a run has the about 9,000 steps of 111M, and never fewer
    than 2,048; Dey et al. 2023 say that the best batch differed by size, and print one for each.
    """
    sizes = [(architecture(name).n_parameters, size.batch_size * PUBLISHED_SEQ_LEN) for name, size in SIZES.items()]
    smallest, tokens = sizes[0]
    if n_parameters <= smallest:
        return max(FEWEST_BATCH_TOKENS, tokens * n_parameters / smallest)
    x, y = ([math.log(size[i]) for size in sizes] for i in (0, 1))
    return math.exp(interpolated(math.log(n_parameters), x, y))


FEWEST_BATCH_TOKENS = 2048
"""Of the smallest sizes, as in runs of minutes."""
