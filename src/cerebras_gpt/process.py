"""What a process needs before it computes on a CPU: memory that stays, threads that keep a core each.

Neither changes any result. Both are asked for by whoever starts the work, never at import.
"""

import ctypes
import gc
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = 2**31 - 1


def keep_memory() -> None:
    """Tells glibc to keep freed memory.

    It hands every large activation back to the kernel otherwise, and each step pays for fresh pages: keeping them
    alone makes a plain training loop of the 1.7M shape 1.4 to 1.5 times as fast (benchmarks/training_step.py).
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, NEVER)


def give_back_memory() -> None:
    """Hands freed memory to the system at once, whatever `keep_memory` says: after work that does not recur."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)


@contextmanager
def uncollected() -> Iterator[None]:
    """Leaves Python's garbage alone inside: importing and loading make half a million objects that all stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def bind_threads() -> None:
    """Gives each OpenMP thread a core of its own; only counts before torch is imported.

    Otherwise all threads of some processes share one core for their whole life, and take turns on it. A process
    that was told its number of threads is one of several (torchrun tells each): bound, all would share the first core.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ.setdefault("OMP_PROC_BIND", "close")
        os.environ.setdefault("OMP_PLACES", "cores")


def threads_are_bound() -> bool:
    """Whether this process gave its threads cores of their own, so that its children inherit but one."""
    return "OMP_PROC_BIND" in os.environ


def free_cores() -> None:
    """Lets this process run on every core that the system gives it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def unbound_children() -> Iterator[None]:
    """Processes that are started inside compute on one thread each, on whatever core is free."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES")}
    _set_environment({"OMP_NUM_THREADS": "1", "OMP_PROC_BIND": None, "OMP_PLACES": None})
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def processor() -> str:
    """What the system calls the processor."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text("utf-8", errors="replace").splitlines() if file.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def processor_flags() -> frozenset[str]:
    """What the processor can do, in the words of Linux; nothing where the system does not tell."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text("utf-8", errors="replace").splitlines() if file.exists() else []
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


DEVICES = Path("/dev")


@cache
def has_gpu() -> bool:
    """Whether this process may see an NVIDIA GPU and torch is built for one, told without importing it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and any(DEVICES.glob("nvidia[0-9]*")) and torch_is_for_gpus()


def torch_is_for_gpus() -> bool:
    """Whether the installed torch brings its part for CUDA."""
    found = find_spec("torch")
    folders = () if found is None else found.submodule_search_locations or ()
    return any(any((Path(folder) / "lib").glob("*torch_cuda*")) for folder in folders)


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again."""
    places = {"win32": ("LOCALAPPDATA", "AppData/Local"), "darwin": ("XDG_CACHE_HOME", "Library/Caches")}
    variable, usual = places.get(sys.platform, ("XDG_CACHE_HOME", ".cache"))
    return Path(os.environ.get(variable) or Path.home() / usual) / "cerebras-gpt"


UNKNOWN = sys.maxsize
"""Bytes where the system does not tell: nothing is refused for lack of them."""

STATUS, MEMORY = Path("/proc/self/status"), Path("/proc/meminfo")
LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""Of a container: what it may use, and what it uses."""


def memory_at_hand() -> int:
    """Bytes that this process could still take, in a container what that leaves; UNKNOWN where nothing tells.

    The processes that `torchrun` starts on one host share its memory equally.
    """
    free = [_kilobytes(MEMORY, "MemAvailable") or UNKNOWN]
    for limit, used in LIMITS:
        if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
            free.append(int(limit.read_text()) - int(used.read_text()))
    return min(free) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def resident_memory() -> int:
    """Bytes that this process holds now; 0 where nothing tells."""
    return _kilobytes(STATUS, "VmRSS")


def peak_memory() -> int:
    """The most bytes that this process held since `forget_peak_memory`, or ever; 0 where nothing tells."""
    return _kilobytes(STATUS, "VmHWM")


def forget_peak_memory() -> None:
    """Lets the peak begin anew, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _kilobytes(file: Path, key: str) -> int:
    """The bytes of a line `key: 123 kB`; 0 if there is none."""
    lines = file.read_text().splitlines() if file.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)
