"""The shape of a network: everything that fixes its tensors, and nothing about how it is trained."""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["gelu", "gelu_new", "relu"]

VOCAB_MULTIPLE = 64
"""The head product is computed on a vocabulary padded up to this multiple; results do not change."""

BLOCK = 128
"""Query rows a block of attention on a CPU: small enough to skip most of the masked half, large enough for the
matrix products."""

LANES = 16
"""Widths of a head that the compiled attention takes are multiples of it."""


@dataclass(frozen=True)
class Architecture:
    """A GPT-2/3-style decoder: pre-LayerNorm, learned positions, biases (Dey et al. 2023, section 2).

    The defaults are the family's; the rest is for models that come from elsewhere.
    """

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
    ffn_multiple: float = 4.0
    """d_ffn / d_model; their product is rounded."""
    activation: Activation = "gelu"
    """Exact erf GELU, its tanh approximation, or ReLU."""
    layer_norm_eps: float = 1e-5
    tied: bool = True
    """Whether the token table is also the head; if not, the head is a table of its own, without bias."""
    d_embedding: int | None = None
    """Width of the token and position tables if it is not d_model: one projection follows their sum."""

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "n_heads", "vocab_size", "seq_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.d_ffn < 1 or self.table_width < 1:
            raise ValueError(f"d_ffn is {self.d_ffn}, d_embedding {self.table_width}; both must be at least 1")
        if self.tied and self.table_width != self.d_model:
            raise ValueError(
                f"a table of width {self.table_width} cannot be the head of a width of {self.d_model}; set tied=False"
            )
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}; change one of them")

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @property
    def d_ffn(self) -> int:
        """Width of the feed-forward layer."""
        return round(self.ffn_multiple * self.d_model)

    @property
    def table_width(self) -> int:
        """Width of the token and position tables."""
        return self.d_model if self.d_embedding is None else self.d_embedding

    @property
    def padded_vocab_size(self) -> int:
        """The vocabulary rounded up to a multiple that matrix products like."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @property
    def n_embedding_parameters(self) -> int:
        """Parameters of the token and position tables."""
        return (self.vocab_size + self.seq_len) * self.table_width

    @property
    def n_parameters(self) -> int:
        """All parameters, the tied head counted once: V d + T d + L (12 d^2 + 13 d) + 2 d at d_ffn = 4 d."""
        d, f = self.d_model, self.d_ffn
        attention = 4 * d * d + 4 * d
        feed_forward = 2 * d * f + f + d
        norms = 4 * d
        projection = 0 if self.table_width == d else self.table_width * d
        head = 0 if self.tied else self.vocab_size * d
        tables = self.n_embedding_parameters + projection + head
        return tables + self.n_layers * (attention + feed_forward + norms) + 2 * d
