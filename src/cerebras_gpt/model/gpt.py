"""The decoder, forward only: embedding, attention, feed-forward, block, GPT.

Letters in shapes: B batch, T time, S cached time, C d_model, H heads, D d_head, F d_ffn, V vocab, L layers.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.attention import causal_attention
from cerebras_gpt.model.fused import layer_norm
from cerebras_gpt.model.parametrization import TRUNCATION, Parametrization, Role

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


class LayerCache(Protocol):
    """Keys and values of one layer's past."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Takes (B, H, T, D) each; gives all keys and values (B, H, S + T, D) and the mask, None if simply causal."""


class Cache(Protocol):
    """The past of a whole network, passed in by who generates; no cache means no past."""

    def positions(self, n_tokens: int) -> Tensor:
        """Positions of the next n_tokens: (T,) or (B, T)."""

    def layer(self, index: int) -> LayerCache:
        """The cache of one layer."""


class Linear(nn.Linear):
    """A linear layer that knows the role of its weight and computes in the dtype of its input."""

    def __init__(self, n_in: int, n_out: int, role: Role) -> None:
        super().__init__(n_in, n_out)
        self.role = role

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_in) -> (..., n_out)."""
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))

    def reset_parameters(self) -> None:
        """Nothing: `initialize` writes every tensor once, from the table."""


class Projection(nn.Linear):
    """A linear layer without bias from a width that does not grow, so with the role of the tables."""

    role: Role = "embedding"

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)

    def reset_parameters(self) -> None:
        """Nothing: `initialize` writes every tensor once, from the table."""


class Embedding(nn.Embedding):
    """A table of vectors with the role `embedding`: tokens, positions, or the head of an untied model."""

    role: Role = "embedding"

    def reset_parameters(self) -> None:
        """Nothing: `initialize` writes every tensor once, from the table."""


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in the dtype of its input; the statistics are float32."""

    role: Role = "norm"

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return layer_norm(x, self.weight, self.bias, self.eps)


class Attention(nn.Module):
    """Causal multi-head self-attention with fused QKV."""

    def __init__(self, architecture: Architecture, scale: float) -> None:
        super().__init__()
        self.n_heads, self.scale = architecture.n_heads, scale
        self.causal = causal_attention
        """Without a cache; a device may have a better one."""
        self.qkv = Linear(architecture.d_model, 3 * architecture.d_model, role="hidden")
        self.out = Linear(architecture.d_model, architecture.d_model, role="residual_out")

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Mixes each position with its past: (B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        heads = self.qkv(x).view(B, T, 3, self.n_heads, C // self.n_heads)
        qkv = heads.permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        if cache is None:
            y = self.causal(qkv, self.scale)
        else:
            q, k, v = qkv.unbind(0)
            k, v, mask = cache.append(k, v)  # (B, H, S + T, D)
            causal = mask is None and T > 1
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=self.scale)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[architecture.activation]
        self.up = Linear(architecture.d_model, architecture.d_ffn, role="hidden")
        self.down = Linear(architecture.d_ffn, architecture.d_model, role="residual_out")

    def forward(self, x: Tensor) -> Tensor:
        """Transforms each position alone: (B, T, C) -> (B, T, C)."""
        return self.down(self.activation(self.up(x)))


class Block(nn.Module):
    """Pre-LayerNorm attention and feed-forward, each added to the residual stream."""

    def __init__(self, architecture: Architecture, parametrization: Parametrization) -> None:
        super().__init__()
        self.residual_scale = parametrization.residual_scale
        self.norm_attention = LayerNorm(architecture.d_model, architecture.layer_norm_eps)
        self.attention = Attention(architecture, parametrization.attention_scale)
        self.norm_feed_forward = LayerNorm(architecture.d_model, architecture.layer_norm_eps)
        self.feed_forward = FeedForward(architecture)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = torch.add(x, self.attention(self.norm_attention(x), cache), alpha=self.residual_scale)
        return torch.add(x, self.feed_forward(self.norm_feed_forward(x)), alpha=self.residual_scale)


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """A block that keeps only its input for the backward pass, and computes itself again there: (B, T, C) -> same."""
    y: Tensor = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
    return y


class GPT(nn.Module):
    """The Cerebras-GPT decoder (Dey et al. 2023, section 2; Radford et al. 2019)."""

    def __init__(self, architecture: Architecture, parametrization: Parametrization) -> None:
        super().__init__()
        self.architecture, self.parametrization = architecture, parametrization
        d_model, width = architecture.d_model, architecture.table_width
        self.token_embedding = Embedding(architecture.vocab_size, width)
        self.position_embedding = Embedding(architecture.seq_len, width)
        self.projection = nn.Identity() if width == d_model else Projection(width, d_model)
        self.blocks = nn.ModuleList(Block(architecture, parametrization) for _ in range(architecture.n_layers))
        self.norm = LayerNorm(d_model, architecture.layer_norm_eps)
        self.head: Embedding | None = None if architecture.tied else Embedding(architecture.vocab_size, d_model)

    @property
    def head_table(self) -> Tensor:
        """One row for each token, whose products with the final states are the logits: (V, C)."""
        return self.token_embedding.weight if self.head is None else self.head.weight

    def hidden(
        self, ids: Tensor, cache: Cache | None = None, dtype: torch.dtype | None = None, recompute: bool = False
    ) -> Tensor:
        """Final hidden states, already multiplied by the logit scale: (B, T) -> (B, T, C).

        Their product with the head table is the logits, so a loss can form them in chunks. dtype is that of the
        residual stream, and so of every product, by default the weights'; the weights stay as they are. With recompute
        the backward pass computes every block again from its input, and only that input is kept (Chen et al. 2016).
        """
        T = ids.shape[1]
        positions = torch.arange(T, device=ids.device) if cache is None else cache.positions(T)
        x = self.token_embedding(ids) + self.position_embedding(positions)  # (B, T, C)
        x = (self.projection(x) * self.parametrization.embedding_scale).to(dtype or x.dtype)
        for index, block in enumerate(self.blocks):
            past = None if cache is None else cache.layer(index)
            x = recomputed(block, x) if recompute else block(x, past)
        return self.norm(x) * self.parametrization.logit_scale

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token: (..., C) -> (..., V)."""
        return F.linear(hidden, self.head_table.to(hidden.dtype))

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Next-token logits at every position: (B, T) -> (B, T, V)."""
        return self.logits(self.hidden(ids, cache))


class RoledParameter(NamedTuple):
    """A parameter with its name and its row in the table."""

    name: str
    parameter: nn.Parameter
    role: Role


def roles(model: nn.Module) -> Iterator[RoledParameter]:
    """Every parameter exactly once, with the role that its owning module gives it."""
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            is_bias = name.endswith("bias") and module.role != "norm"
            yield RoledParameter(name, parameter, "bias" if is_bias else module.role)


@torch.no_grad()
def initialize(model: GPT, generator: torch.Generator) -> GPT:
    """Writes every tensor from the parametrization's table: truncated normals, zero biases, unit norms."""
    for entry in roles(model):
        begin(entry.parameter, entry, model.parametrization, generator)
    return model


def begin(tensor: Tensor, entry: RoledParameter, parametrization: Parametrization, generator: torch.Generator) -> None:
    """Writes what a parameter starts from into a tensor of its shape."""
    std = parametrization.row(entry.role).init_std
    if std:
        cut = TRUNCATION * std
        nn.init.trunc_normal_(tensor, std=std, a=-cut, b=cut, generator=generator)
    else:
        tensor.fill_(1.0 if entry.role == "norm" and entry.name.endswith("weight") else 0.0)
