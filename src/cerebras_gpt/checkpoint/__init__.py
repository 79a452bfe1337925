"""Checkpoints: folders that exist only when their manifest does, written so that no crash can lose the one before.

Files are written to a temporary folder and synced, the manifest (sizes, SHA-256) last, then the folder is renamed
and its parent synced. What is "newest" is computed from the manifests that verify, never from names alone.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from cerebras_gpt import config
from cerebras_gpt.checkpoint.tensors import Gathering, as_safetensors, load_tensors
from cerebras_gpt.files import sync_folder, write_synced
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.parametrization import Parametrization

log = logging.getLogger("cerebras_gpt")

MANIFEST = "manifest.json"
FORMAT = 2
"""1 had no hash of the manifest itself."""
FOLDER = "checkpoints"
KEPT = 2
"""Checkpoints that retention leaves; never fewer than two."""


class Shape(NamedTuple):
    """What model.json says: enough to build the network without its plan."""

    architecture: Architecture
    parametrization: Parametrization


def save(
    run: Path,
    step: int,
    texts: Mapping[str, str],
    tensors: Mapping[str, Mapping[str, Tensor]],
    keep: Collection[int] = (),
) -> Path:
    """Writes run/checkpoints/step_N with the given text and safetensors files; gives its path.

    Older ones beyond the last KEPT go, but for the steps to keep. On any error (no space, no permission) the temporary
    folder is removed and older checkpoints are untouched. Beside the tensors it needs next to no memory.
    """
    with Gathering(tensors) as gathering:
        contents: dict[str, Iterable[bytes | memoryview]] = {name: [texts[name].encode("utf-8")] for name in texts}
        contents |= {name: as_safetensors(named, gathering) for name, named in tensors.items()}
        return _save(run, step, contents, keep)


def _save(run: Path, step: int, contents: Mapping[str, Iterable[bytes | memoryview]], keep: Collection[int]) -> Path:
    """`save` of files in pieces."""
    parent = run / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    _clear(parent)
    final = parent / f"step_{step:08d}"
    fresh = _hidden(final)
    fresh.mkdir()
    try:
        files = {name: _write(fresh / name, pieces) for name, pieces in contents.items()}
        _write(fresh / MANIFEST, [_manifest({"format": FORMAT, "step": step, "files": files})])
        sync_folder(fresh)
        if final.exists():  # of an earlier time: damaged, or the same step with less done
            os.rename(final, _hidden(final))
        os.rename(fresh, final)
        sync_folder(parent)
        _retire(final, keep)
    except BaseException:
        _clear(parent)
        raise
    return final


def verify(path: Path) -> dict[str, object]:
    """The manifest of a checkpoint all of whose files are as they were written, with no other beside them.

    Raises FileNotFoundError if it is no checkpoint, ValueError naming the damaged file.
    """
    if not (path / MANIFEST).is_file():
        raise FileNotFoundError(f"{path} has no {MANIFEST}; give a run folder or a checkpoint folder")
    manifest = _sound_manifest(path)
    files = manifest["files"]
    assert isinstance(files, dict)
    strange = {file.name for file in path.iterdir() if not file.name.startswith(".")} - {MANIFEST, *files}
    if strange:
        raise ValueError(
            f"{path} is damaged ({min(strange)} is not of it); use another checkpoint, or remove that file"
        )
    for name, expected in files.items():
        file = path / name
        if not file.is_file() or _fact_of(file) != expected:
            raise ValueError(f"{file} is damaged (its SHA-256 is not the manifest's); use another checkpoint")
    return manifest


def _sound_manifest(path: Path) -> dict[str, object]:
    """The manifest of a folder, if it is byte by byte as it was written, and belongs to the folder's name."""
    damaged = ValueError(f"{path / MANIFEST} is damaged; use another checkpoint")
    content = (path / MANIFEST).read_bytes()
    try:
        manifest = dict(json.loads(content))
        manifest.pop("sha256", None)
        plain = all(Path(name).name == name for name in dict(manifest["files"]))
        known = {1: json.dumps(manifest, indent=2).encode(), FORMAT: _manifest(manifest)}[manifest["format"]]
        belongs = not _is_checkpoint(path) or step_of(path) == manifest["step"]
    except (ValueError, KeyError, TypeError):
        raise damaged from None
    if content != known or not (plain and belongs):
        raise damaged
    return manifest


def _manifest(manifest: Mapping[str, object]) -> bytes:
    """A manifest as it is written: its own hash, of all the rest, is its last entry."""
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    return json.dumps({**manifest, "sha256": digest}, indent=2).encode("utf-8")


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first, verified or not."""
    found = (run / FOLDER).glob("step_*")
    return sorted((path for path in found if _is_checkpoint(path)), reverse=True)


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() and path.name.startswith("step_") and path.name.removeprefix("step_").isdigit()


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint folder."""
    return int(path.name.removeprefix("step_"))


