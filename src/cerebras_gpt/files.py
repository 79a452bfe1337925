"""Files that survive a crash: synced contents, synced names, and replacement in one step."""

import errno
import json
import os
import platform
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Errors of the disk inside tell which file they are of; those of write and fsync do not by themselves."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_synced(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Writes a file whose contents are durable; its name is durable once its folder is synced."""
    with errors_of(path), path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable; Windows and some network disks have no such call, and get by without."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with errors_of(folder):
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Puts a whole new text in the place of a file: a reader sees the old one or the new one, never a part."""
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        write_synced(fresh, [text.encode("utf-8")])
        os.replace(fresh, path)
    except BaseException as error:
        fresh.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # the name that means something to a person
        raise


@contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Lets one process at a time into what the lock file stands for; raises ValueError naming the one inside.

    The system lets go when a process dies, however it dies; the file stays and is no hindrance. Where there are no
    such locks (Windows, some network disks) everybody is let in.
    """
    with lock.open("a+", encoding="utf-8") as file:
        if not _locked(file):
            file.seek(0)
            raise ValueError(f"{what} is in use by {file.read().strip()}; wait for it, stop it, or give another --out")
        file.truncate(0)
        with suppress(OSError):  # on a full disk: the lock holds without its words
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
        yield


def _locked(file: IO[str]) -> bool:
    """Whether nobody else holds it."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A folder to write synced files in, which gets its name when all went well and else leaves nothing."""
    final.parent.mkdir(parents=True, exist_ok=True)
    fresh = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.tmp")
    fresh.mkdir()
    try:
        yield fresh
        sync_folder(fresh)
        os.replace(fresh, final)  # what is there may be an empty folder
        sync_folder(final.parent)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


@contextmanager
def new_file(final: Path) -> Iterator[Path]:
    """A path to write a file at, which gets its name when all went well and else leaves nothing."""
    final.parent.mkdir(parents=True, exist_ok=True)
    fresh = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield fresh
        sync_file(fresh)
        os.replace(fresh, final)
        sync_folder(final.parent)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def sync_file(path: Path) -> None:
    """Makes the contents of a file durable that somebody else wrote."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, object]:
    """The object in a JSON file; raises ValueError naming a file that is damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged; restore it, or delete its folder and begin again")
    return found
