"""A plain GPT-2 as one GGUF file with its tokenizer inside, for llama.cpp; written, and read back for the proof.

llama.cpp's graph of this architecture applies the tanh GELU whatever the model was trained with (docs/exchange.md).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cerebras_gpt.config import unknown
from cerebras_gpt.interop.hf_folder import vocabulary_and_merges
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.text.tokenizer import Tokenizer

OUTER = {
    "token_embedding": "token_embd",
    "position_embedding": "position_embd",
    "norm": "output_norm",
    "head": "output",
}
INNER = {
    "norm_attention": "attn_norm",
    "attention.qkv": "attn_qkv",
    "attention.out": "attn_output",
    "norm_feed_forward": "ffn_norm",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}
OURS = re.compile(r"(?:blocks\.(?P<layer>\d+)\.)?(?P<module>[\w.]+?)\.(?P<kind>weight|bias)")


class Kind(NamedTuple):
    """How the matrices of a file are kept."""

    type: str
    """Its name in package gguf, of matrices."""
    tables: str
    """The same, of the token table and the head: with 4 bits these would lose most, so they keep 8."""
    file_type: str
    """Its name in package gguf, of the whole file."""
    error: float
    """Largest rounding, as a part of a tensor's largest number."""


KINDS = {
    "f32": Kind("F32", "F32", "ALL_F32", 0.0),
    "f16": Kind("F16", "F16", "MOSTLY_F16", 2**-11),
    "bf16": Kind("BF16", "BF16", "MOSTLY_BF16", 2**-8),
    "q8_0": Kind("Q8_0", "Q8_0", "MOSTLY_Q8_0", 0.6 / 127),
    "q4_0": Kind("Q4_0", "Q8_0", "MOSTLY_Q4_0", 1.01 / 8),
}
FALLBACK = "F16"
"""For matrices whose rows are no whole number of blocks."""


def package() -> ModuleType:
    """The package gguf, or the line that tells how to get it."""
    try:
        import gguf
    except ImportError:
        raise ValueError(
            'GGUF files need the package gguf; install it with: pip install "cerebras-gpt[gguf]"'
        ) from None
    return gguf


def kind_named(name: str) -> Kind:
    """One of the ways to keep a file's matrices."""
    if name not in KINDS:
        raise ValueError(unknown("type", name, KINDS))
    return KINDS[name]


def gguf_name(name: str) -> str:
    """llama.cpp's name of one of our tensors.

    >>> gguf_name("blocks.3.attention.out.bias")
    'blk.3.attn_output.bias'
    """
    found = OURS.fullmatch(name)
    assert found is not None
    layer, module, kind = found["layer"], found["module"], found["kind"]
    return f"{OUTER[module]}.{kind}" if layer is None else f"blk.{layer}.{INNER[module]}.{kind}"


def tensor_type(name: str, shape: tuple[int, ...], kind: Kind) -> str:
    """How one tensor is kept, given our name: vectors and positions in float32, the rest as the kind says."""
    if len(shape) == 1 or name == "position_embedding.weight":
        return "F32"
    wanted = kind.tables if name in ("token_embedding.weight", "head.weight") else kind.type
    types = package()
    block, _ = types.GGML_QUANT_SIZES[types.GGMLQuantizationType[wanted]]
    return FALLBACK if shape[-1] % block else wanted


def fallbacks(model: GPT, kind: Kind) -> list[str]:
    """Our names of the tensors that cannot be kept as the kind says, because of their width."""
    named = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    kept = {name: tensor_type(name, shape, kind) for name, shape in named.items()}
    return [name for name, type_ in kept.items() if type_ not in ("F32", kind.type, kind.tables)]


def write_gguf(path: Path, model: GPT, tokenizer: Tokenizer, kind: Kind, name: str) -> None:
    """Writes the file; the model must compute as GPT-2 does (`fold.folded`)."""
    types = package()
    writer = types.GGUFWriter(path, "gpt2")
    add_settings(writer, model.architecture, types.LlamaFileType[kind.file_type], name)
    add_tokenizer(writer, tokenizer)
    for ours, parameter in model.named_parameters():
        type_ = types.GGMLQuantizationType[tensor_type(ours, tuple(parameter.shape), kind)]
        numbers = parameter.detach().cpu().float().contiguous().numpy()
        with np.errstate(over="ignore"):  # a number too large for the type is found when the file is read back
            writer.add_tensor(gguf_name(ours), types.quantize(numbers, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_settings(writer, architecture: Architecture, file_type: int, name: str) -> None:  # type: ignore[no-untyped-def]
    """The shape, as llama.cpp names it."""
    writer.add_name(name)
    writer.add_context_length(architecture.seq_len)
    writer.add_embedding_length(architecture.d_model)
    writer.add_block_count(architecture.n_layers)
    writer.add_feed_forward_length(architecture.d_ffn)
    writer.add_head_count(architecture.n_heads)
    writer.add_layer_norm_eps(architecture.layer_norm_eps)
    writer.add_vocab_size(architecture.vocab_size)
    writer.add_file_type(file_type)
    writer.add_quantization_version(package().GGML_QUANT_VERSION)


def add_tokenizer(writer, tokenizer: Tokenizer) -> None:  # type: ignore[no-untyped-def]
    """The vocabulary; words are cut as GPT-2 cuts them, which `text.tokenizer` requires of every tokenizer."""
    kinds = package().TokenType
    vocabulary, merges = vocabulary_and_merges(tokenizer)
    token_by_id = {index: token for token, index in vocabulary.items()}
    tokens = [token_by_id.get(index, f"[PAD{index}]") for index in range(tokenizer.vocab_size)]
    empty = [index for index in range(tokenizer.vocab_size) if not tokenizer.decode_bytes([index])]
    types = [kinds.NORMAL] * len(tokens)
    for index in empty:
        types[index] = kinds.CONTROL if index in token_by_id else kinds.UNUSED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(tokenizer.end_of_text)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def read_gguf_weights(path: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of such a file in float32 under our names, which are those of `like`, read from the file alone."""
    types = package()
    found = {tensor.name: tensor for tensor in types.GGUFReader(path).tensors}
    assert found.keys() == set(map(gguf_name, like))
    return {name: dequantized(found[gguf_name(name)], types) for name in like}


def dequantized(tensor, types: ModuleType) -> Tensor:  # type: ignore[no-untyped-def]
    """The numbers that a tensor of a file stands for, in float32."""
    numbers = types.dequantize(np.array(tensor.data), tensor.tensor_type)
    return torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.float32))
