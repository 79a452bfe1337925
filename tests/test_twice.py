"""A flipped bit in one of two computations is found and halts the run; a sound machine is never accused."""

import pytest
import torch

from cerebras_gpt.data.batches import PackedBatches
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.distributed import World
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.record import read_metrics
from cerebras_gpt.train import twice
from cerebras_gpt.train.endings import CorruptedError
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.trainer import Trainer
from cerebras_gpt.train.twice import digest, look, twice_hook


def trainer(plan, data, run, dtype="float32"):
    model = initialize(GPT(plan.architecture, plan.parametrization), torch.Generator().manual_seed(plan.seed))
    batches = PackedBatches(Shards.open(data, "train"), plan.architecture.seq_len, plan.batch_size, plan.seed)
    return Trainer(plan, model, batches, run, Execution(dtype, 2), World())


def flip(tensor, chance):
    """Turns one bit over."""
    bits = tensor.view(-1).view(torch.int32)
    at = torch.randint(len(bits), (), generator=chance)
    bits[at] ^= 1 << int(torch.randint(31, (), generator=chance))


def flipping(n_call, chance):
    """Gradients of which those of one call have one bit turned over, anywhere."""
    calls = []

    def computed(model, *rest):
        loss = gradients(model, *rest)
        calls.append(0)
        if len(calls) == n_call:
            parameters = list(model.parameters())
            flip(parameters[int(torch.randint(len(parameters), (), generator=chance))].grad, chance)
        return loss

    return computed


def test_every_flipped_bit_is_found(tiny, data, tmp_path):
    made, chance = trainer(tiny, data, tmp_path), torch.Generator().manual_seed(0)
    for n in range(100):
        made.gradients = flipping(1 + n % 2, chance)
        with pytest.raises(CorruptedError, match="computed twice gave two results"):
            look(made)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert len(rows) == 100 and all(row["kind"] == twice.KIND and len(row["differing"]) == 1 for row in rows)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sound_machine_is_not_accused_and_no_gradient_stays(tiny, data, tmp_path, dtype):
    made = trainer(tiny, data, tmp_path, dtype)
    for _ in range(20):
        look(made)
    assert all(parameter.grad is None for parameter in made.model.parameters())


def test_looking_changes_no_bit_of_the_run(tiny, data, tmp_path, monkeypatch):
    monkeypatch.setattr(twice, "EVERY", 5)
    plain, watched = trainer(tiny, data, tmp_path / "plain"), trainer(tiny, data, tmp_path / "watched")
    watched.hooks = [twice_hook()]
    plain.run()
    watched.run()
    for ours, theirs in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_flip_in_mid_run_halts_it(tiny, data, tmp_path, monkeypatch):
    monkeypatch.setattr(twice, "EVERY", 10)
    made = trainer(tiny, data, tmp_path)
    made.hooks = [twice_hook()]
    made.gradients = flipping(12, torch.Generator().manual_seed(1))  # ten steps, then the second of the two
    with pytest.raises(CorruptedError, match="step 10"):
        made.run()


def test_a_digest_knows_zero_from_minus_zero():
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))
