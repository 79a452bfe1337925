"""Bytes that a shape needs while it trains and on disk."""

from typing import NamedTuple

from cerebras_gpt.model.architecture import Architecture

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


def training_memory(architecture: Architecture, micro_batch_size: int, compute_bytes: int = 2) -> Memory:
    """Bytes on one device that trains on micro_batch_size sequences at a time and holds the whole optimizer.

    Weights, gradients and the two moments of Adam are float32; a narrower computation keeps its own copy of the
    weights for the step. See `activation_bytes` for the rest.
    """
    n_parameters = architecture.n_parameters
    copy = compute_bytes if compute_bytes < FLOAT32 else 0
    return Memory(
        weights=n_parameters * (FLOAT32 + copy),
        gradients=n_parameters * FLOAT32,
        optimizer=n_parameters * 2 * FLOAT32,
        activations=activation_bytes(architecture, micro_batch_size, compute_bytes),
    )


def activation_bytes(architecture: Architecture, micro_batch_size: int, compute_bytes: int = 2) -> int:
    """Bytes that the backward pass of micro_batch_size full sequences needs from the forward pass.

    Per token and layer: the residual stream before either norm in float32; in the computing type the norms' outputs,
    q, k, v, the attention's output, and the feed-forward layer before and after its activation: 8 d + c (6 d + 2 f).
    Attention weights are recomputed, so nothing grows with the square of the length. Around the layers: the final
    norm's input and output, and all logits in float32; a loss that forms them in chunks keeps less. (After
    Korthikanti et al. 2022, section 4, without dropout.)
    """
    d, f, c = architecture.d_model, architecture.d_ffn, compute_bytes
    layer = 2 * FLOAT32 * d + c * (6 * d + 2 * f)
    ends = (FLOAT32 + c) * d + FLOAT32 * architecture.vocab_size
    return micro_batch_size * architecture.seq_len * (architecture.n_layers * layer + ends)


def checkpoint_bytes(architecture: Architecture) -> int:
    """Bytes of one checkpoint on disk: weights and both moments of Adam in float32."""
    return architecture.n_parameters * 3 * FLOAT32
