"""A file is the old one or the new one, whole."""

import errno
import os
import subprocess
import sys

import pytest

from cerebras_gpt.files import new_file, new_folder, only_one, replace_text, sync_folder, write_synced


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


def test_only_one_is_let_in_and_the_other_hears_who_is_inside(tmp_path):
    lock = tmp_path / ".lock"
    told = f"the run is in use by process {os.getpid()} on .*; wait for it, stop"
    with only_one(lock, "the run"), pytest.raises(ValueError, match=told), only_one(lock, "the run"):
        pytest.fail("two are inside")
    with only_one(lock, "the run"):
        pass


def test_the_lock_of_a_dead_process_is_no_hindrance(tmp_path):
    lock = tmp_path / ".lock"
    program = (
        "import os, sys, pathlib; from cerebras_gpt.files import only_one\n"
        "with only_one(pathlib.Path(sys.argv[1]), 'x'): print('in', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", program, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"in\n"
    with pytest.raises(ValueError, match=f"process {child.pid} on "), only_one(lock, "x"):
        pass
    child.kill()
    child.communicate()
    with only_one(lock, "x"):
        pass


def test_contents_and_names_are_synced(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), real(descriptor)))
    write_synced(tmp_path / "a", b"1")
    sync_folder(tmp_path)
    assert len(synced) == (1 if os.name == "nt" else 2)


def test_a_disk_that_cannot_sync_folders_is_good_enough(tmp_path, monkeypatch):
    def refuses(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuses)
    sync_folder(tmp_path)


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    with new_folder(tmp_path / "a" / "made") as fresh:
        (fresh / "file").write_text("text")
        assert not (tmp_path / "a" / "made").exists()
    assert (tmp_path / "a" / "made" / "file").read_text() == "text"
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a" / "other") as fresh:
        (fresh / "file").write_text("text")
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["made"]


def test_a_new_file_appears_whole_or_not_at_all(tmp_path):
    with new_file(tmp_path / "a" / "made") as fresh:
        fresh.write_text("text")
        assert not (tmp_path / "a" / "made").exists()
    assert (tmp_path / "a" / "made").read_text() == "text"
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "a" / "other") as fresh:
        fresh.write_text("text")
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["made"]
