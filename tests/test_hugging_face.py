"""A folder that transformers wrote becomes our model with the same logits, in every form in which folders come."""

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model
from transformers.activations import ACT2FN

from cerebras_gpt.interop import settings
from cerebras_gpt.interop.fold import folded
from cerebras_gpt.interop.gpt2 import gpt2_config, gpt2_tensors
from cerebras_gpt.interop.hugging_face import read_folder
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import ACTIVATIONS, GPT, initialize
from cerebras_gpt.plan.families import mup
from cerebras_gpt.text.tokenizer import train_tokenizer

SHAPE = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 16, "vocab_size": 61}
IDS = torch.arange(32).view(2, 16)


def theirs(**changes):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**{**SHAPE, "bos_token_id": 0, "eos_token_id": 0, **changes})).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    return model


def assert_same_logits(folder, model):
    with torch.no_grad():
        ours, expected = read_folder(folder).model(IDS), model(IDS).logits
    assert (ours - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_function": "gelu"},
        {"activation_function": "gelu_new"},
        {"activation_function": "relu", "n_inner": 37},
        {"activation_function": "gelu_pytorch_tanh", "layer_norm_epsilon": 1e-3},
        {"tie_word_embeddings": False},
        {"scale_attn_weights": False},
        {"n_inner": 7, "n_layer": 11},
    ],
    ids=str,
)
def test_logits_are_those_of_transformers(tmp_path, changes):
    model = theirs(**changes)
    model.save_pretrained(tmp_path)
    assert_same_logits(tmp_path, model)
    if "n_inner" in changes:
        assert read_folder(tmp_path).model.architecture.d_ffn == changes["n_inner"]


def write_config(folder, model, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict() | changes))


def test_shards_of_safetensors(tmp_path):
    model = theirs()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_same_logits(tmp_path, model)


def test_the_older_file_with_prefix_head_and_masks(tmp_path):
    model = theirs()
    write_config(tmp_path, model)
    masks = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16, dtype=torch.bool).tril(),
        "transformer.h.1.attn.bias": torch.ones(1, 1, 16, 16, dtype=torch.uint8).tril(),
        "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
    }
    torch.save({**model.state_dict(), **masks}, tmp_path / "pytorch_model.bin")
    assert_same_logits(tmp_path, model)
    assert read_folder(tmp_path).ignored == tuple(sorted(masks))


def test_shards_of_the_older_file_without_prefix_or_head(tmp_path):
    model = theirs()
    write_config(tmp_path, model, architectures=["GPT2Model"])
    items = list(model.transformer.state_dict().items())
    names = {}
    for n, part in enumerate((items[:9], items[9:])):
        file = f"pytorch_model-{n + 1:05d}-of-00002.bin"
        torch.save(dict(part), tmp_path / file)
        names |= dict.fromkeys(dict(part), file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert_same_logits(tmp_path, model)


def test_a_model_without_a_head_is_tied(tmp_path):
    model = theirs()
    model.transformer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [GPT2Model.__name__]
    assert_same_logits(tmp_path, model)
    assert read_folder(tmp_path).model.head is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly(tmp_path, dtype):
    model = theirs(tie_word_embeddings=False).to(dtype)
    model.save_pretrained(tmp_path)
    reading = read_folder(tmp_path)
    assert reading.dtypes == (str(dtype).removeprefix("torch."),)
    stored = {name: tensor.float() for name, tensor in model.state_dict().items()}
    back = gpt2_tensors(dict(reading.model.named_parameters()))
    assert all(torch.equal(back[name], tensor) for name, tensor in stored.items())


def test_a_snapshot_of_a_hub_cache_links_to_its_blobs(tmp_path):
    model, snapshot, blobs = theirs(), tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    model.save_pretrained(blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert_same_logits(snapshot, model)


@pytest.mark.parametrize(("name", "ours"), settings.ACTIVATIONS.items())
def test_every_accepted_activation_is_the_function_of_that_name(name, ours):
    x = torch.linspace(-9, 9, 10_001)
    assert (ACT2FN[name](x) - ACTIVATIONS[ours](x)).abs().max() <= 1e-6


def test_every_key_that_transformers_writes_is_known():
    keys = theirs().config.to_dict().keys() | {"architectures"}
    assert keys <= settings.READ | set(settings.BOOKKEEPING.split()) | settings.NEUTRAL.keys()


BTLM = {"mup_width_scale": 0.25, "mup_embeddings_scale": 10.0, "mup_output_alpha": 2.2, "mup_scale_qk_dot_by_d": True}
CODE = {"AutoConfig": "configuration_btlm.BTLMConfig", "AutoModelForCausalLM": "modeling_btlm.BTLMLMHeadModel"}


def test_a_mup_checkpoint_keeps_its_parametrization_and_its_logits(tmp_path):
    shape = Architecture(d_model=64, n_layers=2, n_heads=4, vocab_size=61, seq_len=16)
    table = SimpleNamespace(**{**mup(shape).__dict__})
    model = initialize(GPT(shape, mup(shape)), torch.Generator().manual_seed(0)).eval()
    scales = {
        "mup_width_scale": 1 / table.width_multiplier,
        "mup_embeddings_scale": table.embedding_scale,
        "mup_output_alpha": table.output_alpha,
        "mup_scale_qk_dot_by_d": True,
    }
    config = gpt2_config(shape, 0) | scales
    config |= {"model_type": "btlm", "architectures": ["BTLMLMHeadModel"], "auto_map": CODE}
    (tmp_path / "config.json").write_text(json.dumps(config | {"position_embedding_type": "learned"}))
    torch.save(gpt2_tensors(model.state_dict()), tmp_path / "pytorch_model.bin")
    (tmp_path / "modeling_btlm.py").write_text("raise SystemExit('this must never run')")
    found = read_folder(tmp_path).model
    assert found.parametrization.attention_power == 1
    assert torch.equal(found(IDS), model(IDS))
    assert (folded(found)(IDS) - model(IDS)).abs().max() <= 1e-5


@pytest.mark.parametrize("m", [0.25, 1 / 4.25, 0.1])
def test_the_scales_of_mup_are_read(tmp_path, m):
    config = theirs().config.to_dict() | BTLM | {"mup_width_scale": m, "model_type": "btlm"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    table = settings.read_settings(tmp_path).parametrization
    assert (table.embedding_scale, table.output_alpha, table.attention_power) == (10, 2.2, 1)
    assert table.logit_scale == pytest.approx(2.2 * m, rel=1e-15)


@pytest.mark.parametrize("rows", [300, 288])
def test_rows_without_a_token_are_cut_and_the_other_logits_stay(tmp_path, rows):
    tokenizer = train_tokenizer(["some words and more words " * 9], 260)
    model = theirs(vocab_size=rows)
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    reading = read_folder(tmp_path)
    assert (reading.n_rows_cut, reading.model.architecture.vocab_size) == (rows - 260, 260)
    with torch.no_grad():
        assert (reading.model(IDS) - model(IDS).logits[..., :260]).abs().max() <= 1e-5
