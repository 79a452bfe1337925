"""Before a run: whether it fits into the memory and onto the disk at hand, and what would."""

from typing import NamedTuple

from cerebras_gpt.plan.memory import checkpoint_bytes, largest_micro_batch, peak_bytes, training_memory
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.plan.sizes import FAMILY_WIDTHS, family_architecture, size_name

CHECKPOINTS_AT_ONCE = 3
"""On the disk: two that are kept and the one that is being written."""


class Room(NamedTuple):
    """What a run may take."""

    memory: int
    """Bytes of the device that trains."""
    disk: int
    """Bytes where the run folder goes."""


def micro_batch(plan: Plan, memory: int) -> int:
    """The most sequences at a time that fit, in 16 bits, computing activations again if nothing else helps.

    Raises ValueError naming the largest size that fits.
    """
    found = largest_micro_batch(plan.architecture, plan.batch_size, memory) or largest_micro_batch(
        plan.architecture, plan.batch_size, memory, recompute=True
    )
    if not found:
        raise ValueError(f"too little memory: {shortage(plan, memory)}")
    return found


def shortage(plan: Plan, memory: int) -> str:
    """How much a plan lacks, and what would fit."""
    need = peak_bytes(plan.architecture, 1, n_micro_batches=plan.batch_size, recompute=True)
    return (
        f"{plan.name} needs {need / 1e9:.3g} GB to train one sequence at a time, {memory / 1e9:.3g} GB are at hand; "
        f"{fitting(plan, memory)}"
    )


def fitting(plan: Plan, memory: int) -> str:
    """The largest size of the family that fits with the plan's vocabulary and length, in words."""
    ours = plan.architecture
    shapes = [family_architecture(width, ours.vocab_size, ours.seq_len) for width in reversed(FAMILY_WIDTHS)]
    for shape in shapes:
        if largest_micro_batch(shape, plan.batch_size, memory, recompute=True):
            size = f"{size_name(shape.n_parameters)} (width {shape.d_model})"
            return f"the largest size that fits: {size}, plan --tokens {20 * shape.n_parameters:.3g}"
    least = peak_bytes(shapes[-1], 1, recompute=True)
    return f"the smallest size of the family needs {least / 1e9:.2g} GB; free some, or shorten the sequences"


def disk_bytes(plan: Plan) -> int:
    """Bytes that the checkpoints of a run take at most."""
    return CHECKPOINTS_AT_ONCE * checkpoint_bytes(plan.architecture)


def check_disk(plan: Plan, free: int, where: str) -> None:
    """Refuses a plan whose checkpoints the disk has no room for."""
    space = disk_bytes(plan)
    if free < space:
        raise ValueError(
            f"no space: checkpoints of this plan need {space / 1e9:.2g} GB, {free / 1e9:.2g} GB are free at {where}; "
            "free some, or give another --out"
        )


def preflight(plan: Plan, room: Room) -> list[tuple[str, str]]:
    """Memory and disk as rows of label and value, for printing."""
    plain = largest_micro_batch(plan.architecture, plan.batch_size, room.memory)
    most = plain or largest_micro_batch(plan.architecture, plan.batch_size, room.memory, recompute=True)
    parts = training_memory(plan.architecture, max(1, most), recompute=not plain)
    held = ", ".join(f"{name} {size / 1e9:.3g}" for name, size in parts._asdict().items())
    n_parts = -(-plan.batch_size // max(1, most))
    peak = peak_bytes(plan.architecture, max(1, most), n_micro_batches=n_parts, recompute=not plain) / 1e9
    need = f"{peak:.3g} GB at {max(1, most)} x {plan.architecture.seq_len:,} tokens at a time ({held})"
    how = "" if plain else ", with activations computed again"
    fits = f"the most that fit in {room.memory / 1e9:.3g} GB{how}"
    space = f"{disk_bytes(plan) / 1e9:.3g} GB for checkpoints, {room.disk / 1e9:.3g} GB are free"
    return [
        ("peak memory", need),
        ("micro-batch", fits if most else f"too little memory: {shortage(plan, room.memory)}"),
        ("disk", space),
    ]
