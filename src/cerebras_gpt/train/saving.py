"""Writing the checkpoints of a run: at once, or from a copy by a thread, so that training goes on meanwhile."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from threading import Thread
from types import TracebackType

import torch
from torch import Tensor

from cerebras_gpt import checkpoint
from cerebras_gpt.process import memory_at_hand

SMALL = 2**26
"""Bytes that are written at once: a copy and a thread would gain nothing."""

Files = Mapping[str, Mapping[str, Tensor]]


class Saver:
    """Writes one checkpoint at a time, the same bytes either way.

    In the background if the state is large and there is memory for a copy of it, which is then kept and used again.
    An error of the disk is no error of the call: `failure` tells of it, at once or when the writing has come to it.
    """

    def __init__(self, run: Path, small: int = SMALL, memory: Callable[[], int] = memory_at_hand) -> None:
        self.run, self.small, self.memory = run, small, memory
        self._copies: dict[str, dict[str, Tensor]] = {}
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None or issubclass(kind, Exception):  # who wants to be gone at once is not kept waiting
            self.wait()

    def save(self, step: int, texts: Mapping[str, str], tensors: Files, keep: Collection[int] = ()) -> None:
        """Takes down the state as it is now, after the one before is written."""
        self.wait()
        if not self.in_background(tensors):
            self._write(step, texts, tensors, keep)
            return
        copies = self._copied(tensors)
        self._thread = Thread(target=self._write, args=(step, dict(texts), copies, keep), name="saver", daemon=True)
        self._thread.start()

    def in_background(self, tensors: Files) -> bool:
        """Whether the state is large, and there is memory for a copy twice over."""
        n_bytes = sum(tensor.nbytes for named in tensors.values() for tensor in named.values())
        return n_bytes >= self.small and (bool(self._copies) or self.memory() >= 2 * n_bytes)

    def _copied(self, tensors: Files) -> Files:
        for file, named in tensors.items():
            copies = self._copies.setdefault(file, {})
            for name, tensor in named.items():
                if name not in copies:
                    copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
                copies[name].copy_(tensor.detach())
        return self._copies

    def _write(self, step: int, texts: Mapping[str, str], tensors: Files, keep: Collection[int]) -> None:
        try:
            checkpoint.save(self.run, step, texts, tensors, keep)
        except Exception as error:
            self._error = error

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def failure(self) -> OSError | None:
        """The disk's error in a write that has ended, told once; raises what is no error of the disk."""
        error, self._error = self._error, None
        if error is not None and not isinstance(error, OSError):
            raise error
        return error
