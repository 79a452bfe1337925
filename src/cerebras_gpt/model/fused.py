"""Layer normalisation, in fewer passes where a compiled kernel is there."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cerebras_gpt.model.kernel import call, serves


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalised over the last axis, times weight, plus bias, in the dtype of x; statistics in float32: (..., C)."""
    if serves(x):
        y: Tensor = CompiledLayerNorm.apply(x, weight, bias, eps)
        return y
    return F.layer_norm(x, weight.shape, weight.to(x.dtype), bias.to(x.dtype), eps)


class CompiledLayerNorm(torch.autograd.Function):
    """Weight and bias are taken as they are, without a narrow copy, and so are their gradients."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:  # type: ignore[no-untyped-def,override]
        """(..., C), (C,), (C,) -> (..., C)."""
        x, weight, bias = x.contiguous(), weight.float().contiguous(), bias.float().contiguous()
        C = x.shape[-1]
        y, kept = torch.empty_like(x), torch.empty(x.numel() // C, 2)  # (..., C), (N, 2)
        call("norm_forward", x, weight, bias, y, kept, len(kept), C, eps)
        ctx.save_for_backward(x, weight, kept)
        return y

    @staticmethod
    def backward(ctx, d_y: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[no-untyped-def,override]
        """(..., C) -> the gradients of x, weight and bias."""
        x, weight, kept = ctx.saved_tensors
        d_x, d_affine = torch.empty_like(x), torch.empty(2, len(weight))
        call("norm_backward", x, d_y.contiguous(), weight, kept, d_x, d_affine, len(kept), len(weight))
        return d_x, d_affine[0], d_affine[1], None
