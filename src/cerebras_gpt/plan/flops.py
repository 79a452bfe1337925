"""Training FLOPs of a shape, by four named conventions that differ by up to 80 % at 111M: always name yours.

Letters: d width, f feed-forward width, h heads, L layers, T sequence length, V vocabulary. A multiply-add is 2 FLOPs
and a backward pass costs two forwards. Recomputed activations do not count in any of them.
"""

from collections.abc import Callable

from cerebras_gpt import config
from cerebras_gpt.model.architecture import Architecture


def cerebras(architecture: Architecture) -> float:
    """3 L (24 d^2 + 8 T d + 3 h T) + 10 V d per token: the results tables and the scaling law of Dey et al. 2023.

    Recovered from the printed figures, which it reproduces to their two digits. 24 d^2 are the six matrices of a
    layer, 3 h T the softmax. 8 T d is twice the usual count of scores and values, and neither is halved for the causal
    mask. 10 V d is the head three times and the embedding, counted as a dense product, twice.
    """
    return _training(architecture, attention=8)


def cerebras_readme(architecture: Architecture) -> float:
    """As `cerebras` with 4 T d: the training table of the release notes, except for its 2.5e18 at 111M (2.2e18)."""
    return _training(architecture, attention=4)


def standard(architecture: Architecture) -> float:
    """3 [L (24 d^2 + 4 T d) + 2 V d] per token: the matrix products, full attention and the head, nothing else."""
    d, T = architecture.d_model, architecture.seq_len
    layers = architecture.n_layers * (_matrices(architecture) + 4 * T * d)
    return 3.0 * (layers + 2 * architecture.vocab_size * d)


def six_n(architecture: Architecture) -> float:
    """6 N per token with N all parameters (Kaplan et al. 2020; Hoffmann et al. 2022)."""
    return 6.0 * architecture.n_parameters


def _matrices(architecture: Architecture) -> int:
    d, f = architecture.d_model, architecture.d_ffn
    return 8 * d * d + 4 * d * f  # 24 d^2 at f = 4 d


def _training(architecture: Architecture, attention: int) -> float:
    d, T, h = architecture.d_model, architecture.seq_len, architecture.n_heads
    layers = architecture.n_layers * (_matrices(architecture) + attention * T * d + 3 * h * T)
    return 3.0 * layers + 10.0 * architecture.vocab_size * d


FORMULAS: dict[str, Callable[[Architecture], float]] = {
    "cerebras": cerebras,
    "cerebras-readme": cerebras_readme,
    "standard": standard,
    "6nd": six_n,
}
"""Training FLOPs per token by each convention."""


def training_flops(architecture: Architecture, tokens: float, formula: str = "cerebras") -> float:
    """FLOPs of training on so many tokens, by the named convention."""
    if formula not in FORMULAS:
        raise ValueError(config.unknown("FLOP formula", formula, FORMULAS))
    return FORMULAS[formula](architecture) * tokens


def matmul_flops_per_token(architecture: Architecture) -> float:
    """FLOPs that training must spend in matrix products for one token: 6 per weight, 6 L T d of causal attention.

    The weights are those of the blocks and the head; attention counts only the half below the diagonal. Divided by
    the measured peak of a machine this gives its utilisation.
    """
    d, L = architecture.d_model, architecture.n_layers
    weights = L * _matrices(architecture) // 2 + architecture.vocab_size * d
    return 6.0 * weights + 6.0 * L * architecture.seq_len * d
