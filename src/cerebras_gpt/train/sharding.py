"""How the processes of a run divide it: the batch only, or also weights, gradients and optimizer (FSDP2)."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from cerebras_gpt import config
from cerebras_gpt.distributed import World, fill, join_alone
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, begin, initialize, roles
from cerebras_gpt.plan.flops import matmul_flops_per_token
from cerebras_gpt.plan.memory import (
    FLOAT32,
    HEAP,
    LIBRARIES,
    head_bytes,
    largest_micro_batch,
    peak_bytes,
    training_memory,
)
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.plan.preflight import micro_batch
from cerebras_gpt.process import memory_at_hand
from cerebras_gpt.train import calibrate
from cerebras_gpt.train.calibrate import Calibration
from cerebras_gpt.train.device import device, memory
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.speed import Stopwatch, measure_peak


def new_model(plan: Plan, execution: Execution) -> GPT:
    """The model of a plan at its start, whole or in shares: the same weights to the last bit."""
    generator = torch.Generator().manual_seed(plan.seed)
    if execution.is_sharded:
        return sharded_model(plan, execution, generator)
    return initialize(GPT(plan.architecture, plan.parametrization), generator)


def sharded_model(plan: Plan, execution: Execution, generator: torch.Generator) -> GPT:
    """The model in shares, a block at a time gathered while it computes; never whole on any process.

    Every process draws each tensor whole and keeps its rows (Zhao et al. 2023, PyTorch FSDP; `fully_shard`), in the
    memory of the host if they are offloaded.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard, register_fsdp_forward_method

    if execution.shards == 1:
        join_alone()
    pinned = torch.cuda.is_available()
    policy = CPUOffloadPolicy(pin_memory=pinned) if execution.offload else OffloadPolicy()
    mesh = init_device_mesh(execution.device, (execution.shards,))
    with torch.device("meta"):
        model = GPT(plan.architecture, plan.parametrization)
    for module in (*model.blocks, model):
        held = fully_shard(module, mesh=mesh, offload_policy=policy)
        held.set_gradient_divide_factor(1.0)  # the loss is already that of the whole batch
        held.set_force_sum_reduction_for_comms(True)  # gloo has no other
    register_fsdp_forward_method(model, "hidden")
    model.to_empty(device="cpu" if execution.offload else execution.device)
    for entry in roles(model):
        content = torch.empty(entry.parameter.shape)
        with torch.no_grad():
            begin(content, entry, plan.parametrization, generator)
        fill(entry.parameter, content)
    return model


def sharded_peak_bytes(architecture: Architecture, micro_batch_size: int, shards: int, compute_bytes: int = 2) -> int:
    """The largest resident memory to expect of each process of a sharded run.

    Its share of the state, and `gathered_bytes`.
    """
    memory = training_memory(architecture, micro_batch_size, compute_bytes)
    share = (memory.weights + memory.gradients + memory.optimizer) // shards
    return share + gathered_bytes(architecture, micro_batch_size, compute_bytes)


def gathered_bytes(
    architecture: Architecture, micro_batch_size: int, compute_bytes: int = 2, recompute: bool = False
) -> int:
    """What a process holds beside its share of the state.

    The tables (gathered for the whole step) and two blocks (one computes, one arrives) whole with their gradients, and
    the activations of its micro-batch.
    """
    memory = training_memory(architecture, micro_batch_size, compute_bytes, recompute)
    table = architecture.vocab_size * architecture.d_model * FLOAT32
    block = (4 * architecture.d_model**2 + 2 * architecture.d_model * architecture.d_ffn) * FLOAT32
    gathered = 2 * 2 * table + 2 * 2 * block
    head = head_bytes(architecture, micro_batch_size, compute_bytes)
    return LIBRARIES + int(HEAP * (gathered + memory.activations + head))


