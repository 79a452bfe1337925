"""Cross-entropy of the head, formed in chunks so that the (tokens x vocabulary) logits never exist whole."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cerebras_gpt.model.architecture import VOCAB_MULTIPLE

IGNORED = -100
"""A target that counts for nothing: padding, prompts, already scored tokens."""

CHUNK_ELEMENTS = 2**22
"""Logits held at a time: small enough to stay in cache, large enough for the product."""


def exact_dtype(tensor: Tensor) -> torch.dtype:
    """What losses are computed in: float32, or better if the tensor is."""
    return torch.promote_types(tensor.dtype, torch.float32)


def summed_loss(hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Nats summed over the targets that are not ignored: (..., C), (V, C), (...) -> ().

    Divide by the number of targets for the mean. Gradients flow to hidden and table.
    """
    result: Tensor = ChunkedCrossEntropy.apply(hidden.flatten(0, -2), table, targets.flatten())
    return result


def token_losses(hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Nats of each target, 0 where ignored, without gradients: (..., C), (V, C), (...) -> (...)."""
    with torch.no_grad():
        x, t = hidden.flatten(0, -2), targets.flatten()
        head = table.to(x.dtype)
        rows = max(1, CHUNK_ELEMENTS // table.shape[0])
        pieces = [
            F.cross_entropy(F.linear(x[i : i + rows], head).to(exact_dtype(x)), t[i : i + rows], reduction="none")
            for i in range(0, len(t), rows)
        ]
        return torch.cat(pieces).view(targets.shape)


class ChunkedCrossEntropy(torch.autograd.Function):
    """The loss and, while the logits of a chunk are at hand, its gradients."""

    @staticmethod
    def forward(ctx, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        """(N, C), (V, C), (N,) -> () in float32 or better."""
        V = table.shape[0]
        # Products like round sizes: the vocabulary is padded here and nowhere else, so no result depends on it.
        head = F.pad(table.to(hidden.dtype), (0, 0, 0, -V % VOCAB_MULTIPLE))  # (padded V, C)
        exact = exact_dtype(hidden)
        total = torch.zeros((), dtype=exact, device=hidden.device)
        d_hidden, d_head = torch.empty_like(hidden), torch.zeros(head.shape, dtype=exact, device=head.device)
        rows = max(1, CHUNK_ELEMENTS // head.shape[0])
        for i in range(0, len(targets), rows):
            x, t = hidden[i : i + rows], targets[i : i + rows]
            logits = x @ head.mT  # (rows, padded V)
            nats, gradient = _loss_and_gradient(logits, t, V)
            total += nats
            if ctx.needs_input_grad[0]:
                torch.mm(gradient, head, out=d_hidden[i : i + rows])
                d_head += gradient.mT @ x
        ctx.save_for_backward(d_hidden, d_head[:V].to(table.dtype))
        return total

    @staticmethod
    def backward(ctx, d_loss: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[no-untyped-def,override]
        """() -> the gradients of hidden and table."""
        d_hidden, d_table = ctx.saved_tensors
        return d_hidden * d_loss, d_table * d_loss, None


def _loss_and_gradient(logits: Tensor, targets: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Summed nats, and softmax minus one-hot in the dtype of the logits: (N, padded V), (N,) -> (), (N, padded V)."""
    valid = targets != IGNORED
    index = targets.clamp_min(0)[:, None]  # (N, 1)
    padding = logits.shape[1] - vocab_size
    logits = logits[:, :vocab_size]
    p = torch.softmax(logits, -1)  # (N, V)
    # log of the softmax's denominator, from its largest term: on a CPU torch's logsumexp is the slower pass.
    exact = exact_dtype(logits)
    largest = p.amax(-1, keepdim=True).to(exact)  # (N, 1)
    normalizer = logits.amax(-1, keepdim=True) - largest.log()  # (N, 1)
    nats = ((normalizer - logits.gather(1, index)) * valid[:, None]).sum()
    p.scatter_add_(1, index, p.new_full((1, 1), -1.0).expand_as(index))
    if not valid.all():
        p *= valid[:, None]
    return nats, F.pad(p, (0, padding)) if padding else p
