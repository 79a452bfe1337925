"""What a network computes on the way to its logits: every kind of activation, read by hooks, the network untouched."""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cerebras_gpt.model.gpt import GPT, Block

QUANTITIES = (
    "embedding",
    "attention logits",
    "attention mix",
    "attention write",
    "feed-forward",
    "feed-forward write",
    "residual stream",
    "final hidden",
    "logits",
)
"""Every kind of activation, from the input on.

embedding: what enters the first block. attention logits: scaled q k^T before the softmax, where it is causal.
attention mix: softmax times v. attention write, feed-forward write: what a branch adds to the stream. feed-forward:
before its nonlinearity. residual stream: after the last block. final hidden: after the last norm.
"""


@torch.no_grad()
def activations(model: GPT, ids: Tensor) -> dict[str, Tensor]:
    """Every activation on a batch by quantity, layers stacked first: (B, T) -> {quantity: (L or 1, ...)}."""
    seen: dict[str, list[Tensor]] = defaultdict(list)
    first, last = model.blocks[0], model.blocks[-1]
    handles = [
        first.register_forward_pre_hook(lambda _, given: seen["embedding"].append(given[0])),
        last.register_forward_hook(lambda _, __, made: seen["residual stream"].append(made)),
        model.norm.register_forward_hook(lambda _, __, made: seen["final hidden"].append(made)),
    ]
    for block in model.blocks:
        assert isinstance(block, Block)
        handles += _watch(block, seen)
    try:
        seen["logits"].append(model(ids))
    finally:
        for handle in handles:
            handle.remove()
    return {quantity: torch.stack(seen[quantity]) for quantity in QUANTITIES}


def _watch(block: Block, seen: dict[str, list[Tensor]]) -> list[torch.utils.hooks.RemovableHandle]:
    """Hooks on one block; each appends what it sees."""
    attention, feed_forward = block.attention, block.feed_forward

    def written(quantity: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _, __, made: seen[quantity].append(made * block.residual_scale)

    return [
        attention.qkv.register_forward_hook(
            lambda _, __, qkv: seen["attention logits"].append(
                attention_logits(qkv, attention.n_heads, attention.scale)
            )
        ),
        attention.out.register_forward_pre_hook(lambda _, given: seen["attention mix"].append(given[0])),
        attention.register_forward_hook(written("attention write")),
        feed_forward.up.register_forward_hook(lambda _, __, made: seen["feed-forward"].append(made)),
        feed_forward.register_forward_hook(written("feed-forward write")),
    ]


def attention_logits(qkv: Tensor, n_heads: int, scale: float) -> Tensor:
    """Scaled q k^T of all causal pairs: (B, T, 3 C) -> (B, H, T (T + 1) / 2)."""
    B, T, width = qkv.shape
    q, k, _ = qkv.view(B, T, 3, n_heads, width // 3 // n_heads).permute(2, 0, 3, 1, 4)  # 3 x (B, H, T, D)
    causal = torch.ones(T, T, dtype=torch.bool, device=qkv.device).tril()
    return (q @ k.mT * scale)[:, :, causal]
