"""The shape of a network: everything that fixes its tensors, and nothing about how it is trained."""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["gelu", "gelu_new", "relu"]

VOCAB_MULTIPLE = 64
"""The head product is computed on a vocabulary padded up to this multiple; results do not change."""


@dataclass(frozen=True)
class Architecture:
    """A GPT-2/3-style decoder: pre-LayerNorm, learned positions, biases, tied head (Dey et al. 2023, section 2)."""

    d_model: int
    """Width of the residual stream."""
    n_layers: int
    """Number of decoder blocks."""
    n_heads: int
    """Attention heads; d_model must be a multiple of it."""
    vocab_size: int = 50257
    """Rows of the token table; 50257 is GPT-2's vocabulary."""
    seq_len: int = 2048
    """Longest context, and rows of the position table."""
    ffn_multiple: int = 4
    """d_ffn / d_model."""
    activation: Activation = "gelu"
    """Exact erf GELU, its tanh approximation, or ReLU."""
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "n_heads", "vocab_size", "seq_len", "ffn_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}; change one of them")

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @property
    def d_ffn(self) -> int:
        """Width of the feed-forward layer."""
        return self.ffn_multiple * self.d_model

    @property
    def padded_vocab_size(self) -> int:
        """The vocabulary rounded up to a multiple that matrix products like."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @property
    def n_embedding_parameters(self) -> int:
        """Parameters of the token and position tables."""
        return (self.vocab_size + self.seq_len) * self.d_model

    @property
    def n_parameters(self) -> int:
        """All parameters, the tied head counted once: V d + T d + L (12 d^2 + 13 d) + 2 d at d_ffn = 4 d."""
        d, f = self.d_model, self.d_ffn
        attention = 4 * d * d + 4 * d
        feed_forward = 2 * d * f + f + d
        norms = 4 * d
        return self.n_embedding_parameters + self.n_layers * (attention + feed_forward + norms) + 2 * d
