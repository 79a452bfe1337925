"""A checkpoint is whole or not there; damage is found and the one before is used."""

import errno
import io
import json
import logging
import os

import pytest
import safetensors.torch
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.checkpoint.tensors import DTYPES, Gathering, as_safetensors
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

    def full(path, chunks):
        if path.name == "model.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, chunks)

    monkeypatch.setattr(checkpoint, "write_synced", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2, model)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]
    assert checkpoint.resolve(tmp_path).name == "step_00000001"


CALLS = ["open", "fsync", "rename", "mkdir"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", CALLS)
def test_whatever_call_of_a_save_fails_the_one_before_stays_and_the_next_save_works(
    tmp_path, model, monkeypatch, call, number
):
    """Every single call of one save, one after the other, fails with each error of a disk."""
    save(tmp_path, 1, model)
    n_calls, where = 0, os if call != "open" else io
    real = getattr(where, call)
    for failing in range(99):
        n_calls = 0

        def fails(*arguments, failing=failing, **settings):
            nonlocal n_calls
            n_calls += 1
            if n_calls == failing + 1:
                raise OSError(number, os.strerror(number), str(arguments[0]))
            return real(*arguments, **settings)

        with monkeypatch.context() as patched:
            patched.setattr(where, call, fails)
            try:
                save(tmp_path, 2, model)
            except OSError as error:
                assert error.errno == number
        if n_calls <= failing:
            break
        assert checkpoint.resolve(tmp_path).name in ("step_00000001", "step_00000002")
        checkpoint.verify(tmp_path / "checkpoints" / "step_00000001")
        assert not list((tmp_path / "checkpoints").glob(".*"))
    assert failing >= 1, "no call was seen"
    assert checkpoint.resolve(tmp_path).name == "step_00000002"


def test_the_error_of_a_full_disk_names_the_file(tmp_path, model, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"checkpoints/\.step_00000002\..*model\.json"):
        save(tmp_path, 2, model)


def test_files_are_those_of_the_safetensors_library(tmp_path):
    tensors = {
        "b": torch.randn(3, 5),
        "a": torch.randn(4, 6)[:, ::2],
        "ä.step": torch.tensor(2.0),
        "none": torch.empty(0, 3),
    }
    ours = b"".join(as_safetensors(tensors, Gathering({"": tensors})))
    assert ours == safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_dtype_come_back_in_the_same_bits(tmp_path, dtype):
    tensors = {"wide": torch.arange(7.0), "it": torch.arange(5).to(dtype)}
    found = safetensors.torch.load(b"".join(as_safetensors(tensors, Gathering({"": tensors}))))
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )


@pytest.mark.parametrize(
    "edit",
    [
        lambda path: (path / "extra").write_text("x"),
        lambda path: (path / "manifest.json").write_text((path / "manifest.json").read_text() + " "),
        lambda path: (path / "manifest.json").write_text((path / "manifest.json").read_text().replace(": 1", ": 5")),
        lambda path: (path / "manifest.json").write_text('{"format": 2, "step": 1, "files": {}}'),
        lambda path: (path / "manifest.json").write_text('{"format": 1, "step": 1, "files": {"../x": {}}}'),
        lambda path: (path / "manifest.json").write_text('{"format": 99, "step": 1, "files": {}}'),
        lambda path: (path / "manifest.json").write_text("[]"),
    ],
    ids=["extra file", "a byte more", "another step", "no files", "a file outside", "unknown format", "a list"],
)  # fmt: skip
def test_a_manifest_is_believed_only_as_it_was_written(tmp_path, model, edit):
    path = save(tmp_path, 1, model)
    edit(path)
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.verify(path)


def test_every_flipped_bit_of_a_manifest_is_found(tmp_path, model):
    path = save(tmp_path, 1, model)
    content = (path / "manifest.json").read_bytes()
    for i in range(8 * len(content)):
        changed = bytearray(content)
        changed[i // 8] ^= 1 << i % 8
        (path / "manifest.json").write_bytes(changed)
        with pytest.raises(ValueError, match="damaged"):
            checkpoint.verify(path)


def test_a_checkpoint_may_not_pass_for_another_but_may_be_copied_elsewhere(tmp_path, model):
    path = save(tmp_path, 1, model)
    checkpoint.verify(path.rename(tmp_path / "my model"))
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.verify((tmp_path / "my model").rename(tmp_path / "step_00000002"))


def test_checkpoints_of_the_first_format_are_read(tmp_path, model):
    path = save(tmp_path, 1, model)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["sha256"]
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": 1}, indent=2))
    assert checkpoint.verify(path)["step"] == 1


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_damaged_one_is_set_aside_for_study_and_the_one_before_is_the_newest(tmp_path, model, caplog):
    for step in (1, 2):
        path = save(tmp_path, step, model)
    flip(path / "model.safetensors")
    checkpoint.set_damaged_aside(tmp_path)
    assert "model.safetensors is damaged" in caplog.text and "the damaged one is now" in caplog.text
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step_00000001"]
    (aside,) = (tmp_path / "checkpoints").glob("damaged_step_00000002.*")
    assert (aside / "model.safetensors").exists()


def test_retention_never_deletes_the_last_two_that_verify(tmp_path, model):
    for step in (1, 2):
        save(tmp_path, step, model)
    flip(tmp_path / "checkpoints" / "step_00000002" / "model.json")
    save(tmp_path, 3, model)
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == [3, 2, 1]
    save(tmp_path, 4, model)
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == [4, 3]


def test_what_is_to_be_kept_is_kept(tmp_path, model):
    texts = {"model.json": checkpoint.model_json(model)}
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, texts, {}, keep=(1,))
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == [4, 3, 1]
    found = checkpoint.newest(tmp_path, at_most=3)
    assert found is not None and found.name == "step_00000003"


def test_a_save_that_does_not_read_back_counts_as_failed(tmp_path, model, monkeypatch):
    save(tmp_path, 1, model)
    real = checkpoint.write_synced

    def careless(path, chunks):
        content = list(chunks)
        real(path, content if path.name != "model.safetensors" else content[:-1])

    monkeypatch.setattr(checkpoint, "write_synced", careless)
    with pytest.raises(OSError, match="not written as meant"):
        save(tmp_path, 2, model)
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
