"""A checkpoint is whole or not there; damage is found and the one before is used."""

import errno
import json
import logging

import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization


@pytest.fixture
def model():
    architecture = Architecture(d_model=16, n_layers=1, n_heads=2, vocab_size=50, seq_len=8)
    return initialize(GPT(architecture, Parametrization(1, 8)), torch.Generator().manual_seed(0))


def save(run, step, model):
    texts = {"model.json": checkpoint.model_json(model), "note.txt": str(step)}
    return checkpoint.save(run, step, texts, {"model.safetensors": dict(model.named_parameters())})


def test_a_loaded_model_is_the_saved_one(tmp_path, model):
    loaded = checkpoint.load_model(save(tmp_path, 1, model))
    assert loaded.architecture == model.architecture
    assert loaded.parametrization == model.parametrization
    for ours, theirs in zip(model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_newest_of_a_run_is_found_and_older_ones_retire(tmp_path, model):
    for step in (1, 2, 10):
        save(tmp_path, step, model)
    assert checkpoint.resolve(tmp_path).name == "step_00000010"
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step_00000010", "step_00000002"]


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "manifest.json", "note.txt"])
def test_one_flipped_bit_anywhere_falls_back_loudly(tmp_path, model, name, caplog):
    save(tmp_path, 1, model)
    damaged = save(tmp_path, 2, model) / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.resolve(tmp_path).name == "step_00000001"
    assert "damaged" in caplog.text and "step_00000002" in caplog.text


@pytest.mark.parametrize("edit", ["truncate", "delete", "swap"])
def test_every_kind_of_damage_is_found(tmp_path, model, edit):
    path = save(tmp_path, 1, model)
    file = path / "model.safetensors"
    if edit == "truncate":
        file.write_bytes(file.read_bytes()[:-1])
    elif edit == "delete":
        file.unlink()
    else:
        file.write_bytes((path / "model.json").read_bytes())
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        checkpoint.verify(path)


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path, model, monkeypatch):
    save(tmp_path, 1, model)
    real = checkpoint.write_synced

    def full(path, content):
        if path.name == "model.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, content)

    monkeypatch.setattr(checkpoint, "write_synced", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2, model)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]
    assert checkpoint.resolve(tmp_path).name == "step_00000001"


def test_leftovers_of_a_killed_save_are_not_checkpoints_and_go_with_the_next(tmp_path, model):
    left = tmp_path / "checkpoints" / ".step_00000005.0badf00d.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    assert checkpoint.newest(tmp_path) is None
    save(tmp_path, 6, model)
    assert not left.exists()


def test_a_wrong_tensor_is_named(tmp_path, model):
    path = save(tmp_path, 1, model)
    shape = json.loads((path / "model.json").read_text())
    shape["architecture"]["vocab_size"] = 51
    (path / "model.json").write_text(json.dumps(shape))
    with pytest.raises(ValueError, match=r"token_embedding\.weight.*\(50, 16\)"):
        checkpoint.load_model(path)


def test_what_is_no_checkpoint_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        checkpoint.resolve(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="give a run folder or a checkpoint folder"):
        checkpoint.resolve(tmp_path)
