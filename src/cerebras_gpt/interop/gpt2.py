"""The names, layouts and settings of GPT-2 in Hugging Face's format, and ours for the same things."""

import re
from collections.abc import Mapping

from torch import Tensor

from cerebras_gpt.model.architecture import Architecture

PREFIX = "transformer."
HEAD = "lm_head.weight"

OUTER = {
    "wte": "token_embedding",
    "wpe": "position_embedding",
    "ln_f": "norm",
    "lm_head": "head",
}
INNER = {
    "ln_1": "norm_attention",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "norm_feed_forward",
    "mlp.c_fc": "feed_forward.up",
    "mlp.c_proj": "feed_forward.down",
}
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
"""GPT-2 keeps these as (in, out), the transpose of a linear layer."""

THEIRS = re.compile(r"(?:transformer\.)?(?:h\.(?P<layer>\d+)\.)?(?P<module>[\w.]+?)\.(?P<kind>weight|bias)")
OURS = re.compile(r"(?:blocks\.(?P<layer>\d+)\.)?(?P<module>[\w.]+?)\.(?P<kind>weight|bias)")


def our_name(name: str) -> str | None:
    """Our name of a GPT-2 tensor, with or without the prefix; None if GPT-2 has no such parameter.

    >>> our_name("transformer.h.3.attn.c_proj.bias")
    'blocks.3.attention.out.bias'
    """
    found = THEIRS.fullmatch(name)
    if found is None:
        return None
    layer, module, kind = found["layer"], found["module"], found["kind"]
    ours = (OUTER if layer is None else INNER).get(module)
    if ours is None:
        return None
    return f"{ours}.{kind}" if layer is None else f"blocks.{int(layer)}.{ours}.{kind}"


def gpt2_name(name: str) -> str:
    """The GPT-2 name of one of our tensors: `our_name` the other way, with the prefix.

    >>> gpt2_name("blocks.3.attention.out.bias")
    'transformer.h.3.attn.c_proj.bias'
    """
    found = OURS.fullmatch(name)
    assert found is not None
    layer, module, kind = found["layer"], found["module"], found["kind"]
    theirs = {ours: theirs for theirs, ours in (OUTER if layer is None else INNER).items()}[module]
    if theirs == "lm_head":
        return HEAD
    return f"{PREFIX}{theirs}.{kind}" if layer is None else f"{PREFIX}h.{layer}.{theirs}.{kind}"


def turned(name: str, tensor: Tensor) -> Tensor:
    """The tensor in the other's layout, given GPT-2's name of it; the same call leads there and back."""
    return tensor.T.contiguous() if name.endswith(TRANSPOSED) else tensor


def gpt2_tensors(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters under GPT-2's names and in its layouts."""
    return {theirs: turned(theirs, tensor) for name, tensor in ours.items() for theirs in (gpt2_name(name),)}


def gpt2_config(architecture: Architecture, end_of_text: int) -> dict[str, object]:
    """The config.json that transformers, vLLM, llama.cpp and CTranslate2 read without overrides."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": architecture.activation,
        "attn_pdrop": 0.0,
        "bos_token_id": end_of_text,
        "dtype": "float32",
        "embd_pdrop": 0.0,
        "eos_token_id": end_of_text,
        "initializer_range": 0.02,
        "layer_norm_epsilon": architecture.layer_norm_eps,
        "n_ctx": architecture.seq_len,
        "n_embd": architecture.d_model,
        "n_head": architecture.n_heads,
        "n_inner": architecture.d_ffn,
        "n_layer": architecture.n_layers,
        "n_positions": architecture.seq_len,
        "reorder_and_upcast_attn": False,
        "resid_pdrop": 0.0,
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
        "tie_word_embeddings": architecture.tied,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": architecture.vocab_size,
    }
