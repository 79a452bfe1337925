"""What package gguf reads from a file must be the model; what llama.cpp makes of it is in benchmarks/interop.py."""

import math
from dataclasses import replace

import gguf as library
import numpy as np
import pytest
import torch

from cerebras_gpt.data.shards import Shards
from cerebras_gpt.interop.gguf import KINDS, fallbacks, gguf_name, kind_named, read_gguf_weights, write_gguf
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import standard
from cerebras_gpt.text.tokenizer import Tokenizer

SHAPE = Architecture(d_model=64, n_layers=2, n_heads=4, vocab_size=288, seq_len=24)


@pytest.fixture(scope="module")
def tokenizer(data) -> Tokenizer:
    return Shards.open(data, "train").tokenizer


def network(shape=SHAPE) -> GPT:
    return initialize(GPT(shape, standard(shape)), torch.Generator().manual_seed(0))


def written(tmp_path, tokenizer, model, kind):
    path = tmp_path / "model.gguf"
    write_gguf(path, model, tokenizer, KINDS[kind], "a name")
    return path


def value(reader, key):
    return reader.get_field(key).contents()


@pytest.mark.parametrize("shape", [SHAPE, replace(SHAPE, tied=False, ffn_multiple=1.5)], ids=["tied", "untied"])
def test_a_float32_file_holds_the_same_bits(shape, tokenizer, tmp_path):
    model = network(shape)
    weights = dict(model.named_parameters())
    path = written(tmp_path, tokenizer, model, "f32")
    back = read_gguf_weights(path, weights)
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())
    assert {tensor.tensor_type.name for tensor in library.GGUFReader(path).tensors} == {"F32"}


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0"])
def test_other_types_are_off_by_their_rounding_only(kind, tokenizer, tmp_path):
    model = network()
    weights = dict(model.named_parameters())
    path = written(tmp_path, tokenizer, model, kind)
    for name, tensor in read_gguf_weights(path, weights).items():
        off = (tensor - weights[name]).abs().max()
        assert off <= KINDS[kind].error * weights[name].abs().max(), name
        is_exact = tensor.ndim == 1 or name == "position_embedding.weight"
        assert (off == 0) == (is_exact or weights[name].eq(0).all()), name
    types = {tensor.name: tensor.tensor_type.name for tensor in library.GGUFReader(path).tensors}
    assert types["blk.1.ffn_up.weight"] == KINDS[kind].type
    assert types["token_embd.weight"] == KINDS[kind].tables
    assert types["position_embd.weight"] == types["blk.0.attn_qkv.bias"] == "F32"


def test_rows_that_are_no_whole_blocks_stay_float16(tokenizer, tmp_path):
    model = network(replace(SHAPE, d_model=40, ffn_multiple=1.6))
    narrow = fallbacks(model, KINDS["q4_0"])
    assert "token_embedding.weight" in narrow and "blocks.0.attention.qkv.weight" in narrow
    assert "blocks.0.feed_forward.down.weight" not in narrow  # its rows have 64 numbers
    path = written(tmp_path, tokenizer, model, "q4_0")
    types = {tensor.name: tensor.tensor_type.name for tensor in library.GGUFReader(path).tensors}
    assert all(types[gguf_name(name)] == "F16" for name in narrow)


def test_settings_say_the_shape(tokenizer, tmp_path):
    reader = library.GGUFReader(written(tmp_path, tokenizer, network(replace(SHAPE, ffn_multiple=1.5)), "f16"))
    shape = {
        "context_length": 24,
        "embedding_length": 64,
        "block_count": 2,
        "feed_forward_length": 96,
        "attention.head_count": 4,
    }
    assert {key: value(reader, f"gpt2.{key}") for key in shape} == shape
    assert math.isclose(value(reader, "gpt2.attention.layer_norm_epsilon"), 1e-5, rel_tol=1e-6)
    assert (value(reader, "general.architecture"), value(reader, "general.name")) == ("gpt2", "a name")
    assert value(reader, "general.file_type") == library.LlamaFileType.MOSTLY_F16


def test_the_tokenizer_is_inside(tokenizer, tmp_path):
    reader = library.GGUFReader(written(tmp_path, tokenizer, network(), "f32"))
    tokens, types = (value(reader, f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
    assert len(tokens) == len(types) == 288
    assert tokens[tokenizer.end_of_text] == "<|endoftext|>"
    assert np.flatnonzero(np.array(types) == library.TokenType.CONTROL).tolist() == [tokenizer.end_of_text]
    assert len(value(reader, "tokenizer.ggml.merges")) == 288 - 257
    assert (value(reader, "tokenizer.ggml.model"), value(reader, "tokenizer.ggml.pre")) == ("gpt2", "gpt-2")
    assert value(reader, "tokenizer.ggml.eos_token_id") == value(reader, "tokenizer.ggml.bos_token_id") == 287
    assert value(reader, "tokenizer.ggml.add_bos_token") is False


def test_an_unknown_type_is_one_line():
    with pytest.raises(ValueError, match="unknown type 'q4_k'; did you mean 'q4_0'"):
        kind_named("q4_k")
