"""A made-up language is a pure function of seed and step, and there is something to learn in it."""

import numpy as np
import torch

from cerebras_gpt.data.markov import RULE, MarkovBatches


def test_a_batch_is_a_pure_function_of_seed_and_step():
    one, two = (MarkovBatches(32, 12, 4, seed=3) for _ in range(2))
    assert torch.equal(one[7].ids, two[7].ids)
    assert not torch.equal(one[7].ids, one[8].ids)
    assert not torch.equal(one[7].ids, MarkovBatches(32, 12, 4, seed=4)[7].ids)


def test_targets_are_the_next_tokens_and_rows_are_rows():
    batches = MarkovBatches(32, 12, 4, seed=0)
    batch = batches[0]
    assert batch.ids.shape == batch.targets.shape == (4, 12)
    assert torch.equal(batch.ids[:, 1:], batch.targets[:, :-1])
    assert torch.equal(batches.rows(0, [2]).ids, batch.ids[2:3])


def test_successors_follow_as_often_as_the_rule_says():
    batches = MarkovBatches(512, 200, 20, seed=0)
    batch = batches[0]
    follows = (batches.successors[batch.ids.numpy()] == batch.targets.numpy()[..., None]).any(-1).mean()
    assert RULE - 0.02 < follows < RULE + 0.25  # by chance too
    assert np.bincount(batch.ids.flatten().numpy(), minlength=512)[0] > 200
