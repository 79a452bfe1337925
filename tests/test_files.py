"""A file is the old one or the new one, whole."""

import os

import pytest

from cerebras_gpt.files import replace_text, sync_folder, write_synced


def test_the_new_text_stands_in_place_of_the_old(tmp_path):
    file = tmp_path / "a.json"
    replace_text(file, "old")
    replace_text(file, "nëw\n")
    assert file.read_bytes() == "nëw\n".encode()
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_failure_leaves_the_old_text_and_nothing_else(tmp_path, monkeypatch, name):
    file = tmp_path / "a.json"
    file.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError, match="No space"):
        replace_text(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_contents_and_names_are_synced(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), real(descriptor)))
    write_synced(tmp_path / "a", b"1")
    sync_folder(tmp_path)
    assert len(synced) == (1 if os.name == "nt" else 2)
