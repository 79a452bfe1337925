"""Bytes that a shape needs while it trains and on disk."""

from bisect import bisect_right
from typing import NamedTuple

from cerebras_gpt.compiled import trains_here
from cerebras_gpt.model.architecture import BLOCK, LANES, Architecture
from cerebras_gpt.process import has_gpu

FLOAT32 = 4

CHUNK_ELEMENTS = {"cpu": 2**26, "cuda": 2**29}
CACHED_ELEMENTS = {"cpu": 2**22, "cuda": 2**27}
"""Logits that the loss holds, and takes at a time: the figures of model/loss.py, which would bring torch."""


def device() -> str:
    """Where a run here computes, told without torch."""
    return "cuda" if has_gpu() else "cpu"


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


def attention_bytes(architecture: Architecture, compute_bytes: int = 2) -> int:
    """Bytes that a layer keeps of the attention of one sequence on its way forward.

    The weights of the blocks that a query may see, c h T (T + block) / 2; where compiled kernels, or those of a GPU,
    compute them again in the backward pass, one float32 for each query and head.
    """
    T, h = architecture.seq_len, architecture.n_heads
    if has_gpu() or (compute_bytes < FLOAT32 and architecture.d_head % LANES == 0 and trains_here()):
        return FLOAT32 * h * T
    return compute_bytes * h * (T * T if T < BLOCK else T * (T + BLOCK) // 2)


def activation_bytes(
    architecture: Architecture, micro_batch_size: int, compute_bytes: int = 2, recompute: bool = False
) -> int:
    """Bytes that the backward pass of micro_batch_size full sequences needs from the forward pass.

    Per token and layer, all in the computing type: the residual stream before either norm, the norms' outputs, q, k,
    v, the attention's output, and the feed-forward layer before and after its activation: c (8 d + 2 f); and
    `attention_bytes`. After the layers: the final norm's input and the gradient of its output; logits are formed in
    chunks and never kept. (After Korthikanti et al. 2022, section 4, without dropout.) With recompute each layer keeps
    only its input, c d per token, and one layer at a time all of the above.
    """
    d, f, c, T = architecture.d_model, architecture.d_ffn, compute_bytes, architecture.seq_len
    layer = T * c * (8 * d + 2 * f) + attention_bytes(architecture, c)
    layers = architecture.n_layers * T * c * d + layer if recompute else architecture.n_layers * layer
    return micro_batch_size * (layers + T * 2 * c * d)


LIBRARIES = 320_000_000
"""Bytes of a training process whatever the model: code, torch's kernels, tokenizer, pack. Measured on Linux (x86)."""

HEAP = 1.25
"""Bytes that the heap takes from the system for each that comes and goes in a step: many sizes in an order that leaves
gaps. Both figures are read from the measured peaks of plans; the bytes themselves are not fitted to anything
(benchmarks/plan_estimates.py, docs/plan.md)."""


def pass_bytes(compute_bytes: int) -> int:
    """Bytes besides, of each logit that a pass of the loss takes at a time.

    The softmax takes the place of the logits, but torch forms a narrow one in float32 first; compiled kernels do not.
    """
    return FLOAT32 if compute_bytes < FLOAT32 and not trains_here() and not has_gpu() else 0


def head_bytes(architecture: Architecture, micro_batch_size: int, compute_bytes: int = 2) -> int:
    """Bytes that the loss holds while it forms logits and gradients by chunks (model/loss.py).

    A copy of the table in the computing type, the table's gradient in float32, one buffer of logits that become their
    gradient in place, and what a pass over some of them needs besides.
    """
    table = architecture.vocab_size * architecture.d_model
    logits = micro_batch_size * architecture.seq_len * architecture.vocab_size
    at_a_time, in_a_pass = min(CHUNK_ELEMENTS[device()], logits), min(CACHED_ELEMENTS[device()], logits)
    buffer = compute_bytes * at_a_time + pass_bytes(compute_bytes) * in_a_pass
    return (compute_bytes + FLOAT32) * table + buffer


def passing_bytes(
    architecture: Architecture,
    micro_batch_size: int,
    compute_bytes: int = 2,
    n_micro_batches: int = 1,
    recompute: bool = False,
) -> int:
    """The most that a step needs beside weights and moments: at its head or, with few tokens for so large a model, at
    its very end.

    At the head: all activations and no gradients yet, but those of the micro-batches before. At the end: all
    gradients, the table's twice, once from the head and once from the embedding.
    """
    parts = training_memory(architecture, micro_batch_size, compute_bytes, recompute)
    gradients = architecture.n_parameters * FLOAT32  # and as many bytes of weights
    table = architecture.vocab_size * architecture.d_model * FLOAT32
    before = gradients if n_micro_batches > 1 else 0
    copies = parts.weights - gradients  # of the weights in the computing type, freed layer by layer on the way back
    head = copies + before + parts.activations + head_bytes(architecture, micro_batch_size, compute_bytes)
    return max(head, gradients + 2 * table)


def peak_bytes(
    architecture: Architecture,
    micro_batch_size: int,
    compute_bytes: int = 2,
    n_micro_batches: int = 1,
    recompute: bool = False,
) -> int:
    """The largest resident memory to expect of a training process; `python benchmarks/plan_estimates.py` checks it."""
    passing = passing_bytes(architecture, micro_batch_size, compute_bytes, n_micro_batches, recompute)
    return LIBRARIES + 3 * FLOAT32 * architecture.n_parameters + int(HEAP * passing)


def checkpoint_bytes(architecture: Architecture) -> int:
    """Bytes of one checkpoint on disk: weights and both moments of Adam in float32."""
    return architecture.n_parameters * 3 * FLOAT32


def largest_micro_batch(
    architecture: Architecture, batch_size: int, n_bytes: int, compute_bytes: int = 2, recompute: bool = False
) -> int:
    """The most sequences at a time, up to the batch, whose peak fits into so many bytes; 0 if not even one does."""

    def peak(size: int, n_micro_batches: int) -> int:
        return peak_bytes(architecture, size, compute_bytes, n_micro_batches, recompute)

    if peak(batch_size, 1) <= n_bytes:
        return batch_size
    return bisect_right(range(1, batch_size), n_bytes, key=lambda size: peak(size, 2))
