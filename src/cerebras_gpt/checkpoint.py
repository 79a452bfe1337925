"""Checkpoints: folders that exist only when their manifest does, written so that no crash can lose the one before.

Files are written to a temporary folder and synced, the manifest (sizes, SHA-256) last, then the folder is renamed
and its parent synced. What is "newest" is computed from the manifests that verify, never from names alone.
"""

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from cerebras_gpt import config
from cerebras_gpt.files import sync_folder, write_synced
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.parametrization import Parametrization

log = logging.getLogger("cerebras_gpt")

MANIFEST = "manifest.json"
FORMAT = 1
FOLDER = "checkpoints"
KEPT = 2
"""Checkpoints that retention leaves; never fewer than two."""


class Shape(NamedTuple):
    """What model.json says: enough to build the network without its plan."""

    architecture: Architecture
    parametrization: Parametrization


def save(run: Path, step: int, texts: Mapping[str, str], tensors: Mapping[str, Mapping[str, Tensor]]) -> Path:
    """Writes run/checkpoints/step_N with the given text and safetensors files; gives its path.

    On any error (no space, no permission) the temporary folder is removed and older checkpoints are untouched.
    """
    parent = run / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / f"step_{step:08d}"
    fresh = parent / f".{final.name}.{uuid.uuid4().hex[:8]}.tmp"
    fresh.mkdir()
    try:
        files = {name: _write(fresh / name, text.encode("utf-8")) for name, text in texts.items()}
        for name, named in tensors.items():
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in named.items()}
            files[name] = _write(fresh / name, safetensors.torch.save(plain))
        manifest = {"format": FORMAT, "step": step, "files": files}
        _write(fresh / MANIFEST, json.dumps(manifest, indent=2).encode("utf-8"))
        sync_folder(fresh)
        if final.exists():  # only a damaged checkpoint is ever written again
            shutil.rmtree(final)
        os.rename(fresh, final)
        sync_folder(parent)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _retire(parent, final)
    return final


def verify(path: Path) -> dict[str, object]:
    """The manifest of a checkpoint all of whose files are as they were written.

    Raises FileNotFoundError if it is no checkpoint, ValueError naming the damaged file.
    """
    if not (path / MANIFEST).is_file():
        raise FileNotFoundError(f"{path} has no {MANIFEST}; give a run folder or a checkpoint folder")
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        files = dict(manifest["files"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path / MANIFEST} is damaged; use another checkpoint") from None
    for name, expected in files.items():
        file = path / name
        if not file.is_file() or _fact(file.read_bytes()) != expected:
            raise ValueError(f"{file} is damaged (its SHA-256 is not the manifest's); use another checkpoint")
    return dict(manifest)


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first, verified or not."""
    return sorted((run / FOLDER).glob("step_*"), reverse=True)


def newest(run: Path) -> Path | None:
    """The newest checkpoint of a run that verifies, warning of each damaged one on the way; None if there is none."""
    for path in checkpoints(run):
        try:
            verify(path)
        except (ValueError, FileNotFoundError) as error:
            log.warning("%s; falling back to the checkpoint before it", error)
            continue
        return path
    return None


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


def load_tensors(path: Path, into: Mapping[str, Tensor]) -> None:
    """Copies a safetensors file into existing tensors, all of them and no others; raises ValueError naming one."""
    try:
        found = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from None
    for name in sorted(found.keys() ^ into.keys()):
        raise ValueError(f"{path}: tensor {name!r} is {'not expected' if name in found else 'missing'}")
    for name, tensor in into.items():
        if found[name].shape != tensor.shape:
            raise ValueError(f"{path}: {name!r} has shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}")
        tensor.data.copy_(found[name])


def _write(path: Path, content: bytes) -> dict[str, object]:
    write_synced(path, content)
    return _fact(content)


def _fact(content: bytes) -> dict[str, object]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _retire(parent: Path, newest_path: Path) -> None:
    """Deletes all but the last KEPT checkpoints, after the newest one verifies, and leftovers of killed saves."""
    verify(newest_path)
    for path in sorted(parent.glob("step_*"), reverse=True)[KEPT:]:
        shutil.rmtree(path)
    for path in parent.glob(".step_*.tmp"):
        shutil.rmtree(path)
