"""How initialisation, learning rate, decay and forward scales depend on shape: one table for SP, muP and CompleteP.

The standard parametrization (SP) is muP at width multiplier 1, and muP is CompleteP at depth multiplier 1 but for its
powers, so nothing anywhere asks which of the three it is.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Role = Literal["embedding", "hidden", "residual_out", "bias", "norm", "low_rank_in", "low_rank_out", "low_rank_table"]
ROLES: tuple[Role, ...] = get_args(Role)[:5]
"""Those of pretraining; low-rank updates come only when a model is adapted."""

TRUNCATION = 2.0
"""Weights are drawn from a normal cut at this many standard deviations."""


class Row(NamedTuple):
    """What the table says of one role."""

    init_std: float
    """Standard deviation of the parent normal; 0 means constant (biases 0, LayerNorm weight 1)."""
    lr_scale: float
    """Factor on the scheduled learning rate."""
    decay_scale: float
    """Factor on the decoupled weight decay; 0 means none."""
    eps_scale: float
    """Factor on Adam's epsilon."""


@dataclass(frozen=True)
class Parametrization:
    """A table role -> (init std, lr scale, decay, epsilon) plus the forward scales (Dey et al. 2023, section 2.3).

    What concerns depth is from CompleteP (Dey et al. 2025, arXiv 2505.01618, table 1) and neutral by default.
    """

    n_layers: int
    """Depth L."""
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
    depth_multiplier: float = 1.0
    """L / L_base; 1 is no transfer over depth."""
    depth_power: float = 1.0
    """alpha: every residual branch is multiplied by depth_multiplier to minus this power; 1 in CompleteP."""
    residual_init_power: float = 0.5
    """Projections into the residual stream start smaller by 2 L to this power: 1/2 in SP and muP, 0 in CompleteP."""
    decay_power: float = 0.0
    """Weight decay of hidden matrices is multiplied by m to this power: 0 as published, 1 in CompleteP."""
    eps_power: float = 0.0
    """Adam's epsilon follows the size of the gradients to this power: 0 as published, 1 in CompleteP."""

    @property
    def attention_scale(self) -> float:
        """Factor on q k^T before the softmax."""
        return self.d_head**-self.attention_power

    @property
    def logit_scale(self) -> float:
        """Factor on the logits."""
        return self.output_alpha / self.width_multiplier

    @property
    def residual_scale(self) -> float:
        """Factor on what each residual branch adds to the stream."""
        return self.depth_multiplier**-self.depth_power

    def row(self, role: Role) -> Row:
        """The table's row for a role."""
        m, std = self.width_multiplier, self.base_init_std
        depth_lr = self.depth_multiplier ** (self.depth_power - 1)
        out_std = std / math.sqrt(m) * (2 * self.n_layers) ** -self.residual_init_power
        decay = m**self.decay_power
        eps = m**-self.eps_power
        inner_eps = (m / self.residual_scale) ** -self.eps_power
        return {
            "embedding": Row(std, 1.0, 1.0, eps),
            "hidden": Row(std / math.sqrt(m), depth_lr / m, decay, inner_eps),
            "residual_out": Row(out_std, depth_lr / m, decay, inner_eps),
            "bias": Row(0.0, depth_lr, 0.0, inner_eps),
            "norm": Row(0.0, depth_lr, 0.0, inner_eps),
            # Into a rank that does not grow, as an output layer; out of it, as an embedding (Hayou et al. 2024).
            "low_rank_in": Row(std / math.sqrt(m), depth_lr / m, 0.0, inner_eps),
            "low_rank_out": Row(0.0, depth_lr, 0.0, inner_eps),
            "low_rank_table": Row(std, 1.0, 0.0, eps),  # both factors of a table's update: neither side is a fan-in
        }[role]

    def table(self) -> dict[Role, Row]:
        """All rows of pretraining, in the order of the roles."""
        return {role: self.row(role) for role in ROLES}
