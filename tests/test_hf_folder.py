"""What a folder in Hugging Face's format says must be what transformers reads from it."""

import json
from dataclasses import replace
from math import ceil

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Tokenizer

from cerebras_gpt.data.shards import Shards
from cerebras_gpt.interop.fold import folded
from cerebras_gpt.interop.gpt2 import our_name, turned
from cerebras_gpt.interop.hf_folder import INDEX, read_hf_weights, write_hf_folder
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize, roles
from cerebras_gpt.plan.families import Base, completep, mup, standard
from cerebras_gpt.text.tokenizer import Tokenizer

SHAPE = Architecture(d_model=48, n_layers=2, n_heads=4, vocab_size=288, seq_len=32)
HARD = (
    "",
    " ",
    "   three spaces, trailing   ",
    "\n\n \t\r\n",
    "it's we'll I'D 'tis 12345 3.14 x=1;",
    "caf\u00e9 e\u0301 \u4f60\u597d\u4e16\u754c \u3053\u3093\u306b\u3061\u306f \u0645\u0631\u062d\u0628\u0627",
    "\U0001f680\U0001f468\u200d\U0001f469\u200d\U0001f467 \u00a0\u2003\u200b|",
    "\x00\x01\x1b[0m\x7f\x85",
    "before<|endoftext|>after <|endoftext|>",
)


def network(shape: Architecture, parametrize=standard, base: Base | None = None) -> GPT:
    """A model in which nothing is at its neutral value, biases and norms included."""
    generator = torch.Generator().manual_seed(0)
    model = GPT(shape, parametrize(shape, base) if base else parametrize(shape))
    initialize(model, generator)
    for _, parameter, role in roles(model):
        if role in ("bias", "norm"):
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer(data) -> Tokenizer:
    return Shards.open(data, "train").tokenizer


def base(m: float) -> Base:
    return Base(d_model=round(SHAPE.d_model / m), n_layers=1, init_std=0.08, embedding_scale=10.0, output_alpha=2.0)


CASES = {
    "plain": network(SHAPE),
    "muP 3": network(SHAPE, mup, base(3)),
    "muP 4.25": network(replace(SHAPE, d_model=68), mup, Base(16, 1, 0.08, 10.0, 2.0)),
    "muP 10": network(replace(SHAPE, d_model=80), mup, Base(8, 1, 0.08, 10.0, 2.0)),
    "CompleteP": network(SHAPE, completep, base(3)),
    "untied": network(replace(SHAPE, tied=False), mup, base(3)),
    "narrow": network(replace(SHAPE, tied=False, d_embedding=20), mup, base(3)),
    "gelu_new": network(replace(SHAPE, activation="gelu_new")),
    "relu": network(replace(SHAPE, activation="relu")),
    "odd d_ffn": network(replace(SHAPE, ffn_multiple=101 / 48)),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_transformers_computes_the_same_logits(case, tokenizer, tmp_path):
    model = CASES[case]
    write_hf_folder(tmp_path, folded(model), tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True).eval()
    ids = torch.randint(288, (2, 32), generator=torch.Generator().manual_seed(1))
    ours, found = model(ids), theirs(ids).logits
    assert theirs.dtype == torch.float32
    assert (ours - found).abs().max() <= 1e-5 * ours.abs().max()


@pytest.mark.parametrize("case", ["plain", "untied", "odd d_ffn"])
@pytest.mark.parametrize("shard_bytes", [10**9, 30_000])
def test_the_weights_read_back_bit_for_bit(case, shard_bytes, tokenizer, tmp_path):
    model = CASES[case]
    write_hf_folder(tmp_path, model, tokenizer, shard_bytes)
    back = read_hf_weights(tmp_path, model.architecture)
    assert back.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(back[name], parameter) for name, parameter in model.named_parameters())


def test_large_weights_are_sharded_with_an_index(tokenizer, tmp_path):
    model = CASES["plain"]
    write_hf_folder(tmp_path, model, tokenizer, 60_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    n_bytes = sum(parameter.nbytes for parameter in model.parameters())
    assert len(files) >= ceil(n_bytes / 60_000)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == n_bytes
    assert set(index["weight_map"].values()) == {file.name for file in files}
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            ours = dict(model.named_parameters())[our_name(name)]
            assert torch.equal(turned(name, opened.get_tensor(name)), ours)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert torch.equal(theirs.transformer.wte.weight, model.token_embedding.weight)


def test_a_tied_head_is_written_once(tokenizer, tmp_path):
    write_hf_folder(tmp_path, CASES["plain"], tokenizer)
    with safe_open(tmp_path / "model.safetensors", "pt") as opened:
        assert "lm_head.weight" not in opened.keys()  # noqa: SIM118  (it is no mapping)


def test_settings_are_those_that_other_readers_ask_for(tokenizer, tmp_path):
    write_hf_folder(tmp_path, CASES["odd d_ffn"], tokenizer)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["architectures"] == ["GPT2LMHeadModel"]
    assert (settings["n_ctx"], settings["n_positions"], settings["n_inner"]) == (32, 32, 101)
    assert settings["activation_function"] == "gelu"
    assert settings["eos_token_id"] == settings["bos_token_id"] == tokenizer.end_of_text
    assert not any("auto_map" in path.read_text() for path in tmp_path.glob("*.json"))


@pytest.mark.parametrize("kind", [AutoTokenizer, GPT2Tokenizer])
def test_transformers_gives_the_same_ids_and_text(kind, tokenizer, tmp_path, documents):
    write_hf_folder(tmp_path, CASES["plain"], tokenizer)
    theirs = kind.from_pretrained(tmp_path, local_files_only=True)
    assert (theirs.eos_token_id, len(theirs), theirs.model_max_length) == (tokenizer.end_of_text, 288, 32)
    for text in (*HARD, documents[0].text):
        ids = tokenizer.encode(text)
        assert theirs(text, split_special_tokens=True)["input_ids"] == ids, repr(text)
        assert theirs.decode(ids) == tokenizer.decode(ids) == text


def test_the_two_lists_alone_give_the_same_ids(tokenizer, tmp_path):
    write_hf_folder(tmp_path, CASES["plain"], tokenizer)
    (tmp_path / "tokenizer.json").unlink()
    theirs = GPT2Tokenizer.from_pretrained(tmp_path, local_files_only=True)
    for text in HARD[:-1]:
        assert theirs(text)["input_ids"] == tokenizer.encode(text), repr(text)
