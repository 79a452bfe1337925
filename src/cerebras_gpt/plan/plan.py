"""The plan of a run: the one noun that says what is trained, on how much, and how; it is the configuration."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt import config
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.parametrization import Parametrization, Role
from cerebras_gpt.plan import sizes
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.guard import Guard
from cerebras_gpt.plan.memory import checkpoint_bytes, training_memory

TOKENS_PER_PARAMETER = 20.0
"""Compute-optimal on the Pile, all parameters counted (Hoffmann et al. 2022; Dey et al. 2023)."""

WARMUP_TOKENS = 375_000_000
"""Warm-up was fixed in tokens, not steps: the batch differs by size, so the steps follow."""


@dataclass(frozen=True)
class Prediction:
    """The held-out loss that a law expects of a plan, with its 90 % band."""

    law: str
    """Which law says so."""
    bits_per_byte: float
    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """Everything that decides the result of a training run, and nothing that does not."""

    name: str
    architecture: Architecture
    parametrization: Parametrization
    batch_size: int
    """Sequences of seq_len tokens in one optimizer step, over all processes."""
    steps: int
    """Optimizer steps."""
    warmup_steps: int
    """Steps of linear warm-up from 0 to the peak."""
    peak_lr: float
    """Peak learning rate at lr scale 1 (eta_base in muP)."""
    decay: sizes.Decay = "linear"
    """Shape of the decay from the peak to final_lr_fraction."""
    final_lr_fraction: float = 0.1
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    adam_eps: float = 1e-8
    grad_clip: float = 1.0
    """Largest global gradient norm."""
    seed: int = 0
    evaluations: int = 20
    """How many times the held-out loss is measured, the end included."""
    saves: int = 10
    """How many checkpoints are written, the end included."""
    prediction: Prediction | None = None
    reasons: tuple[str, ...] = field(default=())
    """How each figure was chosen, in words, for the person who reads the plan."""
    guard: Guard = Guard()  # noqa: RUF009  (it is frozen)
    """What to do about a step that would spoil the run."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; choose 0 to {self.steps}, the steps of the run")
        if not 0 < self.peak_lr < math.inf:
            raise ValueError(f"peak_lr is {self.peak_lr}; it must be positive and finite")
        ours, theirs = self.architecture, self.parametrization
        if (ours.n_layers, ours.d_head) != (theirs.n_layers, theirs.d_head):
            raise ValueError(
                f"the parametrization is for {theirs.n_layers} layers and heads of {theirs.d_head}, "
                f"the architecture has {ours.n_layers} and {ours.d_head}; make them agree"
            )

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one optimizer step."""
        return self.batch_size * self.architecture.seq_len

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.tokens_per_step * self.steps

    @property
    def tokens_per_parameter(self) -> float:
        """Tokens over all parameters, embeddings included; 20 is compute-optimal (Hoffmann et al. 2022)."""
        return self.tokens / self.architecture.n_parameters

    def to_json(self) -> str:
        """The plan as indented JSON."""
        return json.dumps(config.to_mapping(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """A plan from JSON; raises ValueError naming an unknown key and its nearest neighbour."""
        return config.from_mapping(cls, json.loads(text))

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """A plan from a file, or from the plan.json in a folder; raises ValueError naming a file that is not one."""
        file = path / "plan.json" if path.is_dir() else path
        try:
            return cls.from_json(file.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is not a plan: {error}") from None


def optimal_steps(architecture: Architecture, batch_size: int, ratio: float = TOKENS_PER_PARAMETER) -> int:
    """Whole steps of batch_size sequences in ratio tokens per parameter."""
    return int(ratio * architecture.n_parameters / (batch_size * architecture.seq_len))


def warmup_steps(tokens_per_step: int) -> int:
    """Whole steps in the published 375M tokens of warm-up."""
    return WARMUP_TOKENS // tokens_per_step


def published_plan(
    name: str,
    family: sizes.Family = "sp",
    vocab_size: int = sizes.PUBLISHED_VOCAB_SIZE,
    seq_len: int = sizes.PUBLISHED_SEQ_LEN,
) -> Plan:
    """The run of a published size, standard (sp) or maximal update (mup); only size-specific figures are stored.

    Another vocabulary or length keeps the published batch in tokens, and 20 tokens per parameter of that shape.
    """
    recipes = sizes.FAMILIES.get(family)
    if recipes is None:
        raise ValueError(config.unknown("family", family, sizes.FAMILIES))
    if name not in recipes:
        raise ValueError(config.unknown("size", name, recipes))
    size, recipe = sizes.SIZES[name], recipes[name]
    architecture = sizes.architecture(name, vocab_size, seq_len)
    batch_size = max(1, size.batch_size * sizes.PUBLISHED_SEQ_LEN // seq_len)
    return Plan(
        name=name,
        architecture=architecture,
        parametrization=recipe.parametrization(architecture),
        batch_size=batch_size,
        steps=optimal_steps(architecture, batch_size),
        warmup_steps=warmup_steps(batch_size * seq_len),
        peak_lr=recipe.peak_lr,
        decay=recipe.decay,
        adam_eps=size.adam_eps,
        reasons=(
            "shape, batch, learning rate and decay: as published (Dey et al. 2023)",
            f"tokens: {TOKENS_PER_PARAMETER:g} per parameter, compute-optimal (Hoffmann et al. 2022)",
            f"warm-up: the published {WARMUP_TOKENS / 1e6:g}M tokens",
            *recipe.notes,
        ),
    )


def overridden(plan: Plan, settings: Mapping[str, str]) -> Plan:
    """The plan with some values replaced, as from a command line: {"peak_lr": "0.01", "architecture.n_layers": "4"}.

    The parametrization follows the depth and head width; nothing else is planned anew, and the prediction is dropped
    because it was for another plan. Raises ValueError naming an unknown key and its nearest neighbour.
    """
    if not settings:
        return plan
    shape = {key.partition(".")[2]: text for key, text in settings.items() if key.startswith("architecture.")}
    architecture = config.overridden(plan.architecture, shape)
    multiplier = "parametrization.width_multiplier"
    if architecture.d_model != plan.architecture.d_model and multiplier not in settings:
        raise ValueError(f"another d_model also needs {multiplier}: 1 in SP, d_model / base width in muP")
    depth, table = "parametrization.depth_multiplier", plan.parametrization
    if architecture.n_layers != table.n_layers and not table.residual_init_power and depth not in settings:
        raise ValueError(f"another n_layers also needs {depth}: n_layers / base depth in CompleteP")
    follows = {
        "parametrization.n_layers": str(architecture.n_layers),
        "parametrization.d_head": str(architecture.d_head),
        "prediction": "null",
    }
    changed = config.overridden(plan, follows | dict(settings))
    return replace(
        changed, reasons=(*plan.reasons, *(f"{key} = {text}: set by hand" for key, text in settings.items()))
    )


def describe(plan: Plan) -> list[tuple[str, str]]:
    """The plan as rows of label and value, for printing."""
    shape = plan.architecture
    memory = training_memory(shape, micro_batch_size=1)
    rows = [
        ("name", plan.name),
        ("shape", f"width {shape.d_model}, {shape.n_layers} layers, {shape.n_heads} heads of {shape.d_head}"),
        ("vocabulary and length", f"{shape.vocab_size:,} tokens, {shape.seq_len:,} positions"),
        ("parameters", f"{shape.n_parameters:,} (embeddings {shape.n_embedding_parameters:,})"),
        ("tokens", f"{plan.tokens:,} ({plan.tokens_per_parameter:.1f} per parameter)"),
        ("steps", f"{plan.steps:,} of {plan.batch_size:,} sequences ({plan.tokens_per_step:,} tokens)"),
        (
            "learning rate",
            f"peak {plan.peak_lr:.3g}, {plan.decay} decay to {plan.peak_lr * plan.final_lr_fraction:.3g}",
        ),
        ("warm-up", f"{plan.warmup_steps:,} steps ({plan.warmup_steps * plan.tokens_per_step:,} tokens)"),
        ("training compute", f"{training_flops(shape, plan.tokens):.3g} FLOPs (convention of Dey et al. 2023)"),
        ("memory", f"{memory.total / 1e9:.3g} GB to train one sequence at a time in 16 bits"),
        ("checkpoint", f"{checkpoint_bytes(shape) / 1e9:.3g} GB each, {plan.saves} on the way"),
    ]
    if plan.prediction is not None:
        expected = plan.prediction
        band = f"{expected.low:.3f} to {expected.high:.3f}"
        rows.append(("predicted loss", f"{expected.bits_per_byte:.3f} bits per byte ({band}; {expected.law})"))
    return rows


class RoleRow(NamedTuple):
    """What one role of tensor gets in a plan."""

    role: Role
    init_std: float
    lr_scale: float
    peak_lr: float
    weight_decay: float
    adam_eps: float


def role_table(plan: Plan) -> list[RoleRow]:
    """The parametrization's table with the plan's learning rate in it."""
    return [
        RoleRow(
            role,
            row.init_std,
            row.lr_scale,
            plan.peak_lr * row.lr_scale,
            plan.weight_decay * row.decay_scale,
            plan.adam_eps * row.eps_scale,
        )
        for role, row in plan.parametrization.table().items()
    ]
