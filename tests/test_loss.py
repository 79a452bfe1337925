"""The chunked loss equals torch's cross-entropy, value and gradients, without ever holding all logits."""

import math

import pytest
import torch
from torch.nn import functional as F

from cerebras_gpt.model import loss
from cerebras_gpt.model.loss import IGNORED, are_likeliest, summed_loss, token_losses


def problem(dtype, n=70, d=12, vocab_size=50):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, d, generator=generator, dtype=dtype).requires_grad_()
    table = (3 * torch.randn(vocab_size, d, generator=generator, dtype=dtype)).requires_grad_()
    targets = torch.randint(vocab_size, (n,), generator=generator)
    targets[::7] = IGNORED
    return hidden, table, targets


@pytest.mark.parametrize("chunk", [50, 64 * 16, 2**22])
def test_loss_and_gradients_equal_the_reference(chunk, monkeypatch):
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", {"cpu": chunk})
    monkeypatch.setattr(loss, "CACHED_ELEMENTS", {"cpu": chunk // 2})
    hidden, table, targets = problem(torch.float64)
    expected = F.cross_entropy(hidden @ table.mT, targets, reduction="sum", ignore_index=IGNORED)
    d_hidden, d_table = torch.autograd.grad(expected, (hidden, table))
    found = summed_loss(hidden, table, targets)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip(torch.autograd.grad(found, (hidden, table)), (d_hidden, d_table), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_token_losses_sum_to_the_loss_and_are_zero_where_ignored():
    hidden, table, targets = problem(torch.float64)
    losses = token_losses(hidden, table, targets)
    assert losses.sum().item() == pytest.approx(summed_loss(hidden, table, targets).item(), rel=1e-12)
    assert (losses[targets == IGNORED] == 0).all()


def test_nothing_to_learn_is_no_loss_and_no_gradient():
    hidden, table, targets = problem(torch.float32)
    found = summed_loss(hidden, table, torch.full_like(targets, IGNORED))
    gradients = torch.autograd.grad(found, (hidden, table))
    assert found.item() == 0
    assert all((gradient == 0).all() for gradient in gradients)
    assert (token_losses(hidden, table, torch.full_like(targets, IGNORED)) == 0).all()


@pytest.mark.parametrize("vocab_size", [1, 63, 64, 65])
def test_padding_the_vocabulary_changes_nothing(vocab_size):
    hidden, table, targets = problem(torch.float32, vocab_size=vocab_size)
    expected = F.cross_entropy(hidden @ table.mT, targets, reduction="sum", ignore_index=IGNORED)
    assert summed_loss(hidden, table, targets).item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)


def test_far_apart_logits_do_not_overflow():
    table = torch.tensor([[1.0], [-1.0]])
    found = summed_loss(torch.tensor([[300.0]]), table, torch.tensor([1]))
    assert found.item() == pytest.approx(600.0)


def test_bfloat16_is_close_and_its_loss_is_float32():
    hidden, table, targets = problem(torch.float32)
    exact = summed_loss(hidden, table, targets)
    rough = summed_loss(hidden.bfloat16(), table, targets)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=1e-2)
    assert math.isfinite(rough.item())


def test_the_likeliest_are_those_of_the_whole_logits():
    generator = torch.Generator().manual_seed(0)
    hidden, table = torch.randn(3, 5, 8, generator=generator), torch.randn(11, 8, generator=generator)
    best = (hidden @ table.T).argmax(-1)
    targets = best.clone()
    targets[0], targets[1, :2] = (best[0] + 1) % 11, IGNORED
    found = are_likeliest(hidden, table, targets)
    assert torch.equal(found, targets == best)
    assert not are_likeliest(hidden, table, torch.full_like(targets, IGNORED)).any()
