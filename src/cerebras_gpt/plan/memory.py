"""Bytes that a shape needs while it trains and on disk."""

from typing import NamedTuple

from cerebras_gpt.model.architecture import BLOCK, Architecture

FLOAT32 = 4


class Memory(NamedTuple):
    """Bytes by what holds them."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it; libraries and the allocator's slack come on top."""
        return sum(self)


def training_memory(
    architecture: Architecture, micro_batch_size: int, compute_bytes: int = 2, recompute: bool = False
) -> Memory:
    """Bytes on one device that trains on micro_batch_size sequences at a time and holds the whole optimizer.

    Weights, gradients and the two moments of Adam are float32; a narrower computation keeps its own copy of the
    weights for the step, and the head's part of the table's gradient is formed before the rest of it. See
    `activation_bytes` for what the forward pass leaves.
    """
    n_parameters = architecture.n_parameters
    copy = compute_bytes if compute_bytes < FLOAT32 else 0
    table = architecture.vocab_size * architecture.d_model
    return Memory(
        weights=n_parameters * (FLOAT32 + copy),
        gradients=(n_parameters + table) * FLOAT32,
        optimizer=n_parameters * 2 * FLOAT32,
        activations=activation_bytes(architecture, micro_batch_size, compute_bytes, recompute),
    )


def activation_bytes(
    architecture: Architecture, micro_batch_size: int, compute_bytes: int = 2, recompute: bool = False
) -> int:
    """Bytes that the backward pass of micro_batch_size full sequences needs from the forward pass, on a CPU.

    Per token and layer, all in the computing type: the residual stream before either norm, the norms' outputs, q, k,
    v, the attention's output, and the feed-forward layer before and after its activation: c (8 d + 2 f); and the
    attention weights of the blocks that a query may see, c h (T + block) / 2 (none where a fused kernel recomputes
    them, as on a GPU). After the layers: the final norm's input and the gradient of its output; logits are formed in
    chunks and never kept. (After Korthikanti et al. 2022, section 4, without dropout.) With recompute each layer keeps
    only its input, c d per token, and one layer at a time all of the above.
    """
    d, f, c, T = architecture.d_model, architecture.d_ffn, compute_bytes, architecture.seq_len
    seen = T * T if T < BLOCK else T * (T + BLOCK) // 2  # query-key pairs of a head
    layer = T * c * (8 * d + 2 * f) + c * architecture.n_heads * seen
    layers = architecture.n_layers * T * c * d + layer if recompute else architecture.n_layers * layer
    return micro_batch_size * (layers + T * 2 * c * d)


LIBRARIES = 475_000_000
"""Bytes of a training process whatever the model: code, torch's kernels, chunks of logits. Measured on Linux (x86)."""

TABLES = {4: 4.5, 2: 2.0}
"""By bytes of the computing type: copies of the token table in float32 that the head's gradient and the heap's gaps
cost on top. Measured."""


def peak_bytes(
    architecture: Architecture, micro_batch_size: int, compute_bytes: int = 2, recompute: bool = False
) -> int:
    """The largest resident memory to expect of a training process; `python benchmarks/plan_estimates.py` checks it."""
    table = architecture.vocab_size * architecture.d_model * FLOAT32
    return (
        LIBRARIES
        + int(TABLES[compute_bytes] * table)
        + training_memory(architecture, micro_batch_size, compute_bytes, recompute).total
    )


def checkpoint_bytes(architecture: Architecture) -> int:
    """Bytes of one checkpoint on disk: weights and both moments of Adam in float32."""
    return architecture.n_parameters * 3 * FLOAT32


def largest_micro_batch(
    architecture: Architecture, batch_size: int, n_bytes: int, compute_bytes: int = 2, recompute: bool = False
) -> int:
    """The most sequences at a time, up to the batch, whose peak fits into so many bytes; 0 if not even one does."""
    fixed = peak_bytes(architecture, 0, compute_bytes, recompute)
    each = peak_bytes(architecture, 1, compute_bytes, recompute) - fixed
    return max(0, min(batch_size, (n_bytes - fixed) // each))
