"""Causal attention without a cache, in the form that each device computes fastest."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cerebras_gpt.model.architecture import BLOCK, LANES
from cerebras_gpt.model.kernel import Shape, call, heads, serves


def causal_attention(qkv: Tensor, scale: float) -> Tensor:
    """Softmax(scale q k^T) v over each position's past and itself: (3, B, H, T, D) -> (B, H, T, D).

    On a CPU by a compiled kernel where there is one, else by blocks of batched products, both faster, forward and
    backward, than torch's flash kernel there (benchmarks/attention.py); elsewhere through SDPA.
    """
    if serves(qkv) and qkv.shape[-1] % LANES == 0 and qkv.stride(-1) == 1:
        y: Tensor = CompiledAttention.apply(qkv, scale)
        return y
    if qkv.device.type == "cpu":
        result: Tensor = BlockedAttention.apply(qkv, scale)
        return result
    q, k, v = qkv.unbind(0)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)


class BlockedAttention(torch.autograd.Function):
    """Attention by blocks of queries, each against only the keys that it may see."""

    @staticmethod
    def forward(ctx, qkv: Tensor, scale: float) -> Tensor:  # type: ignore[no-untyped-def,override]
        """(3, B, H, T, D) -> (B, H, T, D); keeps the probabilities for the way back."""
        _, B, H, T, D = qkv.shape
        qkv = qkv.reshape(3, B * H, T, D)
        q, k, v = qkv.unbind(0)  # 3 x (B H, T, D)
        y, kept = torch.empty_like(q), []
        mask = torch.full((BLOCK, BLOCK), float("-inf"), dtype=q.dtype).triu_(1)
        for i in range(0, T, BLOCK):
            j = min(i + BLOCK, T)
            scores = q.new_empty(B * H, j - i, j)
            torch.baddbmm(scores, q[:, i:j], k[:, :j].mT, beta=0, alpha=scale, out=scores)
            scores[:, :, i:] += mask[: j - i, : j - i]
            kept.append(torch.softmax(scores, -1))  # (B H, block, j)
            torch.bmm(kept[-1], v[:, :j], out=y[:, i:j])
        ctx.save_for_backward(qkv, *kept)
        ctx.scale = scale
        return y.view(B, H, T, D)

    @staticmethod
    def backward(ctx, d_y: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def,override]
        """(B, H, T, D) -> the gradient of qkv."""
        qkv, *kept = ctx.saved_tensors
        shape, d_y = d_y.shape, d_y.reshape(qkv.shape[1:])
        d_qkv = torch.zeros_like(qkv)
        (q, k, v), (d_q, d_k, d_v) = qkv.unbind(0), d_qkv.unbind(0)
        for p, i in zip(kept, range(0, q.shape[1], BLOCK), strict=True):
            j = i + p.shape[1]
            d_p = torch.bmm(d_y[:, i:j], v[:, :j].mT)  # (B H, block, j)
            d_s = torch._softmax_backward_data(d_p, p, -1, p.dtype)
            torch.baddbmm(d_q[:, i:j], d_s, k[:, :j], beta=0, alpha=ctx.scale, out=d_q[:, i:j])
            d_k[:, :j].baddbmm_(d_s.mT, q[:, i:j], alpha=ctx.scale)
            d_v[:, :j].baddbmm_(p.mT, d_y[:, i:j])
        return d_qkv.view(3, *shape), None


class CompiledAttention(torch.autograd.Function):
    """Attention that keeps one number for each query, from which the way back computes the weights again.

    (Dao et al. 2022.) Heads are read and written where they lie between the linear layers, so nothing is copied.
    """

    @staticmethod
    def forward(ctx, qkv: Tensor, scale: float) -> Tensor:  # type: ignore[no-untyped-def,override]
        """(3, B, H, T, D) -> (B, H, T, D), which lies as (B, T, H, D)."""
        _, B, H, T, D = qkv.shape
        y = qkv.new_empty(B, T, H, D).transpose(1, 2)
        logs = torch.empty(B, H, T)
        call("attention_forward", Shape(B, H, T, D), *map(heads, (*qkv, y)), logs, scale)
        ctx.save_for_backward(qkv, y, logs)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx, d_y: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def,override]
        """(B, H, T, D) -> the gradient of qkv, which lies as (B, T, 3, H, D)."""
        qkv, y, logs = ctx.saved_tensors
        B, H, T, D = y.shape
        d_y = d_y if d_y.stride(-1) == 1 else d_y.contiguous()
        d_qkv = qkv.new_empty(B, T, 3, H, D).permute(2, 0, 3, 1, 4)
        call("attention_backward", Shape(B, H, T, D), *map(heads, (*qkv, y, d_y, *d_qkv)), logs, ctx.scale)
        return d_qkv, None
