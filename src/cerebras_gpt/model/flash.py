"""Causal attention on a GPU by FlashAttention 4 (the package `flash-attn-4`), where that is installed.

Its gradients are written where the linear layer before it wants them, and in one order (torch's own kernels that keep
an order take twice as long in the backward pass, benchmarks/attention_gpu.py).
"""

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

log = logging.getLogger("cerebras_gpt")

Attend: TypeAlias = Callable[[Tensor, float], Tensor]
"""(3, B, H, T, D), scale -> (B, H, T, D)."""

TRIED = (2, 512, 3, 2)
"""Sequences, tokens, parts and heads by which it is compared with torch."""
CLOSE = 0.02
"""Relative difference from torch that is left to rounding in bfloat16."""


@torch.library.custom_op("cerebras_gpt::flash", mutates_args=())
def flash(qkv: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(B, T, 3, H, D) -> (B, T, H, D), and the logarithm of each softmax's sum: (B, H, T)."""
    from flash_attn.cute.interface import _flash_attn_fwd

    q, k, v = qkv.unbind(2)
    y, logs, *_ = _flash_attn_fwd(q, k, v, softmax_scale=scale, causal=True, return_lse=True)
    return y, logs.contiguous()


@flash.register_fake
def _(qkv: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    B, T, _, H, D = qkv.shape
    return qkv.new_empty(B, T, H, D), qkv.new_empty(B, H, T, dtype=torch.float32)


@torch.library.custom_op("cerebras_gpt::flash_backward", mutates_args=())
def flash_backward(qkv: Tensor, y: Tensor, logs: Tensor, d_y: Tensor, scale: float) -> Tensor:
    """The gradient of qkv: (B, T, 3, H, D), (B, T, H, D), (B, H, T), (B, T, H, D) -> (B, T, 3, H, D)."""
    from flash_attn.cute.interface import _flash_attn_bwd

    d_qkv = torch.empty_like(qkv)
    (q, k, v), (d_q, d_k, d_v) = qkv.unbind(2), d_qkv.unbind(2)
    to = {"dq": d_q, "dk": d_k, "dv": d_v}
    _flash_attn_bwd(q, k, v, y, d_y, logs, softmax_scale=scale, causal=True, deterministic=True, **to)
    return d_qkv


@flash_backward.register_fake
def _(qkv: Tensor, y: Tensor, logs: Tensor, d_y: Tensor, scale: float) -> Tensor:
    return torch.empty_like(qkv)


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(inputs[0], *output)
    ctx.scale = inputs[1]


def _back(ctx, d_y: Tensor, _: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
    return flash_backward(*ctx.saved_tensors, d_y.contiguous(), ctx.scale), None


flash.register_autograd(_back, setup_context=_keep)


def flash_attention(qkv: Tensor, scale: float) -> Tensor:
    """Softmax(scale q k^T) v over each position's past and itself: (3, B, H, T, D) -> (B, H, T, D)."""
    return flash(qkv.permute(1, 3, 0, 2, 4).contiguous(), scale)[0].transpose(1, 2)


@lru_cache
def flash_serves(d_head: int) -> bool:
    """Whether it is here and computes what torch computes, the same bits twice; else why not is told once."""
    try:
        return _agrees(d_head)
    except Exception as error:  # a package of many parts, not all of them always in step
        log.info("attention by torch, not by flash-attn-4: %s", error)
        return False


def _agrees(d_head: int) -> bool:
    generator = torch.Generator("cuda").manual_seed(0)
    B, T, _, H = TRIED
    x = torch.randn(*TRIED, d_head, device="cuda", generator=generator, dtype=torch.bfloat16)
    d_y = torch.randn(B, H, T, d_head, device="cuda", generator=generator, dtype=torch.bfloat16)

    def result(attend: Attend, dtype: torch.dtype) -> list[Tensor]:
        given = x.to(dtype).detach().requires_grad_()
        y = attend(given.permute(2, 0, 3, 1, 4), d_head**-0.5)
        y.backward(d_y.to(dtype))
        assert given.grad is not None
        return [y.detach().float(), given.grad.float()]

    def plain(qkv: Tensor, scale: float) -> Tensor:
        q, k, v = qkv.unbind(0)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)

    found, again = (result(flash_attention, torch.bfloat16) for _ in range(2))
    expected = result(plain, torch.float32)
    off = max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))
    if off > CLOSE or not all(map(torch.equal, found, again)):
        raise ValueError(f"its results are off by {off:.2g} or differ from time to time")
    return True
