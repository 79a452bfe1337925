import random

import pytest
import torch
from torch import Tensor

from cerebras_gpt.generate import engine as engine_module
from cerebras_gpt.generate.engine import Engine, Generation, generate_ids
from cerebras_gpt.generate.network import Network, Rows
from cerebras_gpt.generate.request import Continuation, Request
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


def test_only_the_newest_ids_get_logits():
    model, engine = random_model(), Engine(Network(random_model()))
    shapes = []

    def spy(hidden: Tensor) -> Tensor:
        shapes.append(tuple(hidden.shape))
        return model.logits(hidden)

    engine.network.logits = spy
    for prompt in PROMPTS:
        engine.submit(Request(tuple(prompt), 3, GREEDY))
    while not engine.is_idle:
        engine.step()
    assert shapes == [(engine.network.decode_rows[0], 32)] * 3


def finished(engine: Engine, requests: list[Request], between: int = 0) -> list[Continuation]:
    """All requests, `between` steps apart."""
    made = []
    for request in requests:
        made.append(engine.submit(request))
        for _ in range(between):
            engine.step()
    while not engine.is_idle:
        engine.step()
    return made


def random_requests(n: int, seed: int = 3) -> list[Request]:
    """Prompts of 1 to 200 ids, many of which begin alike, some sampled and some not."""
    choose = random.Random(seed)
    beginnings = [tuple(choose.choices(range(61), k=choose.choice([64, 70, 130]))) for _ in range(3)]
    requests = []
    for _ in range(n):
        ids = choose.choice([(), *beginnings]) + tuple(choose.choices(range(61), k=choose.randint(1, 40)))
        sampling = GREEDY if choose.random() < 0.5 else Sampling(0.9, 20, 0.9, seed=choose.randrange(99))
        requests.append(Request(ids, choose.randint(1, 12), sampling, n_top=3))
    return requests


@pytest.mark.parametrize("between", [0, 1, 3])
def test_a_request_among_others_gets_the_same_bits_as_alone(between):
    network = Network(random_model())
    requests = random_requests(120)
    alone = [finished(Engine(network, 1), [request])[0] for request in requests]
    engine = Engine(network, 16)
    together = finished(engine, requests, between)
    assert sum(c.n_reused for c in together) > 1000  # beginnings were shared, and that changed nothing either
    assert [c.choices for c in together] == [c.choices for c in alone]


def test_equal_prompts_that_come_together_are_read_once():
    engine = Engine(Network(random_model()), 4)
    same = [engine.submit(Request((*range(60), *range(10)), 3, GREEDY)) for _ in range(4)]
    while not engine.is_idle:
        engine.step()
    assert [c.n_reused for c in same] == [0, 64, 64, 64]
    assert len({tuple(c.ids) for c in same}) == 1


def test_a_step_reads_more_while_many_wait_and_a_long_prompt_faster_while_nobody_is_answered(monkeypatch):
    engine = Engine(Network(random_model()), 64)
    engine.network.piece = 192
    read = []
    monkeypatch.setattr(engine.network, "read", lambda rows, cache: read.append(len(rows.slots)))
    monkeypatch.setattr(engine.network, "prefill", lambda ids, slot, start: Rows(Tensor(), Tensor(), Tensor(ids), []))
    engine.submit(Request((1,) * 200, 30, GREEDY))
    for _ in range(2):
        engine.step()
    assert read == [192, 7]
    for n_more, expected in ((1, [63]), (2, [63] * 2), (5, [63] * 2), (9, [63] * 3)):
        read.clear()
        for n in range(n_more):
            engine.submit(Request((n_more, n) * 32, 30, GREEDY))
        engine.step()
        assert read == expected


def test_first_come_first_served_and_none_waits_for_a_long_prompt():
    engine = Engine(Network(random_model()), 4)
    quick = engine.submit(Request((1,), 30, GREEDY))
    engine.step()
    long = [engine.submit(Request(tuple([5] * 200), 5, GREEDY)) for _ in range(9)]
    before, order = quick.n_new, []
    for _ in range(5):
        engine.step()
    assert quick.n_new == before + 5
    while not engine.is_idle:
        order += [c for c in engine.step() if c.finish]
    assert [long.index(c) for c in order if c in long] == list(range(9))


def test_a_cancelled_request_leaves_its_slot_at_once_and_the_next_one_takes_it():
    engine = Engine(Network(random_model()), 1)
    first, second = engine.submit(Request((1, 2), 99, GREEDY)), engine.submit(Request((3,), 2, GREEDY))
    engine.step()
    engine.cancel(first)
    engine.step()
    assert (first.finish, first.n_new, second.n_new) == ("cancelled", 1, 1)


@pytest.mark.parametrize("error", [RuntimeError("key 123"), MemoryError(), KeyError("key 123"), ValueError("a NaN")])
@pytest.mark.parametrize("spoilt", ["next_token", "choice"])
def test_a_token_that_cannot_be_chosen_fails_its_sequence_alone(error, spoilt, monkeypatch):
    network = Network(random_model())
    requests = [Request((1, 2, n), 6, Sampling(seed=n), n_top=n) for n in (1, 2, 3)]
    alone = [finished(Engine(network, 1), [request])[0].choices for request in requests]
    plain = getattr(engine_module, spoilt)

    def fails(*given):
        if requests[1].sampling in given or given[-1] == 2:  # its settings, or how many tokens it wants told
            raise error
        return plain(*given)

    monkeypatch.setattr(engine_module, spoilt, fails)
    engine = Engine(network, 4)
    made = finished(engine, requests)
    assert [c.finish for c in made] == ["length", "failed", "length"]
    assert [made[0].choices, made[2].choices] == [alone[0], alone[2]]
    assert ("a NaN" in made[1].problem) == isinstance(error, ValueError) and "key 123" not in made[1].problem
    monkeypatch.undo()
    assert finished(engine, requests[1:2])[0].choices == alone[1]


def test_log_probabilities_of_prompt_and_answer_are_the_models():
    model = random_model()
    request = Request((4, 5, 6, *range(60), 7), 5, GREEDY, n_top=2, scores_prompt=True)
    made = finished(Engine(Network(model)), [request])[0]
    with torch.inference_mode():
        expected = model(torch.tensor([made.ids]))[0].double().log_softmax(-1)
    told = [*made.prompt_choices, *made.choices]
    assert [t.id for t in told] == made.ids
    assert told[0].log_probability is None
    for n, token in enumerate(told[1:]):
        assert token.log_probability == pytest.approx(float(expected[n, token.id]), abs=1e-4)
        assert token.top[0][1] == pytest.approx(float(expected[n].max()), abs=1e-4)


def test_bias_and_penalties_act_on_the_answer():
    model = random_model()
    banned = continue_ids(model, [[1, 2]], GREEDY, 1)[0][0]
    assert continue_ids(model, [[1, 2]], Sampling(0, bias=((banned, -100.0),)), 1)[0][0] != banned
    assert continue_ids(model, [[1, 2]], Sampling(0, bias=((17, 1000.0),)), 9)[0] == [17] * 9
    once = continue_ids(model, [[1, 2]], Sampling(0, presence_penalty=1e4), 20)[0]
    assert len(set(once)) == 20


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
