import pytest
import torch
from torch import Tensor

from cerebras_gpt.generate.engine import Generation, generate_ids
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization

GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=0.8, top_k=30, top_p=0.95, repetition_penalty=1.1, seed=11)
PROMPTS = [[5, 17, 3], [40], [8, 8, 2, 60, 31, 9, 22, 1], [11, 12]]


def random_model(seq_len: int = 256, seed: int = 0, width_multiplier: float = 1.0) -> GPT:
    architecture = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=61, seq_len=seq_len)
    parametrization = Parametrization(
        architecture.n_layers, architecture.d_head, width_multiplier, base_init_std=0.3, embedding_scale=2.0
    )
    return initialize(GPT(architecture, parametrization), torch.Generator().manual_seed(seed))


def continue_ids(
    model: GPT, prompts: list[list[int]], sampling: Sampling, n: int, **options: object
) -> list[list[int]]:
    """The new ids of each prompt."""
    steps = list(generate_ids(model, prompts, sampling, n, **options))
    return [[step[i] for step in steps if step[i] is not None] for i in range(len(prompts))]


@torch.inference_mode()
def greedy_without_cache(model: GPT, ids: list[int], n: int) -> list[int]:
    ids = list(ids)
    for _ in range(n):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[-n:]


@pytest.mark.parametrize("seed", range(3))
def test_200_greedy_tokens_equal_those_without_a_cache(seed):
    model = random_model(seed=seed, width_multiplier=1.0 + seed)
    assert continue_ids(model, [[1, 2, 3]], GREEDY, 200) == [greedy_without_cache(model, [1, 2, 3], 200)]


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
def test_a_batch_of_different_lengths_equals_each_prompt_alone(sampling):
    model = random_model()
    alone = [
        continue_ids(model, [prompt], Sampling(**{**vars(sampling), "seed": sampling.seed + i}), 60)[0]
        for i, prompt in enumerate(PROMPTS)
    ]
    assert continue_ids(model, PROMPTS, sampling, 60) == alone
    assert continue_ids(model, PROMPTS[:2], sampling, 60) == alone[:2]


def test_the_same_seed_gives_the_same_ids_and_another_seed_others():
    model = random_model()
    first = continue_ids(model, PROMPTS, WARM, 20)
    assert continue_ids(model, PROMPTS, WARM, 20) == first
    assert continue_ids(model, PROMPTS, Sampling(seed=99), 20) != first


def test_equal_prompts_in_one_batch_are_continued_differently():
    first, second = continue_ids(random_model(), [[4, 5], [4, 5]], Sampling(), 20)
    assert first != second


def test_a_stop_id_is_the_last_id_of_its_sequence_and_the_others_go_on():
    model = random_model()
    free = continue_ids(model, PROMPTS, WARM, 30)
    stop = free[2][4]
    expected = [ids[: ids.index(stop) + 1] if stop in ids else ids for ids in free]
    generation = Generation(model, PROMPTS, WARM, 30, [stop])
    while not generation.is_finished:
        generation.step()
    new = [row.ids[len(prompt) :] for row, prompt in zip(generation.continuations, PROMPTS, strict=True)]
    assert new == expected
    assert len({len(ids) for ids in new}) > 1
    assert generation.continuations[2].finish == "end"
    assert {row.finish for row in generation.continuations} == {"end", "length"}


def test_a_cancelled_sequence_ends_and_the_others_do_not_notice():
    model = random_model()
    generation = Generation(model, PROMPTS, WARM, 12)
    steps = []
    while not generation.is_finished:
        steps.append(generation.step())
        if len(steps) == 3:
            generation.cancel(1)
    free = continue_ids(model, PROMPTS, WARM, 12)
    assert [step[1] for step in steps] == free[1][:3] + [None] * 9
    assert [step[3] for step in steps] == free[3]
    assert generation.continuations[1].finish == "cancelled"


def test_a_full_context_stops_when_told_to_stop():
    model = random_model(seq_len=16)
    generation = Generation(model, [[1] * 10, [2] * 16], GREEDY, 50, overflow="stop")
    while not generation.is_finished:
        generation.step()
    # The last position of the context still has a successor, so a full prompt gets one token.
    assert [row.n_new for row in generation.continuations] == [7, 1]
    assert [row.finish for row in generation.continuations] == ["context", "context"]


def sliding_without_cache(model: GPT, ids: list[int], n: int) -> list[int]:
    seq_len, ids, start = model.architecture.seq_len, list(ids), 0
    for _ in range(n):
        if len(ids) - start > seq_len:
            start = len(ids) - seq_len // 2
        ids += greedy_without_cache(model, ids[start:], 1)
    return ids[-n:]


def test_a_full_context_slides_to_its_last_half_when_told_to_slide():
    model = random_model(seq_len=16)
    prompts = [[1, 2, 3], [4] * 16, [7, 8, 9, 10, 11, 12, 13]]
    expected = [sliding_without_cache(model, prompt, 50) for prompt in prompts]
    assert continue_ids(model, prompts, GREEDY, 50, overflow="slide") == expected


def test_a_context_of_one_token_can_slide():
    assert len(continue_ids(random_model(seq_len=1), [[3]], WARM, 5, overflow="slide")[0]) == 5


def test_steps_come_one_at_a_time():
    steps = generate_ids(random_model(), PROMPTS, WARM, 5)
    assert [token is not None for token in next(steps)] == [True] * 4
    assert len(list(steps)) == 4


def test_no_prompts_give_no_steps():
    assert list(generate_ids(random_model(), [], GREEDY, 5)) == []


def test_only_the_last_position_gets_logits():
    model, shapes = random_model(), []

    def spy(hidden: Tensor) -> Tensor:
        shapes.append(tuple(hidden.shape))
        return GPT.logits(model, hidden)

    model.logits = spy
    continue_ids(model, PROMPTS, GREEDY, 3)
    assert shapes == [(4, 32)] * 3


def test_a_model_in_double_precision_generates():
    model = random_model().double()
    assert continue_ids(model, PROMPTS[:1], GREEDY, 40) == [greedy_without_cache(model, PROMPTS[0], 40)]


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1], [2] * 17], {}, "a prompt has 17 tokens, the context holds 16; keep at most its last 16"),
        ([[1], []], {}, "a prompt has no tokens"),
        ([[1]], {"max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ([[1]], {"overflow": "slid"}, "unknown overflow 'slid'; did you mean 'slide'?"),
    ],
)
def test_what_cannot_be_generated_is_refused_at_once(prompts, options, message):
    with pytest.raises(ValueError, match=message):
        generate_ids(random_model(seq_len=16), prompts, **{"sampling": GREEDY, "max_tokens": 5, **options})
