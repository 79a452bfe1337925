"""In which bits a model is used: its matrices rounded once at load, and the network that computes with them."""

import copy
import time
from collections.abc import Callable
from ctypes import CDLL
from typing import Literal, NamedTuple, get_args

import torch

from cerebras_gpt.compiled import compiler
from cerebras_gpt.config import unknown
from cerebras_gpt.generate.kernel import kernel, round_in_place
from cerebras_gpt.generate.kernel_network import KernelNetwork
from cerebras_gpt.generate.network import Network
from cerebras_gpt.generate.weights import HEAD, KINDS, SMALLEST, Kind, rounded
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.process import memory_at_hand

Precision = Literal["auto", "fastest", "float32", "bfloat16", "int8", "int4"]
"""auto: float32, on the kernel where that is faster. fastest: what decodes fastest here, measured. The rest: on it."""

ON_GPU: dict[Precision, Kind] = {
    "auto": "float32",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "fastest": "bfloat16",
}
"""What a GPU is used for where there is one; the kernel that computes with fewer bits is the processor's."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

FASTER_ON = "AVX512"
"""Where the kernel is faster than torch in float32 too, as torch names it (benchmarks/decode.py)."""
TRIED_STEPS = 5


class Prepared(NamedTuple):
    """A model as it is to be used."""

    model: GPT
    """Its matrices as they are after rounding, in float32: what scores are computed from."""
    make_network: Callable[[], Network]
    kind: Kind


@torch.no_grad()
def reduce(model: GPT, kind: Kind, library: CDLL | None = None) -> None:
    """Rounds the matrices of the blocks and the head to these bits, in place: by the kernel, or without one by torch.

    A tied table is the head, so tokens are looked up in the rounded one too; positions, norms and biases stay.
    """
    for name, parameter in model.named_parameters():
        is_head = parameter is model.head_table
        if not is_head and (parameter.dim() != 2 or not name.startswith("blocks.")):
            continue
        bits = HEAD[kind] if is_head else kind
        if library is None or bits not in SMALLEST:
            parameter.copy_(rounded(parameter, bits))
        else:
            round_in_place(library, parameter, bits)


def precision(name: str) -> Precision:
    """The precision of this name."""
    for known in get_args(Precision):
        if known == name:
            return known
    raise ValueError(unknown("weights", name, get_args(Precision)))


def prepared(model: GPT, weights: Precision) -> Prepared:
    """The model for use in these bits; it is rounded in place."""
    weights = precision(weights)
    if torch.cuda.is_available() and weights in ON_GPU:
        return _on_gpu(model, ON_GPU[weights])
    if weights == "auto":
        return Prepared(model, lambda: _exact(model), "float32")
    if weights == "fastest":
        return _fastest(model)
    return _in_kind(model, weights)


def _on_gpu(model: GPT, kind: Kind) -> Prepared:
    """On the GPU in 32 or 16 bits; without Triton as torch computes it there."""
    reduce(model, kind)
    model = model.to("cuda")
    try:
        from cerebras_gpt.generate.gpu_network import GPUNetwork
    except ImportError:
        return Prepared(model, lambda: Network(model), kind)
    return Prepared(model, lambda: GPUNetwork(model, DTYPES[kind]), kind)


def _exact(model: GPT) -> Network:
    """Float32 on the kernel where that is the faster: on processors with long vectors; else as torch computes it."""
    table, n_bytes = model.head_table, 4 * sum(parameter.numel() for parameter in model.parameters())
    is_faster = torch.backends.cpu.get_cpu_capability() == FASTER_ON and table.dtype == torch.float32
    fits = table.device.type == "cpu" and n_bytes < memory_at_hand() / 2  # the kernel has weights of its own
    if not (is_faster and fits and compiler()):
        return Network(model)
    return _network(model, "float32")


def _in_kind(model: GPT, kind: Kind) -> Prepared:
    reduce(model, kind, kernel() if kind in SMALLEST else None)
    return Prepared(model, lambda: _network(model, kind), kind)


def _network(model: GPT, kind: Kind) -> Network:
    """On the kernel, or where there is none as torch computes the rounded weights."""
    library = kernel()
    return Network(model) if library is None else KernelNetwork(model, kind, library)


def _fastest(model: GPT) -> Prepared:
    """What takes the least time for a token of one sequence; float32 as torch computes it where there is no kernel."""
    if kernel() is None:
        return Prepared(model, lambda: Network(model), "float32")
    found = []
    for kind in KINDS:
        tried = _in_kind(copy.deepcopy(model), kind)
        network = tried.make_network()
        found.append((_step_seconds(network), tried.model, network, kind))
    _, model, chosen, kind = min(found, key=lambda one: one[0])
    return Prepared(model, lambda: chosen, kind)


def _step_seconds(network: Network) -> float:
    """Seconds that one token of one sequence takes, at best."""
    cache, best = network.slots(1, 1), float("inf")
    for _ in range(TRIED_STEPS):
        start = time.perf_counter()
        network.logits(network.hidden(network.decode([0], [0], [0]), cache))
        best = min(best, time.perf_counter() - start)
    return best
