"""Cross-entropy of the head, formed in chunks so that the (tokens x vocabulary) logits never exist whole."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cerebras_gpt.model.architecture import VOCAB_MULTIPLE
from cerebras_gpt.model.kernel import call, gpu_rows, serves

IGNORED = -100
"""A target that counts for nothing: padding, prompts, already scored tokens."""

CHUNK_ELEMENTS = {"cpu": 2**26, "cuda": 2**29}
"""Logits that exist at a time: rows enough that the three products run at full speed, and one buffer for all."""

CACHED_ELEMENTS = {"cpu": 2**22, "cuda": 2**27}
"""Logits that a pass over them takes at a time: on a CPU they stay in cache from one pass to the next."""


def rows_at_a_time(width: int, device: torch.device) -> int:
    """Rows of so many numbers that a pass over them takes."""
    return max(1, CACHED_ELEMENTS[device.type] // width)


def exact_dtype(tensor: Tensor) -> torch.dtype:
    """What losses are computed in: float32, or better if the tensor is."""
    return torch.promote_types(tensor.dtype, torch.float32)


def summed_loss(hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Nats summed over the targets that are not ignored: (..., C), (V, C), (...) -> ().

    Divide by the number of targets for the mean. Gradients flow to hidden and table. Where many are ignored, as in
    tuning on short answers, the head's products are formed for the others alone.
    """
    result: Tensor = ChunkedCrossEntropy.apply(*_counted(hidden, targets), table)
    return result


def token_losses(hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Nats of each target, 0 where ignored, without gradients: (..., C), (V, C), (...) -> (...)."""
    with torch.no_grad():
        x, t = _counted(hidden, targets)
        head, rows = table.to(x.dtype), rows_at_a_time(len(table), table.device)
        pieces = [
            F.cross_entropy(F.linear(some, head).to(exact_dtype(x)), its, reduction="none")
            for some, its in zip(x.split(rows), t.split(rows), strict=True)
        ]
        nats = torch.zeros(targets.shape, dtype=exact_dtype(x), device=x.device)
        nats[targets != IGNORED] = torch.cat(pieces)
        return nats


def are_likeliest(hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Whether no token is likelier than the target, False where ignored: (..., C), (V, C), (...) -> (...)."""
    with torch.no_grad():
        x, t = _counted(hidden, targets)
        head, found = table.to(x.dtype), torch.zeros_like(targets, dtype=torch.bool)
        rows = rows_at_a_time(len(table), table.device)
        best = [F.linear(some, head).argmax(-1) for some in x.split(rows)]
        found[targets != IGNORED] = torch.cat(best) == t
        return found


def _counted(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The rows whose target is not ignored: (..., C), (...) -> (N, C), (N,); copied only if others are."""
    x, t = hidden.flatten(0, -2), targets.flatten()
    valid = t != IGNORED
    return (x, t) if valid.all() else (x[valid], t[valid])


class ChunkedCrossEntropy(torch.autograd.Function):
    """The loss and, while the logits of a chunk are at hand, its gradients."""

    @staticmethod
    def forward(ctx, hidden: Tensor, targets: Tensor, table: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        """(N, C), (N,), (V, C) -> () in float32 or better."""
        V = table.shape[0]
        # Products like round sizes: the vocabulary is padded here and nowhere else, so no result depends on it.
        head = hidden.new_zeros(V + -V % VOCAB_MULTIPLE, table.shape[1])  # (padded V, C)
        head[:V].copy_(table)
        exact = exact_dtype(hidden)
        total = torch.zeros((), dtype=exact, device=hidden.device)
        d_hidden, d_head = torch.empty_like(hidden), torch.zeros(head.shape, dtype=exact, device=head.device)
        n_chunks = -(-targets.numel() * head.shape[0] // CHUNK_ELEMENTS[head.device.type])
        rows = max(1, -(-len(targets) // max(1, n_chunks)))
        buffer = hidden.new_empty(rows, head.shape[0])
        for i in range(0, len(targets), rows):
            x, t = hidden[i : i + rows], targets[i : i + rows]
            logits = torch.mm(x, head.mT, out=buffer[: len(t)])  # (rows, padded V)
            total += _to_gradient_(logits, t, V)
            if ctx.needs_input_grad[0]:
                torch.mm(logits, head, out=d_hidden[i : i + rows])
                _add_products_(d_head, logits, x)
        ctx.gradients = d_hidden, d_head[:V].to(table.dtype)
        return total

    @staticmethod
    def backward(ctx, d_loss: Tensor) -> tuple[Tensor, None, Tensor]:  # type: ignore[no-untyped-def,override]
        """() -> the gradients of hidden and table, in the memory that held them: there is one way back, not two."""
        d_hidden, d_table = ctx.gradients
        ctx.gradients = None
        return d_hidden.mul_(d_loss), None, d_table.mul_(d_loss)


def _add_products_(d_head: Tensor, gradient: Tensor, x: Tensor) -> None:
    """Adds gradient^T x, some rows at a time so that no second table exists: (padded V, C), (N, padded V), (N, C)."""
    rows = rows_at_a_time(x.shape[1], x.device)
    for i in range(0, len(d_head), rows):
        d_rows = d_head[i : i + rows]
        d_rows += gradient[:, i : i + len(d_rows)].mT @ x


def _to_gradient_(logits: Tensor, targets: Tensor, vocab_size: int) -> Tensor:
    """Gives the summed nats; softmax minus one-hot takes the place of the logits: (N, padded V), (N,) -> ()."""
    if serves(logits) and logits.is_contiguous():
        nats = torch.empty(len(targets))
        call("loss_rows", logits, targets.contiguous(), nats, len(targets), vocab_size, logits.shape[1])
        return nats.sum()
    if (on_gpu := gpu_rows(logits)) is not None:
        return on_gpu(logits, targets, vocab_size).sum()
    logits[:, vocab_size:] = float("-inf")  # the padding is as likely as it should be
    total = torch.zeros((), dtype=exact_dtype(logits), device=logits.device)
    rows = rows_at_a_time(logits.shape[1], logits.device)
    for part, t in zip(logits.split(rows), targets.split(rows), strict=True):
        total += _rows_to_gradient_(part, t)
    return total


def _rows_to_gradient_(logits: Tensor, targets: Tensor) -> Tensor:
    """`_to_gradient_` of rows that stay in cache: (N, V), (N,) -> ()."""
    index = targets[:, None]  # (N, 1)
    highest, correct = logits.amax(-1, keepdim=True), logits.gather(1, index)
    p = torch.softmax(logits, -1, out=logits)  # (N, V)
    # log of the softmax's denominator, from its largest term: on a CPU torch's logsumexp is the slower pass.
    largest = p.amax(-1, keepdim=True).to(exact_dtype(logits))  # (N, 1)
    # Not scatter_add_, which copies all of a narrow tensor to float32 and back.
    p.scatter_(1, index, p.gather(1, index) - 1)
    return (highest - largest.log() - correct).sum()
