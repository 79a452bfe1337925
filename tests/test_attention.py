"""Attention by blocks equals torch's, forward and backward, at every length around a block."""

import pytest
import torch
from torch.nn import functional as F

from cerebras_gpt.model.attention import BLOCK, causal_attention


@pytest.mark.parametrize("T", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_equals_the_reference(T):
    generator = torch.Generator().manual_seed(T)
    q, k, v, dy = (torch.randn(2, 3, T, 8, generator=generator, dtype=torch.float64) for _ in range(4))
    ours, theirs = ([x.clone().requires_grad_() for x in (q, k, v)] for _ in range(2))
    y = causal_attention(*ours, scale=0.3)
    expected = F.scaled_dot_product_attention(*theirs, is_causal=True, scale=0.3)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    y.backward(dy)
    expected.backward(dy)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-11, atol=1e-11)


def test_gradients_equal_finite_differences():
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(1, 2, 5, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3))
    assert torch.autograd.gradcheck(lambda q, k, v: causal_attention(q, k, v, 0.5), inputs)


def test_the_future_changes_no_bit_of_the_past():
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 2, 2 * BLOCK, 8, generator=generator) for _ in range(3))
    before = causal_attention(q, k, v, 0.3)
    k[:, :, BLOCK + 7 :] = torch.randn(k[:, :, BLOCK + 7 :].shape, generator=generator)
    v[:, :, BLOCK + 7 :] = 1e6
    assert torch.equal(before[:, :, : BLOCK + 7], causal_attention(q, k, v, 0.3)[:, :, : BLOCK + 7])
