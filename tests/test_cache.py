import pytest
import torch
from torch import Tensor

from cerebras_gpt.generate.cache import KVCache
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization

SMALL = Architecture(d_model=32, n_layers=3, n_heads=4, vocab_size=61, seq_len=48)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(params=TOLERANCE, ids=str)
def model(request) -> GPT:
    # A wide initialisation, so that attention and logits are far from uniform and a wrong mask shows.
    parametrization = Parametrization(SMALL.n_layers, SMALL.d_head, base_init_std=0.2)
    return initialize(GPT(SMALL, parametrization), torch.Generator().manual_seed(0)).to(request.param)


def random_ids(*shape: int) -> Tensor:
    return torch.randint(SMALL.vocab_size, shape, generator=torch.Generator().manual_seed(1))


def cache_for(model: GPT, batch_size: int, capacity: int = SMALL.seq_len) -> KVCache:
    return KVCache(SMALL, batch_size, capacity, model.token_embedding.weight.dtype)


def assert_equal(model: GPT, one: Tensor, other: Tensor) -> None:
    tolerance = TOLERANCE[one.dtype]
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@torch.inference_mode()
@pytest.mark.parametrize("pieces", [(20,), (1,) * 20, (7, 1, 1, 11), (1, 19), (10, 10)], ids=str)
def test_cached_logits_equal_full_logits_however_the_ids_are_cut(model, pieces):
    ids, cache = random_ids(3, 20), cache_for(model, 3)
    logits = []
    for piece in ids.split(pieces, dim=1):
        logits.append(model(piece, cache))
        cache.advance([piece.shape[1]] * 3)
    assert_equal(model, torch.cat(logits, 1), model(ids))


@torch.inference_mode()
def test_rows_of_different_lengths_equal_each_alone(model):
    lengths, n_more = [5, 12, 1, 9], 6
    ids, more = random_ids(4, max(lengths)), random_ids(4, n_more)
    cache = cache_for(model, 4)
    prefill = model(ids, cache)  # what lies right of a row's length is filling
    cache.advance(lengths)
    steps = []
    for t in range(n_more):
        steps.append(model(more[:, t : t + 1], cache))
        cache.advance([1] * 4)
    for row, length in enumerate(lengths):
        alone = model(torch.cat([ids[row : row + 1, :length], more[row : row + 1]], 1))[0]
        assert_equal(model, prefill[row, :length], alone[:length])
        assert_equal(model, torch.cat(steps, 1)[row], alone[length:])


@torch.inference_mode()
def test_several_tokens_after_rows_of_different_lengths_equal_each_alone(model):
    lengths = [3, 8]
    ids, more = random_ids(2, 8), random_ids(2, 5)
    cache = cache_for(model, 2)
    model(ids, cache)
    cache.advance(lengths)
    logits = model(more, cache)
    for row, length in enumerate(lengths):
        alone = model(torch.cat([ids[row : row + 1, :length], more[row : row + 1]], 1))[0]
        assert_equal(model, logits[row], alone[length:])


@torch.inference_mode()
def test_kept_rows_go_on_as_before(model):
    ids, cache = random_ids(3, 6), cache_for(model, 3)
    model(ids[:, :5], cache)
    cache.advance([5, 5, 5])
    cache.keep([2, 0])
    assert_equal(model, model(ids[[2, 0], 5:], cache)[:, 0], model(ids)[[2, 0], -1])


@torch.inference_mode()
def test_a_pass_that_is_not_counted_leaves_no_trace(model):
    ids, cache = random_ids(1, 9), cache_for(model, 1)
    model(ids[:, :4], cache)
    cache.advance([4])
    model(random_ids(1, 5).flip(1), cache)
    assert_equal(model, model(ids[:, 4:], cache), model(ids)[:, 4:])


@torch.inference_mode()
def test_a_full_cache_takes_no_more(model):
    cache = cache_for(model, 1, capacity=4)
    model(random_ids(1, 4), cache)
    cache.advance([4])
    with pytest.raises(AssertionError):
        model(random_ids(1, 1), cache)


def test_capacity_is_at_most_the_context():
    with pytest.raises(AssertionError):
        KVCache(SMALL, 1, SMALL.seq_len + 1)


def test_memory_is_allocated_once(model):
    cache = cache_for(model, 2)
    address = cache.kv.data_ptr()
    with torch.inference_mode():
        for _ in range(5):
            model(random_ids(2, 1), cache)
            cache.advance([1, 1])
    assert cache.kv.data_ptr() == address
    assert cache.kv.shape == (3, 2, 2, 4, 48, 8)
