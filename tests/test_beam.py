import itertools

import pytest
import torch

from cerebras_gpt.generate.beam import Beam, beam_search
from cerebras_gpt.generate.choices import choice_nats
from cerebras_gpt.generate.engine import Generation
from cerebras_gpt.generate.likelihood import token_nats
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import mup

END = 6


@pytest.fixture(scope="module")
def model():
    """A network over seven ids, sharp enough to have preferences."""
    shape = Architecture(d_model=16, n_layers=2, n_heads=2, vocab_size=7, seq_len=12)
    made = initialize(GPT(shape, mup(shape)), torch.Generator().manual_seed(3)).eval()
    with torch.no_grad():
        made.norm.weight.mul_(4)
    return made


def nats(model, prompt, ids):
    return float(token_nats(model, [*prompt, *ids], first=len(prompt)).sum())


@pytest.mark.parametrize("prompt", [[1, 2], [3], [5, 0, 4, 4]])
def test_a_beam_of_one_is_greedy(model, prompt):
    generation = Generation(model, [prompt], Sampling(temperature=0), 6, [END])
    while not generation.is_finished:
        generation.step()
    greedy = [token for token in generation.continuations[0].ids[len(prompt) :] if token != END]
    assert beam_search(model, prompt, 6, END, Beam(1)) == greedy


@pytest.mark.parametrize("prompt", [[1, 2], [3], [5, 0, 4, 4]])
def test_a_beam_as_wide_as_all_texts_finds_the_likeliest(model, prompt):
    texts = [[*ids, END] for n in range(3) for ids in itertools.product(range(6), repeat=n)]
    beam = Beam(width=50, length_penalty=1.0)
    best = max(texts, key=lambda ids: beam.score(-nats(model, prompt, ids), len(ids)))
    assert beam_search(model, prompt, 3, END, beam) == best[:-1]


def test_a_length_penalty_favours_longer_texts():
    assert Beam(length_penalty=1).score(-4, 8) > Beam(length_penalty=1).score(-3, 2)
    assert Beam(length_penalty=0).score(-4, 8) == -4


@pytest.mark.parametrize("settings", [{"width": 0}, {"length_penalty": -1}])
def test_an_impossible_beam_is_refused(settings):
    with pytest.raises(ValueError, match="must be"):
        Beam(**settings)


def test_choices_are_as_likely_as_when_scored_alone(model):
    prompts, choices = [[1], [2, 3, 4], [5, 5]], [[1, END], [2, 3, END], [4]]
    together = choice_nats(model, prompts, choices)
    for row, prompt in zip(together.tolist(), prompts, strict=True):
        assert row == pytest.approx([nats(model, prompt, choice) for choice in choices], rel=1e-5, abs=1e-5)


def test_choices_of_one_id_need_no_second_pass(model):
    assert choice_nats(model, [[1]], [[n] for n in range(7)]).neg().exp().sum() == pytest.approx(1)
