"""Causal attention without a cache, in the form that each device computes fastest."""

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 128
"""Query rows a block: small enough to skip most of the masked half, large enough for the matrix products."""


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Softmax(scale q k^T) v over each position's past and itself: 3 x (B, H, T, D) -> (B, H, T, D).

    On a CPU by blocks of batched products, which at the lengths of small models is over twice as fast, forward and
    backward, as torch's flash kernel there (benchmarks/attention.py); elsewhere through SDPA.
    """
    if q.device.type == "cpu":
        return BlockedAttention.apply(q, k, v, scale)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)


class BlockedAttention(torch.autograd.Function):
    """Attention by blocks of queries, each against only the keys that it may see."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:  # type: ignore[no-untyped-def,override]
        """3 x (B, H, T, D) -> (B, H, T, D); keeps the probabilities for the way back."""
        B, H, T, D = q.shape
        q, k, v = (x.reshape(B * H, T, D) for x in (q, k, v))  # (B H, T, D)
        y, kept = torch.empty_like(q), []
        mask = torch.full((BLOCK, BLOCK), float("-inf"), dtype=q.dtype).triu_(1)
        for i in range(0, T, BLOCK):
            j = min(i + BLOCK, T)
            scores = q.new_empty(B * H, j - i, j)
            torch.baddbmm(scores, q[:, i:j], k[:, :j].mT, beta=0, alpha=scale, out=scores)
            scores[:, :, i:] += mask[: j - i, : j - i]
            kept.append(torch.softmax(scores, -1))  # (B H, block, j)
            torch.bmm(kept[-1], v[:, :j], out=y[:, i:j])
        ctx.save_for_backward(q, k, v, *kept)
        ctx.scale = scale
        return y.view(B, H, T, D)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[no-untyped-def,override]
        """(B, H, T, D) -> the gradients of q, k and v."""
        q, k, v, *kept = ctx.saved_tensors
        shape, dy = dy.shape, dy.reshape(q.shape)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for p, i in zip(kept, range(0, q.shape[1], BLOCK), strict=True):
            j = i + p.shape[1]
            dp = torch.bmm(dy[:, i:j], v[:, :j].mT)  # (B H, block, j)
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            torch.baddbmm(dq[:, i:j], ds, k[:, :j], beta=0, alpha=ctx.scale, out=dq[:, i:j])
            dk[:, :j].baddbmm_(ds.mT, q[:, i:j], alpha=ctx.scale)
            dv[:, :j].baddbmm_(p.mT, dy[:, i:j])
        return dq.view(shape), dk.view(shape), dv.view(shape), None