def sharded_execution(plan: Plan, memory: int, world: World, device: str) -> Execution | None:
    """How to compute if the model fits this world in shares only; None if every process can hold it whole.

    Raises ValueError when it does not fit either way, naming what would.
    """
    shape = plan.architecture
    if largest_micro_batch(shape, plan.batch_size, memory):
        return None
    if world.size == 1:
        return offloaded(plan, memory, device)
    most = -(-plan.batch_size // world.size)
    fitting = [n for n in range(1, most + 1) if sharded_peak_bytes(shape, n, world.size) <= memory]
    if not fitting:
        need = sharded_peak_bytes(shape, 1, world.size)
        raise ValueError(
            f"too little memory: {plan.name} in {world.size} shares needs {need / 1e9:.3g} GB a process, "
            f"{memory / 1e9:.3g} GB are at hand; start more processes on more hosts, or plan a smaller size"
        )
    return Execution("bfloat16", fitting[-1], device, shards=world.size)


def offloaded(plan: Plan, memory: int, device: str) -> Execution | None:
    """How a GPU trains what its memory cannot hold even with activations computed again, if the host's can.

    Raises ValueError when neither can, naming what would fit.
    """
    shape, on_host = plan.architecture, 4 * FLOAT32 * plan.architecture.n_parameters + LIBRARIES
    recomputed = largest_micro_batch(shape, plan.batch_size, memory, recompute=True)
    if device == "cpu" or recomputed or on_host > memory_at_hand():
        micro_batch(plan, memory)
        return None
    for recompute in (False, True):
        fitting = [n for n in range(1, plan.batch_size + 1) if gathered_bytes(shape, n, 2, recompute) <= memory]
        if fitting:
            rows = min(fitting[-1], max(1, calibrate.PARTS[device][0] // shape.seq_len))
            return Execution("bfloat16", rows, device, offload=True, recompute=recompute)
    micro_batch(plan, memory)
    return None


def memory_of(world: World) -> int:
    """Bytes that each process may take: on a CPU all those of a host share its memory."""
    return memory() // (1 if device() == "cuda" else world.neighbours)


def check_memory(plan: Plan, world: World) -> None:
    """Refuses a plan that these processes cannot hold, not even in shares."""
    sharded_execution(plan, memory_of(world), world, device())


def agreed(plan: Plan, run: Path, world: World) -> Calibration:
    """How all processes compute: what the run began with, or what the first process finds and keeps now."""
    text = "{}"
    if world.is_main:
        begun = (run / calibrate.FILE).exists()
        found = calibrate.calibrated(plan, run, Stopwatch(1.0)) if begun else begin_with(plan, run, world)
        text = json.dumps(config.to_mapping(found))
    found = config.from_mapping(Calibration, json.loads(world.text_from_main(text)))
    shards = world.size if found.execution.shards > 1 else 1
    return replace(found, execution=replace(found.execution, shards=shards))


def begin_with(plan: Plan, run: Path, world: World) -> Calibration:
    """Chooses how a run of this world computes, and keeps it in its folder."""
    at_hand = memory_of(world)
    execution = sharded_execution(plan, at_hand, world, device())
    if execution is not None:  # no process can measure alone: time is guessed from half the speed of a product
        peak = measure_peak(execution)
        speed = world.size * peak / 2 / matmul_flops_per_token(plan.architecture)
        found = Calibration(execution, speed, peak, plan.tokens / speed)
    else:
        alone = calibrate.calibrated(plan, run, Stopwatch(1.0))
        found = replace(
            alone,
            execution=divided(alone.execution, plan, at_hand, world),
            tokens_per_second=alone.tokens_per_second * world.size,
            predicted_seconds=alone.predicted_seconds / world.size,
        )
    calibrate.keep(found, run)
    return found


def divided(execution: Execution, plan: Plan, memory: int, world: World) -> Execution:
    """The same execution with work for every process, and with as many parts as the memory lets it hold sums of."""
    micro = min(execution.micro_batch_size, -(-plan.batch_size // world.size))
    held = max(1, execution.parts // world.size).bit_length() - 1
    need = peak_bytes(plan.architecture, micro) + held * plan.architecture.n_parameters * FLOAT32
    return replace(execution, micro_batch_size=micro, parts=execution.parts if need <= memory else world.size)
