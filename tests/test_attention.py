"""Attention by blocks equals torch's, forward and backward, at every length around a block."""

import pytest
import torch
from torch.nn import functional as F

from cerebras_gpt.model.architecture import BLOCK
from cerebras_gpt.model.attention import causal_attention


@pytest.mark.parametrize("T", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_equals_the_reference(T):
    generator = torch.Generator().manual_seed(T)
    qkv = torch.randn(3, 2, 3, T, 8, generator=generator, dtype=torch.float64)
    d_y = torch.randn(2, 3, T, 8, generator=generator, dtype=torch.float64)
    ours, theirs = qkv.clone().requires_grad_(), qkv.clone().requires_grad_()
    y = causal_attention(ours, scale=0.3)
    expected = F.scaled_dot_product_attention(*theirs.unbind(0), is_causal=True, scale=0.3)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    y.backward(d_y)
    expected.backward(d_y)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-11)


def test_gradients_equal_finite_differences():
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(3, 1, 2, 5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: causal_attention(x, 0.5), (qkv,))


def test_the_future_changes_no_bit_of_the_past():
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(3, 1, 2, 2 * BLOCK, 8, generator=generator)
    before = causal_attention(qkv, 0.3)
    _, k, v = qkv.unbind(0)
    k[:, :, BLOCK + 7 :] = torch.randn(k[:, :, BLOCK + 7 :].shape, generator=generator)
    v[:, :, BLOCK + 7 :] = 1e6
    assert torch.equal(before[:, :, : BLOCK + 7], causal_attention(qkv, 0.3)[:, :, : BLOCK + 7])
