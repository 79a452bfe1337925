"""The device that computes: the one GPU of this process, or the processor with the memory of its host."""

import os
from importlib.util import find_spec

import torch
from torch import nn
from torch.utils import deterministic

from cerebras_gpt.model.gpt import GPT, Attention
from cerebras_gpt.process import forget_peak_memory, memory_at_hand, peak_memory, processor, resident_memory


def device() -> str:
    """Where to compute: a GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def name() -> str:
    """What its maker calls it."""
    return torch.cuda.get_device_name() if device() == "cuda" else processor()


def memory() -> int:
    """Bytes that training could take here."""
    return int(torch.cuda.mem_get_info()[0]) if device() == "cuda" else memory_at_hand()


def held() -> int:
    """Bytes that are held now: by tensors of a GPU, or by the whole process on a CPU."""
    return torch.cuda.memory_allocated() if device() == "cuda" else resident_memory()


def peak() -> int:
    """The most bytes that were held since `forget_peak`: tensors of a GPU, or the whole process on a CPU."""
    return torch.cuda.max_memory_allocated() if device() == "cuda" else peak_memory()


def forget_peak() -> None:
    """Lets the peak begin anew."""
    give_back()
    if device() == "cuda":
        torch.cuda.reset_peak_memory_stats()
    forget_peak_memory()


def give_back() -> None:
    """Hands freed memory of a GPU to whoever asks next."""
    if device() == "cuda":
        torch.cuda.empty_cache()


def same_bits() -> None:
    """Has a GPU add in the same order every time, so that a run that was killed goes on to the same bits.

    Without it the gradients of attention are summed in whatever order the blocks come (benchmarks/attention_gpu.py).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Filling is for finding errors, and takes passes.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def attend_by_flash(model: GPT) -> None:
    """Lets FlashAttention 4 compute attention in bfloat16, where it is installed and agrees with torch."""
    if find_spec("flash_attn") is None:
        return
    from cerebras_gpt.model.flash import flash_attention, flash_serves

    if flash_serves(model.architecture.d_head):
        for module in model.modules():
            if isinstance(module, Attention):
                module.causal = flash_attention


def fuse(blocks: nn.ModuleList) -> None:
    """Lets torch's compiler join what lies between the products of a block; one compilation serves them all."""
    for block in blocks:
        block.compile(dynamic=False)
