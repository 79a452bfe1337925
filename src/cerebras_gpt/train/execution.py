"""How a step is computed on this machine: nothing here changes its result beyond rounding."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.loss import IGNORED, summed_loss

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Execution:
    """The choices that only the machine cares about."""

    dtype: str = "float32"
    """Of the residual stream and the products; weights, gradients and optimizer stay float32."""
    micro_batch_size: int = 8
    """Sequences computed at a time; the gradient is that of the whole batch."""
    device: str = "cpu"
    recompute: bool = False
    """Whether the backward pass computes each block again instead of keeping what it needs: less memory, a third more
    work, the same bits."""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch knows it."""
        return DTYPES[self.dtype]


def gradients(model: GPT, batch: Batch, execution: Execution, world: World) -> Tensor:
    """Adds the gradient of the global batch's mean loss to the parameters; gives that loss in nats per token.

    The mean is over all targets of the global batch, so accumulation and many processes change only rounding.
    """
    targets = (batch.targets != IGNORED).sum().to(torch.float32)
    world.sum_([targets])
    total = torch.zeros((), dtype=torch.float32, device=batch.ids.device)
    for i in range(0, len(batch.ids), execution.micro_batch_size):
        rows = slice(i, i + execution.micro_batch_size)
        hidden = model.hidden(batch.ids[rows], dtype=execution.torch_dtype, recompute=execution.recompute)  # (b, T, C)
        loss = summed_loss(hidden, model.head_table, batch.targets[rows]) / targets
        loss.backward()
        total += loss.detach()
    world.sum_([total, *(p.grad for p in model.parameters() if p.grad is not None)])
    return total
