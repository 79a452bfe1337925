"""The weight files of a model folder: one or many, safetensors or older, as one mapping of tensors."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cerebras_gpt.interop.folder import inside, read_object, shown
from cerebras_gpt.interop.legacy import LegacyFile
from cerebras_gpt.interop.tensor_files import EXACT, SafetensorsFile, Stored, TensorFile

INDEX_SUFFIX = ".index.json"
FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""What is looked for, the first one found is read; nothing else in a folder is opened for weights."""


class Weights:
    """Every tensor of a model folder by name, read one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        name = next((name for name in FILES if (folder / name).exists() or (folder / name).is_symlink()), None)
        if name is None:
            raise FileNotFoundError(f"{folder} holds no weights; one of {', '.join(FILES)} is needed")
        path = inside(folder, name)
        self._files = _shards(folder, path) if name.endswith(INDEX_SUFFIX) else [_opened(path)]
        self._file_by_name = {tensor: file for file in self._files for tensor in file.stored}
        self.stored: Mapping[str, Stored] = {name: file.stored[name] for name, file in self._file_by_name.items()}

    @property
    def paths(self) -> list[Path]:
        """The files that hold the tensors."""
        return [file.path for file in self._files]

    def read(self, name: str) -> Tensor:
        """A tensor in float32, exactly as stored; raises ValueError if it is of another kind or not finite."""
        file = self._file_by_name[name]
        dtype = file.stored[name].dtype
        if dtype not in EXACT:
            raise ValueError(
                f"{file.path}: {shown(name)} is of type {dtype}; float32 holds only {', '.join(EXACT)} exactly, "
                "so save the model in one of these"
            )
        tensor = file.read(name).to(torch.float32)
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{file.path}: {shown(name)} holds values that are not finite; the model is broken")
        return tensor


def _opened(path: Path) -> TensorFile:
    return SafetensorsFile(path) if path.suffix == ".safetensors" else LegacyFile(path)


def _shards(folder: Path, index: Path) -> list[TensorFile]:
    """The files that an index names, each holding just the tensors that the index says."""
    suffix = Path(index.name.removesuffix(INDEX_SUFFIX)).suffix
    names_by_file: dict[str, set[str]] = {}
    for tensor, name in _weight_map(index).items():
        if not isinstance(name, str) or not name.endswith(suffix):
            raise ValueError(f"{index} puts {shown(tensor)} in {shown(name)}; it must be a {suffix} file beside it")
        names_by_file.setdefault(name, set()).add(tensor)
    files = []
    for name, expected in sorted(names_by_file.items()):
        file = _opened(inside(folder, name))
        for tensor in sorted(expected ^ file.stored.keys()):
            fault = "lacks" if tensor in expected else "holds, against its index,"
            raise ValueError(f"{file.path} {fault} the tensor {shown(tensor)}; fetch the folder again")
        files.append(file)
    return files


def _weight_map(index: Path) -> Mapping[str, object]:
    found = read_object(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{index} has no weight_map, a mapping of tensors to files; fetch it again")
    return found
