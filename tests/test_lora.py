import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from cerebras_gpt import checkpoint
from cerebras_gpt.exporting import export_model
from cerebras_gpt.generate.engine import generate_ids
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.importing import import_adapter
from cerebras_gpt.interop import adapter
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize, roles
from cerebras_gpt.model.lora import ADAPTED, add_low_rank, low_rank_layers, merged
from cerebras_gpt.plan.families import mup
from cerebras_gpt.text.tokenizer import train_tokenizer
from cerebras_gpt.train.optim import optimizer, state_tensors

SHAPE = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=280, seq_len=24)
SHAPES = {"tied": SHAPE, "untied": replace(SHAPE, tied=False), "narrow": replace(SHAPE, d_embedding=16, tied=False)}
IDS = torch.randint(280, (3, 24), generator=torch.Generator().manual_seed(1))
TOKENIZER = train_tokenizer(["plain words in a row, and a few more of them to merge", "other words"] * 3, 280)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def base(shape=SHAPE):
    return initialize(GPT(shape, replace(mup(shape), depth_multiplier=2.0)), seeded())


def updated(rank=4, scale=1.5, shape=SHAPE):
    """A model with updates that are not nothing."""
    model = add_low_rank(base(shape), rank, seeded(1), scale)
    for layer in low_rank_layers(model).values():
        torch.nn.init.normal_(layer.up.weight, std=0.1, generator=seeded(2))
    return model.eval()


def plain(model):
    """The same model without updates: they are merged."""
    made = GPT(model.architecture, model.parametrization)
    made.load_state_dict(merged(model))
    return made.eval()


@torch.no_grad()
def logits(model):
    return model(IDS)


def test_updates_begin_as_nothing():
    assert torch.equal(logits(add_low_rank(base(), 4, seeded(1))), logits(base()))


def test_every_matrix_of_a_block_and_the_token_table_have_one_and_nothing_else():
    names = set(low_rank_layers(updated()))
    of_blocks = {name.removesuffix(".weight") for name, _, role in roles(base()) if role in ADAPTED}
    assert names == of_blocks | {"token_embedding"}


def test_the_head_shares_the_update_of_its_table():
    model = updated()
    assert torch.equal(model.head_table, model.token_embedding.weight)
    assert not torch.equal(model.head_table, base().head_table)


def test_merged_is_unmerged_to_the_last_bit():
    model = updated()
    assert torch.equal(logits(plain(model)), logits(model))
    assert not torch.equal(logits(model), logits(base()))
    greedy = [list(generate_ids(m, [[5, 6], [7]], Sampling(temperature=0), 20)) for m in (model, plain(model))]
    assert greedy[0] == greedy[1]


def test_a_model_without_updates_merges_to_itself():
    model = base()
    assert merged(model).keys() == dict(model.named_parameters()).keys()


def test_only_updates_learn_and_have_optimizer_state(tiny):
    model = add_low_rank(base(), 4, seeded(1))
    adamw = optimizer(model, replace(tiny, architecture=SHAPE, parametrization=model.parametrization))
    assert all(".up.weight" in name or ".down.weight" in name for name in state_tensors(adamw, model))
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    for group in adamw.param_groups:
        group["lr"] = 0.1 * group["lr_scale"]
    for _ in range(2):  # the first moves only the one that began at nothing
        model(IDS).square().mean().backward()
        adamw.step()
    changed = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed == {name for name, _, role in roles(model) if role.startswith("low_rank")}


def test_the_table_scales_the_two_factors_as_their_widths():
    wide = replace(mup(SHAPE), width_multiplier=16.0)
    assert wide.row("low_rank_in").lr_scale == 1 / 16
    assert wide.row("low_rank_out").lr_scale == 1.0


@pytest.mark.parametrize("rank", [0, 33])
def test_an_impossible_rank_is_refused(rank):
    with pytest.raises(ValueError, match="choose 1 to 32"):
        add_low_rank(base(), rank, seeded())


def saved(run, model, with_adapter):
    texts = {"model.json": checkpoint.model_json(model), "tokenizer.json": TOKENIZER.to_json()}
    tensors = {"model.safetensors": merged(model)}
    if with_adapter:
        texts[adapter.CONFIG] = adapter.adapter_config(model)
        tensors[adapter.WEIGHTS] = adapter.adapter_tensors(model)
    return checkpoint.save(run, 0, texts, tensors)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_peft_loads_the_adapter_onto_the_exported_model(shape, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = updated(shape=shape)
    saved(tmp_path / "base", base(shape), with_adapter=False)
    folder = saved(tmp_path / "adapted", model, with_adapter=True)
    export_model(tmp_path / "base", "hf", tmp_path / "hf")
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "hf"), folder).eval()
    with torch.no_grad():
        found = theirs(IDS).logits
    assert (found - logits(model)).abs().max() < 1e-4 * logits(model).abs().max()


@pytest.mark.parametrize("shape", [SHAPES["tied"], SHAPES["untied"]], ids=["tied", "untied"])
def test_an_adapter_comes_back_as_it_went_out(shape, tmp_path):
    model = updated(shape=shape)
    saved(tmp_path / "base", base(shape), with_adapter=False)
    folder = saved(tmp_path / "adapted", model, with_adapter=True)
    back = checkpoint.load_model(import_adapter(folder, tmp_path / "base", tmp_path / "merged"))
    torch.testing.assert_close(logits(back), logits(model))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "IA3"}, "holds IA3, not LORA"),
        ({"use_dora": True}, "use_dora True, which is not plain LoRA"),
        ({"r": 5}, "lora_embedding_A of .* is .4, 280., .5, 280. is needed"),
    ],
)
def test_what_is_no_adapter_for_this_model_is_refused(settings, words, tmp_path):
    folder = saved(tmp_path / "adapted", updated(), with_adapter=True)
    config = json.loads((folder / adapter.CONFIG).read_text()) | settings
    (folder / adapter.CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        adapter.read_adapter(folder, base())


def test_a_table_changed_without_its_head_is_refused(tmp_path):
    folder = saved(tmp_path / "adapted", updated(), with_adapter=True)
    tensors = load_file(folder / adapter.WEIGHTS)
    save_file({name: t for name, t in tensors.items() if "lm_head" not in name}, folder / adapter.WEIGHTS)
    with pytest.raises(ValueError, match="does not change the token table and the head alike"):
        adapter.read_adapter(folder, base())
    narrow = saved(tmp_path / "narrow", updated(shape=SHAPES["narrow"]), with_adapter=True)
    with pytest.raises(ValueError, match="narrower in this model"):
        adapter.read_adapter(narrow, base(SHAPES["narrow"]))
