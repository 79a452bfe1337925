"""What the compiled kernels of training compute equals torch in float64, up to the rounding of bfloat16."""

import logging

import pytest
import torch
from torch.nn import functional as F

from cerebras_gpt.model.attention import causal_attention
from cerebras_gpt.model.fused import layer_norm
from cerebras_gpt.model.kernel import kernel, serves
from cerebras_gpt.model.loss import summed_loss

ROUNDING = 4e-3
"""Of a bfloat16, relative."""

needs_kernels = pytest.mark.skipif(kernel() is None, reason="no C++ compiler, or a processor without bfloat16 products")


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rounded(x):
    """The same numbers as bfloat16 and, to the last bit, as float64."""
    narrow = x.bfloat16()
    return narrow.requires_grad_(), narrow.detach().double().requires_grad_()


def assert_close(ours, theirs, roundings=1):
    off = (ours.double() - theirs).norm() / theirs.norm().clamp_min(1e-12)
    assert off < roundings * ROUNDING, f"{off:.2g} off"


@needs_kernels
@pytest.mark.parametrize("width", [2, 15, 16, 17, 100, 768])
@pytest.mark.parametrize("n", [1, 3, 200])
def test_layer_norm_and_its_gradients(n, width):
    x, wide = rounded(3 + random(n, width))
    d_y, wide_d_y = rounded(random(n, width, seed=1))
    ours = [(1 + random(width, seed=2)).float().requires_grad_(), random(width, seed=3).float().requires_grad_()]
    theirs = [tensor.detach().double().requires_grad_() for tensor in ours]
    y, expected = layer_norm(x, *ours, 1e-5), F.layer_norm(wide, (width,), *theirs, 1e-5)
    y.backward(d_y)
    expected.backward(wide_d_y)
    assert_close(y, expected)
    for mine, right in zip(ours, theirs, strict=True):
        assert mine.grad.dtype == torch.float32
        assert_close(mine.grad, right.grad)
    if width > 2:  # of two numbers hardly anything is left
        assert_close(x.grad, wide.grad)


@needs_kernels
@pytest.mark.parametrize("vocab_size", [1, 15, 64, 65, 1000])
def test_loss_and_its_gradients(vocab_size):
    x, wide = rounded(random(70, 32))
    table = random(vocab_size, 32, seed=1).bfloat16()
    ours, theirs = table.float().requires_grad_(), table.double().requires_grad_()
    targets = torch.randint(vocab_size, (70,), generator=torch.Generator().manual_seed(2))
    found, expected = summed_loss(x, ours, targets), F.cross_entropy(wide @ theirs.mT, targets, reduction="sum")
    found.backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=ROUNDING, abs=1e-6)
    if vocab_size > 1:  # else nothing is to learn
        assert_close(x.grad, wide.grad, roundings=3)
        assert_close(ours.grad, theirs.grad, roundings=3)


@needs_kernels
@pytest.mark.parametrize("T", [1, 2, 15, 17, 63, 64, 65, 200])
@pytest.mark.parametrize("width", [16, 48, 80])
def test_attention_and_its_gradient(T, width):
    qkv, wide = rounded(random(3, 2, 3, T, width))
    d_y, wide_d_y = rounded(random(2, 3, T, width, seed=1))
    y = causal_attention(qkv, 0.2)
    expected = F.scaled_dot_product_attention(*wide.unbind(0), is_causal=True, scale=0.2)
    y.backward(d_y)
    expected.backward(wide_d_y)
    assert_close(y, expected)
    assert_close(qkv.grad, wide.grad)


@needs_kernels
def test_the_future_changes_no_bit_of_the_past():
    qkv = random(3, 1, 2, 150, 16).bfloat16()
    before = causal_attention(qkv, 0.3)
    qkv[:, :, :, 71:] = 1e6
    assert torch.equal(before[:, :, :71], causal_attention(qkv, 0.3)[:, :, :71])


@needs_kernels
def test_the_number_of_threads_changes_no_bit():
    def computed(n_threads):
        torch.set_num_threads(n_threads)
        x = random(300, 48).bfloat16().requires_grad_()
        weight = random(48, seed=1).float().requires_grad_()
        y = layer_norm(x, weight, torch.zeros(48), 1e-5)
        y = causal_attention(y.view(1, 100, 3, 3, 16).permute(2, 0, 3, 1, 4), 0.3)
        y.square().sum().backward()
        return y, x.grad, weight.grad

    before = torch.get_num_threads()
    try:
        assert all(map(torch.equal, computed(1), computed(3)))
    finally:
        torch.set_num_threads(before)


@needs_kernels
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none(broken):
    x = random(40, 48).bfloat16()
    x[20, 5] = broken
    assert not layer_norm(x, torch.ones(48), torch.zeros(48), 1e-5)[20].isfinite().any()
    assert not causal_attention(x.view(1, 40, 3, 1, 16).permute(2, 0, 3, 1, 4), 0.3).isfinite().all()
    assert not summed_loss(x, random(30, 48).float(), torch.zeros(40, dtype=torch.int64)).isfinite()


def test_without_a_compiler_torch_computes(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    kernel.cache_clear()
    try:
        with caplog.at_level(logging.INFO, "cerebras_gpt"):
            assert not serves(torch.zeros(1, dtype=torch.bfloat16))
        assert "no C++ compiler" in caplog.text
        x = random(5, 16).bfloat16()
        assert torch.equal(layer_norm(x, torch.ones(16), torch.zeros(16), 1e-5), F.layer_norm(x, (16,)))
    finally:
        kernel.cache_clear()


def test_only_bfloat16_goes_to_the_kernels():
    assert not serves(torch.zeros(1)) and not serves(torch.zeros(1, dtype=torch.float64))