def set_damaged_aside(run: Path) -> None:
    """Renames what does not verify and is newer than the newest good checkpoint, and says so; it is kept for study."""
    for path in checkpoints(run):
        try:
            verify(path)
            return
        except (ValueError, FileNotFoundError) as error:
            aside = _set_aside(path)
            log.warning("%s; falling back to the checkpoint before it; the damaged one is now %s", error, aside)


def newest(run: Path, at_most: int = sys.maxsize) -> Path | None:
    """The newest checkpoint of a run that verifies, warning of each damaged one on the way; None if there is none.

    With a step `at_most`, the newest of those no later.
    """
    for path in (found for found in checkpoints(run) if step_of(found) <= at_most):
        try:
            verify(path)
        except (ValueError, FileNotFoundError) as error:
            log.warning("%s; falling back to the checkpoint before it", error)
            continue
        return path
    return None


def regular(run: Path, step: int, every: int) -> Path | None:
    """The newest good one of a run's regular checkpoints no later than a step, or else the oldest; None without any.

    Only the regular ones: those of an interruption are not there in a run that had none.
    """
    regular = [path for path in checkpoints(run) if step_of(path) % every == 0]
    good = [path for path in regular if is_good(path)]
    return next((path for path in good if step_of(path) <= step), good[-1] if good else None)


def resolve(path: Path) -> Path:
    """A verified checkpoint folder from a run folder (its newest good one) or a checkpoint folder (itself)."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a run folder or a checkpoint folder")
    if not (path / FOLDER).is_dir():
        verify(path)
        return path
    found = newest(path)
    if found is None:
        raise FileNotFoundError(f"{path} holds no checkpoint that verifies; train it first, or train it again")
    return found


def model_json(model: GPT) -> str:
    """What model.json holds: architecture and parametrization."""
    shape = {"architecture": model.architecture, "parametrization": model.parametrization}
    return json.dumps({key: config.to_mapping(value) for key, value in shape.items()}, indent=2) + "\n"


def load_model(path: Path) -> GPT:
    """The network of a checkpoint folder, in float32 and evaluation mode; raises ValueError naming a wrong tensor."""
    shape = json.loads((path / "model.json").read_text("utf-8"))
    model = GPT(
        config.from_mapping(Architecture, shape["architecture"]),
        config.from_mapping(Parametrization, shape["parametrization"]),
    )
    load_tensors(path / "model.safetensors", dict(model.named_parameters()))
    return model.eval()


def _write(path: Path, chunks: Iterable[bytes | memoryview]) -> dict[str, object]:
    """Writes a file piece by piece, and gives what the manifest says of it."""
    digest, n_bytes = hashlib.sha256(), 0

    def passing() -> Iterator[bytes | memoryview]:
        nonlocal n_bytes
        for chunk in chunks:
            digest.update(chunk)
            n_bytes += memoryview(chunk).nbytes
            yield chunk

    write_synced(path, passing())
    return {"bytes": n_bytes, "sha256": digest.hexdigest()}


def _fact_of(path: Path) -> dict[str, object]:
    """What `_write` gave for a file, from what is on the disk now."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _hidden(path: Path) -> Path:
    """A name beside it for what is being written or deleted; only one process writes in a run at a time."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _clear(parent: Path) -> None:
    """Deletes what killed saves left, before it takes the room of the next."""
    for path in parent.glob(".step_*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def _retire(newest_path: Path, keep: Collection[int]) -> None:
    """Deletes checkpoints older than the last KEPT that verify, but for the steps to keep.

    Raises OSError when the newest does not read back as it was written; then nothing is deleted.
    """
    try:
        verify(newest_path)
    except ValueError as error:
        _set_aside(newest_path)
        raise OSError(errno.EIO, f"not written as meant: {error}", str(newest_path)) from None
    _clear(newest_path.parent)
    n_good = 0
    for path in checkpoints(newest_path.parents[1]):
        if n_good < KEPT:
            n_good += path == newest_path or is_good(path)
        elif step_of(path) not in keep:
            shutil.rmtree(path, ignore_errors=True)


def is_good(path: Path) -> bool:
    """Whether a folder is a checkpoint that verifies."""
    try:
        verify(path)
    except (ValueError, FileNotFoundError):
        return False
    return True


def _set_aside(path: Path) -> Path:
    """Renames a damaged checkpoint, so that its name is free and it can be studied; gives where it is now."""
    aside = path.with_name(f"damaged_{path.name}.{uuid.uuid4().hex[:8]}")
    os.rename(path, aside)
    return aside
