"""How a step is computed changes its result only by rounding."""

import dataclasses

import pytest
import torch

from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.optim import optimizer, set_learning_rate

WHOLE = Execution("float32", 4)


def trained(plan, execution, steps=3):
    """Loss, first gradients, and the weights after a few steps."""
    model = initialize(GPT(plan.architecture, plan.parametrization), torch.Generator().manual_seed(0))
    adamw, first = optimizer(model, plan), None
    set_learning_rate(adamw, plan.peak_lr)
    for step in range(steps):
        chance = torch.Generator().manual_seed(step)
        ids = torch.randint(plan.architecture.vocab_size, (4, plan.architecture.seq_len + 1), generator=chance)
        loss = gradients(model, Batch(ids[:, :-1], ids[:, 1:]), execution, World())
        first = first or [parameter.grad.clone() for parameter in model.parameters()]
        adamw.step()
        adamw.let_go()
    return loss, first, [parameter.detach() for parameter in model.parameters()]


def distance(ours, theirs):
    """Largest difference of a tensor, relative to its size."""
    return max(((a - b).norm() / b.norm().clamp_min(1e-9)).item() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_computing_activations_again_changes_not_one_bit(tiny, dtype):
    plain = Execution(dtype, 2)
    loss, first, weights = trained(tiny, plain)
    again = trained(tiny, dataclasses.replace(plain, recompute=True))
    assert torch.equal(loss, again[0])
    assert all(map(torch.equal, first, again[1])) and all(map(torch.equal, weights, again[2]))


@pytest.mark.parametrize(
    ("execution", "rounding"),
    [(Execution("float32", 1), 1e-5), (Execution("float32", 3), 1e-5), (Execution("bfloat16", 4), 5e-2)],
)
def test_choices_change_gradients_only_by_rounding(tiny, execution, rounding):
    loss, first, _ = trained(tiny, WHOLE)
    # Not the weights: a key's bias has gradient 0 but for rounding, of which Adam takes the sign.
    after_three_steps, other_first, _ = trained(tiny, execution)
    assert after_three_steps.item() == pytest.approx(loss.item(), rel=rounding)
    assert distance(other_first, first) < rounding


def test_less_is_kept_when_it_is_computed_again(tiny):
    shape = dataclasses.replace(tiny.architecture, n_layers=8)
    model = initialize(GPT(shape, tiny.parametrization), torch.Generator().manual_seed(0))
    ids = torch.zeros(2, shape.seq_len, dtype=torch.int64)

    def kept(recompute):
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.setdefault(t.data_ptr(), t.nbytes) and t, lambda t: t
        ):
            model.hidden(ids, recompute=recompute).sum()
        return sum(sizes.values())

    assert kept(True) < kept(False) / 2
