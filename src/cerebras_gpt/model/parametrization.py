"""How initialisation, learning rate, decay and forward scales depend on shape: one table for SP and muP.

The standard parametrization (SP) is muP at width multiplier 1, so nothing anywhere asks which of the two it is.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Role = Literal["embedding", "hidden", "residual_out", "bias", "norm"]
ROLES: tuple[Role, ...] = get_args(Role)

TRUNCATION = 2.0
"""Weights are drawn from a normal cut at this many standard deviations."""


class Row(NamedTuple):
    """What the table says of one role."""

    init_std: float
    """Standard deviation of the parent normal; 0 means constant (biases 0, LayerNorm weight 1)."""
    lr_scale: float
    """Factor on the scheduled learning rate."""
    decays: bool
    """Whether decoupled weight decay applies."""


@dataclass(frozen=True)
class Parametrization:
    """A table role -> (init std, lr scale, decay) plus the forward scales (Dey et al. 2023, section 2.3)."""

    n_layers: int
    """Depth L: projections into the residual stream start smaller by 1/sqrt(2 L)."""
    d_head: int
    """Width of an attention head."""
    width_multiplier: float = 1.0
    """m = d_model / d_base; 1 is the standard parametrization."""
    base_init_std: float = 0.02
    """sigma_base, the standard deviation at width multiplier 1."""
    embedding_scale: float = 1.0
    """m_emb, applied to the sum of token and position embeddings."""
    output_alpha: float = 1.0
    """alpha_out; logits are multiplied by alpha_out / m."""
    attention_power: float = 0.5
    """Attention logits are divided by d_head to this power: 1/2 in SP, 1 in muP."""

    @property
    def attention_scale(self) -> float:
        """Factor on q k^T before the softmax."""
        return self.d_head**-self.attention_power

    @property
    def logit_scale(self) -> float:
        """Factor on the logits."""
        return self.output_alpha / self.width_multiplier

    def row(self, role: Role) -> Row:
        """The table's row for a role."""
        m, std = self.width_multiplier, self.base_init_std
        return {
            "embedding": Row(std, 1.0, True),
            "hidden": Row(std / math.sqrt(m), 1.0 / m, True),
            "residual_out": Row(std / math.sqrt(2 * self.n_layers * m), 1.0 / m, True),
            "bias": Row(0.0, 1.0, False),
            "norm": Row(0.0, 1.0, False),
        }[role]

    def table(self) -> dict[Role, Row]:
        """All rows, in the order of the roles."""
        return {role: self.row(role) for role in ROLES}
