"""Who else takes part in a run: one process and many walk the same path."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor
from torch import distributed as torch_distributed
from torch.nn import functional as F

T = TypeVar("T")
Tensors: TypeAlias = list[Tensor]

BUCKET_ELEMENTS = 2**22
"""Elements that are exchanged at a time, so that summing takes little memory of its own."""

PATIENCE = 600.0
"""Seconds that a process waits for another one before it takes it for lost. A save and one's part of an evaluation must
fit in; what torch waits by default is 10 minutes on GPUs and 30 on CPUs."""


def fold_tree(items: Sequence[T], value: Callable[[T], Tensors | None]) -> Tensors | None:
    """The sums of the items' values in the order of a binary tree, (a + b) + (c + d); items without value are left out.

    A branch of the tree has the sum that the whole uses, so whoever computes it, and however many share the work, the
    result is the same to the last bit. Holds at most log2(n) + 1 values at a time.
    """
    if len(items) == 1:
        return value(items[0])
    middle = len(items) // 2
    left, right = fold_tree(items[:middle], value), fold_tree(items[middle:], value)
    if left is None or right is None:
        return right if left is None else left
    torch._foreach_add_(left, right)
    return left


@dataclass(frozen=True)
class World:
    """The processes of a run; a world of size 1 is the same path as 64."""

    rank: int = 0
    size: int = 1
    neighbours: int = 1
    """Processes of the run on this host, this one included; they share its memory."""

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and the screen."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of a global list; all parts together are the list."""
        return items[self.rank :: self.size]

    def block(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part as neighbours, of a list that the size divides."""
        n = len(items) // self.size
        return items[self.rank * n : (self.rank + 1) * n]

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by its sum over all processes."""
        if self.size > 1:
            for tensor in tensors:
                here = tensor.to(self._device)
                torch_distributed.all_reduce(here)
                tensor.copy_(here)

    def sum_as_tree(self, tensors: Sequence[Tensor], present: Sequence[bool]) -> None:
        """Replaces each tensor by its sum over the processes that are present, in the order of `fold_tree`.

        Each process adds up one share of the elements and gives the result to all: the traffic of an all-reduce over a
        ring, but with one order of additions. Those that are not present bring tensors of the same shapes.
        """
        if self.size == 1:
            return
        for bucket in buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            given = F.pad(flat, (0, -len(flat) % self.size))
            received = torch.empty_like(given)
            torch_distributed.all_to_all_single(received, given)
            rows = received.view(self.size, -1)  # (world, elements of one share)
            brought = [[row] if there else None for row, there in zip(rows, present, strict=True)]
            total = fold_tree(brought, _itself)
            assert total is not None
            torch_distributed.all_gather_single(given, total[0])
            sums = given[: len(flat)].split([tensor.numel() for tensor in bucket])
            for tensor, summed in zip(bucket, sums, strict=True):
                tensor.copy_(summed.view_as(tensor))

    def from_main(self, tensor: Tensor) -> None:
        """Replaces a tensor by that of the first process."""
        if self.size > 1:
            torch_distributed.broadcast(tensor, src=0)

    def text_from_main(self, text: str) -> str:
        """The text that the first process gives, whatever the others give."""
        if self.size == 1:
            return text
        content = torch.tensor(list(text.encode("utf-8")), dtype=torch.uint8, device=self._device)
        length = torch.tensor(len(content), device=self._device)
        self.from_main(length)
        content = content if self.is_main else content.new_empty(int(length.item()))
        self.from_main(content)
        return bytes(content.tolist()).decode("utf-8")

    @property
    def _device(self) -> str:
        return "cuda" if torch_distributed.get_backend() == "nccl" else "cpu"

    def any(self, here: bool) -> bool:
        """Whether it is true in at least one process; all of them must ask."""
        if self.size == 1:
            return here
        flag = torch.tensor(float(here), device=self._device)
        self.sum_([flag])
        return flag.item() > 0

    def wait(self) -> None:
        """Goes on when every process has come here."""
        self.any(False)


def _itself(value: Tensors | None) -> Tensors | None:
    return value


def buckets(tensors: Iterable[Tensor]) -> Iterator[Tensors]:
    """The tensors in their order, in groups of about BUCKET_ELEMENTS."""
    bucket: Tensors = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(t.numel() for t in bucket) >= BUCKET_ELEMENTS:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


@contextmanager
def joined(patience: float = PATIENCE) -> Iterator[World]:
    """The world that `torchrun` describes in the environment, or a world of one; each process takes a GPU of its own.

    A process that hears nothing from another one for `patience` seconds ends with an error. At the end the others are
    left in order: threads of gloo that still run when the interpreter ends would abort the process.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if size > 1 and not torch_distributed.is_initialized():
        torch_distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(seconds=patience))
    try:
        yield World(int(os.environ.get("RANK", "0")), size, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        if torch_distributed.is_initialized():
            torch_distributed.destroy_process_group()


def join_alone() -> None:
    """Makes a world of one a process group, which some of torch asks for, both for tensors of a GPU and of the host."""
    from torch._C._distributed_c10d import HashStore

    if not torch_distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        torch_distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process holds a share (a DTensor), put together; all must ask. A plain one as it is."""
    gather = getattr(tensor, "full_tensor", None)  # the class itself costs a second to import
    return tensor if gather is None else gather()


def fill(tensor: Tensor, content: Tensor) -> None:
    """Copies a whole tensor into one, or this process's share of it into its share: rows, as `torch.chunk` cuts."""
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None:
        tensor.data.copy_(content)
        return
    here = tensor.to_local()  # type: ignore[attr-defined]
    shares = torch.chunk(content, mesh.size(), 0)
    if mesh.get_local_rank() < len(shares):
        here.data.copy_(shares[mesh.get_local_rank()])


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
