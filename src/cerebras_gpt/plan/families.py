"""The three parametrizations by name, and how values tuned once on a proxy carry over to any other shape."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.parametrization import Parametrization


@dataclass(frozen=True)
class Base:
    """The proxy that was tuned, and what of its tuning the parametrization carries on."""

    d_model: int = 256
    """Width at which the width multiplier is 1."""
    n_layers: int = 2
    """Depth at which the depth multiplier is 1; only CompleteP looks at it."""
    init_std: float = 0.02
    """sigma_base."""
    embedding_scale: float = 1.0
    """m_emb."""
    output_alpha: float = 1.0
    """alpha_out."""


SP_BASE = Base()
"""The published standard runs; of the proxy's shape nothing is used."""

MUP_BASE = Base(init_std=0.08, embedding_scale=10.0)
"""The published muP runs: tuned on a proxy of width 256 (Dey et al. 2023, section 2.3)."""

COMPLETEP_BASE = Base()
"""Width, depth and std of the reference implementation's examples (Dey et al. 2025); not tuned for a family of ours."""


def standard(architecture: Architecture, base: Base = SP_BASE) -> Parametrization:
    """The standard parametrization: nothing depends on the width, attention is scaled by 1/sqrt(d_head)."""
    return Parametrization(
        n_layers=architecture.n_layers,
        d_head=architecture.d_head,
        base_init_std=base.init_std,
        embedding_scale=base.embedding_scale,
        output_alpha=base.output_alpha,
    )


def mup(architecture: Architecture, base: Base = MUP_BASE) -> Parametrization:
    """Maximal update parametrization over the width (Dey et al. 2023, section 2.3; Yang et al. 2022)."""
    return Parametrization(
        n_layers=architecture.n_layers,
        d_head=architecture.d_head,
        width_multiplier=architecture.d_model / base.d_model,
        base_init_std=base.init_std,
        embedding_scale=base.embedding_scale,
        output_alpha=base.output_alpha,
        attention_power=1.0,
    )


def completep(architecture: Architecture, base: Base = COMPLETEP_BASE) -> Parametrization:
    """CompleteP, which transfers over width and depth (Dey et al. 2025, arXiv 2505.01618, table 1, alpha = 1)."""
    return replace(
        mup(architecture, base),
        depth_multiplier=architecture.n_layers / base.n_layers,
        residual_init_power=0.0,
        decay_power=1.0,
        eps_power=1.0,
    )


PARAMETRIZATIONS: dict[str, Callable[[Architecture, Base], Parametrization]] = {
    "sp": standard,
    "mup": mup,
    "completep": completep,
}
BASES: dict[str, Base] = {"sp": SP_BASE, "mup": MUP_BASE, "completep": COMPLETEP_BASE}
"""What each parametrization transfers if nothing was tuned."""
