"""The plan of a run: the one noun that says what is trained, on how much, and how; it is the configuration."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cerebras_gpt import config
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.parametrization import Parametrization


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
    decay: Literal["linear", "cosine"] = "linear"
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
        """A plan from a file, or from the plan.json in a folder."""
        return cls.from_json((path / "plan.json" if path.is_dir() else path).read_text("utf-8"))
