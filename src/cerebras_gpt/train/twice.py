"""A sentinel against silent corruption: now and then one micro-batch is computed twice, and every bit compared."""

import torch
from torch import Tensor

from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.train.endings import CorruptedError
from cerebras_gpt.train.trainer import Hook, Trainer

EVERY = 500
"""Steps from one look to the next: at one micro-batch a step, 0.4 % of the work."""

KIND = "corrupted"
"""Of the row in the record."""

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def digest(tensor: Tensor) -> Tensor:
    """A number that any flipped bit changes: (...) -> ()."""
    return tensor.view(BITS[tensor.element_size()]).sum(dtype=torch.int64)


def digests(trainer: Trainer, batch: Batch) -> dict[str, int]:
    """Of the loss and every gradient of a batch, which are then thrown away."""
    loss = trainer.gradients(trainer.model, batch, trainer.execution, World())
    found = {"loss": digest(loss)}
    found |= {name: digest(p.grad) for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad(set_to_none=True)
    return {name: int(value) for name, value in found.items()}


def micro_batch(trainer: Trainer) -> Batch:
    """The first of this process in the next batch, or the first of all where it has none."""
    execution = trainer.execution
    mine = execution.rows(trainer.plan.batch_size, trainer.world) or range(trainer.plan.batch_size)
    batch = trainer.batches.rows(trainer.step, mine[: execution.micro_batch_size])
    return Batch(*(tensor.to(execution.device) for tensor in batch))


def look(trainer: Trainer) -> None:
    """Halts all processes where one computes two results from the same numbers."""
    batch = micro_batch(trainer)
    first, second = digests(trainer, batch), digests(trainer, batch)
    differing = [name for name in first if first[name] != second.get(name)]
    if not trainer.world.any(bool(differing)):
        return
    if trainer.world.is_main:
        trainer.metrics.write(KIND, step=trainer.step, differing=differing)
    raise CorruptedError(
        f"step {trainer.step}: a micro-batch computed twice gave two results "
        f"({', '.join(differing[:3]) or 'in another process'}); test this machine's memory and processor, "
        "and go on from the newest checkpoint on another"
    )


def twice_hook() -> Hook:
    """Looks every so many steps; a model in shares is left out, as its gradients are nowhere whole."""

    def run(trainer: Trainer) -> None:
        if trainer.step % EVERY == 0 and not trainer.execution.is_sharded:  # the last step comes whenever it comes
            look(trainer)

    return Hook(EVERY, run)
