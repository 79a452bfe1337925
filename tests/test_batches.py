"""Training batches are a pure function of seed and step; held-out windows score every token once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebras_gpt.data.batches import IGNORED, HeldOutWindows, PackedBatches
from cerebras_gpt.data.documents import Document
from cerebras_gpt.data.order import epoch_key, permuted
from cerebras_gpt.data.shards import Shards, pack
from cerebras_gpt.text.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(["words"], 257)
SEEDS = st.integers(0, 2**64)


class Counting(Shards):
    """A split whose tokens are 0, 1, 2, ..., so that a batch shows where it comes from."""

    def __init__(self, n_tokens):
        self.n_tokens, self.split = n_tokens, "train"
        self._starts, self._arrays = [0, n_tokens], [np.arange(n_tokens)]
        self.tokenizer = TOKENIZER


@given(n=st.integers(1, 300), seed=SEEDS, epoch=st.integers(0, 10))
def test_the_order_is_a_permutation(n, seed, epoch):
    assert sorted(permuted(np.arange(n), n, epoch_key(seed, epoch).rounds).tolist()) == list(range(n))


@given(n=st.integers(2**20, 2**40), seed=SEEDS)
def test_the_order_of_a_large_corpus_is_one_to_one(n, seed):
    sent = permuted(np.arange(n - 500, n), n, epoch_key(seed, 0).rounds)
    assert len(set(sent.tolist())) == 500 and sent.min() >= 0 and sent.max() < n


def test_every_position_gets_every_sample_equally_often():
    n, n_epochs = 10, 4000
    orders = np.stack([permuted(np.arange(n), n, epoch_key(0, epoch).rounds) for epoch in range(n_epochs)])
    shares = np.stack([(orders == sample).mean(0) for sample in range(n)])
    assert abs(shares - 1 / n).max() < 5 * (0.1 * 0.9 / n_epochs) ** 0.5


def test_neighbours_are_not_kept_together():
    order = permuted(np.arange(10_000), 10_000, epoch_key(0, 0).rounds)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05


@given(n_tokens=st.integers(5, 400), seq_len=st.integers(1, 20), batch_size=st.integers(1, 9), seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_each_epoch_covers_each_window_exactly_once(n_tokens, seq_len, batch_size, seed):
    if n_tokens <= seq_len:
        return
    batches = PackedBatches(Counting(n_tokens), seq_len, batch_size, seed)
    n = batches.n_samples
    steps = -(-3 * n // batch_size)
    ids = torch.cat([batches[step].ids for step in range(steps)])
    for epoch in range(3):
        starts = sorted(ids[epoch * n : (epoch + 1) * n, 0].tolist())
        assert starts == list(range(starts[0], starts[0] + n * seq_len, seq_len))
        assert 0 <= starts[0] < seq_len
    assert n_tokens - n * seq_len <= max(2 * seq_len - 1, seq_len + 1)


@given(step=st.integers(0, 10**9), seed=SEEDS, n_ranks=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_ranks_share_one_global_batch(step, seed, n_ranks):
    batches = PackedBatches(Counting(1000), 7, 12, seed)
    whole = batches[step]
    for rank in range(n_ranks):
        rows = range(rank, 12, n_ranks)
        part = batches.rows(step, rows)
        assert torch.equal(part.ids, whole.ids[list(rows)]) and torch.equal(part.targets, whole.targets[list(rows)])
        assert part.ids.shape == (len(rows), 7)


def test_a_batch_does_not_depend_on_history():
    batches = PackedBatches(Counting(1000), 7, 12, 3)
    forward = [batches[step].ids for step in range(20)]
    backward = [PackedBatches(Counting(1000), 7, 12, 3)[step].ids for step in reversed(range(20))][::-1]
    assert torch.equal(torch.stack(forward), torch.stack(backward))


def test_targets_are_the_next_tokens():
    batch = PackedBatches(Counting(1000), 7, 12, 3)[5]
    assert torch.equal(batch.targets, batch.ids + 1)
    assert batch.ids.dtype == batch.targets.dtype == torch.int64
    assert batch.ids.shape == batch.targets.shape == (12, 7)


def test_seeds_and_epochs_have_orders_and_cuts_of_their_own():
    orders = [PackedBatches(Counting(10_000), 10, 900, seed)[0].ids[:, 0] for seed in (0, 1)]
    assert not torch.equal(*orders)
    batches = PackedBatches(Counting(10_000), 10, 999, 0)
    assert len({int(batches[epoch].ids.min()) for epoch in range(20)}) > 4


def test_a_text_shorter_than_one_window_is_refused():
    with pytest.raises(
        ValueError, match=r"^the train split has 8 tokens; one window needs seq_len \+ 1 = 9; give more"
    ):
        PackedBatches(Counting(8), 8, 1, 0)
    batch = PackedBatches(Counting(9), 8, 3, 0)[7]
    assert batch.ids.tolist() == [list(range(8))] * 3


@given(
    n_tokens=st.integers(2, 100),
    seq_len=st.integers(1, 20),
    stride=st.integers(1, 20),
    batch_size=st.integers(1, 7),
    every=st.integers(1, 9),
)
@settings(max_examples=150, deadline=None)
def test_held_out_windows_score_each_token_exactly_once(n_tokens, seq_len, stride, batch_size, every):
    stride = min(stride, seq_len)
    windows = HeldOutWindows(Counting(n_tokens), seq_len, stride, batch_size, every)
    batches = list(windows)
    ids, targets = (torch.cat([batch[field] for batch in batches]) for field in (0, 1))
    scored = targets != IGNORED
    # Window 0 predicts the first seq_len tokens, window w > 0 the stride after those; every so-manyth is there.
    window_of = {token: max(0, -(-(token - seq_len) // stride)) for token in range(1, n_tokens)}
    assert targets[scored].tolist() == [token for token, window in window_of.items() if window % every == 0]
    assert torch.equal(ids[scored] + 1, targets[scored])
    assert windows.n_targets == scored.sum() and len(ids) == windows.n_windows and len(batches) == len(windows)
    assert all(len(batch.ids) == batch_size for batch in batches[:-1]) and scored.any(1).all()


def test_later_targets_have_at_least_the_context_that_the_stride_leaves():
    windows = HeldOutWindows(Counting(100), 16, 4, 8)
    for batch in windows:
        positions = torch.arange(16).expand_as(batch.ids)[batch.targets != IGNORED]
        later = batch.targets[batch.targets != IGNORED] > 16
        assert (positions[later] >= 12).all()


def test_a_stride_outside_the_window_is_refused():
    for stride in (0, 9):
        with pytest.raises(ValueError, match=f"stride must be from 1 to seq_len = 8, not {stride}"):
            HeldOutWindows(Counting(100), 8, stride, 1)
    with pytest.raises(ValueError, match="1 held-out tokens leave nothing to predict"):
        HeldOutWindows(Counting(1), 8, 8, 1)


def test_bytes_are_those_of_the_covered_text(tmp_path):
    pack([Document("a", "naïve words"), Document("b", "more")], TOKENIZER, tmp_path / "pack", 0)
    shards = Shards.open(tmp_path / "pack", "train")
    assert HeldOutWindows(shards, 4, 4, 2).n_bytes == shards.n_bytes == len("naïve wordsmore".encode())
    # Every other window of 4: tokens 1 to 4 and 9 to 12, of one byte each but the end of text after "words".
    assert HeldOutWindows(shards, 4, 4, 2, every=2).n_bytes == 7
