"""The tensors of a checkpoint: one safetensors file, streamed out and in by the first process, shared with the rest."""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cerebras_gpt.distributed import World, fill, whole

DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.int64: "I64", torch.bfloat16: "BF16", torch.float16: "F16"}


class Gathering:
    """Puts the tensors of a checkpoint together, one after the other; on leaving, all that nobody has asked for.

    A process that stops in the middle (a full disk) would leave the others waiting for the rest of its shares.
    """

    def __init__(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._left = deque(tensor for named in tensors.values() for _, tensor in _ordered(named))

    def next(self) -> Tensor:
        """The next tensor, whole."""
        return whole(self._left.popleft().detach())

    def __enter__(self) -> "Gathering":
        return self

    def __exit__(self, *_: object) -> None:
        while self._left:
            self.next()


def as_safetensors(named: Mapping[str, Tensor], gathering: Gathering) -> Iterator[bytes | memoryview]:
    """The safetensors file of some tensors in pieces: eight bytes of length, a header in JSON, then their memory.

    The library's own writer holds the whole file in memory twice, and tells of no error number (a full disk).
    """
    ordered = _ordered(named)
    header, offset = {}, 0
    for name, tensor in ordered:
        end = offset + tensor.numel() * tensor.itemsize
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _ in ordered:
        yield gathering.next().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def take_part(tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """What the other processes do while the first one saves: they give it their shares of each tensor."""
    with Gathering(tensors):
        pass


def _ordered(named: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:  # as the library: wide types first, then names
    return sorted(named.items(), key=lambda item: (-item[1].itemsize, item[0]))


def load_tensors(path: Path, into: Mapping[str, Tensor], world: World = World()) -> None:  # noqa: B008  (it is frozen)
    """Copies a safetensors file into existing tensors, all of them and no others; raises ValueError naming one.

    Only the first process reads; the others hear one tensor after the other from it, and keep their shares.
    """
    with _opened(path, into) if world.is_main else nullcontext() as file:
        for name, tensor in into.items():
            if world.size == 1 and file is not None:
                fill(tensor, file.get_tensor(name))
                continue
            content = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
            if file is not None:
                content.copy_(file.get_tensor(name))
            world.from_main(content)
            fill(tensor, content)


@contextmanager
def _opened(path: Path, into: Mapping[str, Tensor]) -> "Iterator[safe_open]":
    try:
        file = safe_open(path, "pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from None
    with file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        for name in sorted(found.keys() ^ into.keys()):
            raise ValueError(f"{path}: tensor {name!r} is {'not expected' if name in found else 'missing'}")
        for name, tensor in into.items():
            if found[name] != tuple(tensor.shape):
                raise ValueError(f"{path}: {name!r} has shape {found[name]}, not {tuple(tensor.shape)}")
        yield file
