"""Who else takes part in a run: one process and many walk the same path."""

import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as torch_distributed

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run; a world of size 1 is the same path as 64."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and the screen."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of a global list; all parts together are the list."""
        return items[self.rank :: self.size]

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by its sum over all processes."""
        if self.size > 1:
            for tensor in tensors:
                torch_distributed.all_reduce(tensor)

    def any(self, here: bool) -> bool:
        """Whether it is true in at least one process; all of them must ask."""
        if self.size == 1:
            return here
        device = "cuda" if torch_distributed.get_backend() == "nccl" else "cpu"
        flag = torch.tensor(float(here), device=device)
        self.sum_([flag])
        return flag.item() > 0

    def wait(self) -> None:
        """Goes on when every process has come here."""
        self.any(False)


def join() -> World:
    """The world that `torchrun` describes in the environment, or a world of one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and not torch_distributed.is_initialized():
        torch_distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return World(int(os.environ.get("RANK", "0")), size)


class StopFlag:
    """Set by SIGINT or SIGTERM while it is open; a second signal acts as if it were not there."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        """Whether somebody asked this process to stop."""
        return self._set

    def __enter__(self) -> "StopFlag":
        self._before = {number: signal.signal(number, self._on_signal) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._set = True
        signal.signal(number, self._before[signal.Signals(number)])
