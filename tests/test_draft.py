import copy
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from cerebras_gpt.generate.draft import Guess, n_paying, settle
from cerebras_gpt.generate.engine import Engine
from cerebras_gpt.generate.kernel import kernel
from cerebras_gpt.generate.kernel_network import KernelNetwork
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.network import Network
from cerebras_gpt.generate.request import Request
from cerebras_gpt.generate.sampling import Sampling, chances, draw
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.text.tokenizer import train_tokenizer

V, GREEDY = 24, Sampling(temperature=0)
TEXT = "The cat sat on the mat. Für die Katze 🐈 ist die Matte schön.\n"


def gpt(seed: int, n_layers: int = 2, vocab_size: int = V, init_std: float = 0.15) -> GPT:
    architecture = Architecture(d_model=32, n_layers=n_layers, n_heads=2, vocab_size=vocab_size, seq_len=96)
    parametrization = Parametrization(n_layers, architecture.d_head, base_init_std=init_std)
    return initialize(GPT(architecture, parametrization), torch.Generator().manual_seed(seed)).eval()


def perturbed(model: GPT, share: float) -> GPT:
    """A model that mostly agrees."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            parameter.add_(share * parameter.std() * noise)
    return other


MODEL = gpt(0)
DRAFTS = {"itself": MODEL, "alike": perturbed(MODEL, 0.2), "unlike": gpt(5, n_layers=1)}


@pytest.fixture(scope="module", params=["torch", "kernel"])
def make(request):
    """Networks as torch computes them, and on the kernel."""
    if request.param == "torch":
        return Network
    if (library := kernel()) is None:
        pytest.skip("no C++ compiler")
    return lambda model: KernelNetwork(model, "float32", library)


def drafting(network: Network, n_slots: int, draft: Network, cost: float = 0.1) -> Engine:
    """An engine with a draft that is taken for cheap, though it is as large as the model."""
    engine = Engine(network, n_slots, draft=draft)
    engine.drafter.cost = cost
    return engine


def run(engine: Engine, requests) -> list:
    made = [engine.submit(request) for request in requests]
    while not engine.is_idle:
        engine.step()
    return made


REQUESTS = [
    Request((1, 2, 3), 30, GREEDY, n_top=2),
    Request(tuple(n * 5 % V for n in range(70)), 60, GREEDY, n_top=2),
    Request((4,), 120, GREEDY, n_top=2, overflow="slide", n_kept=1),
    Request((4, 4), 30, GREEDY, n_top=2, stop_ids=frozenset(range(8))),
    Request((7,), 40, Sampling(0, repetition_penalty=1.5, presence_penalty=0.3, no_repeat=3), n_top=2),
    Request((7,), 1, GREEDY, n_top=2),
]


@pytest.mark.parametrize("name", DRAFTS)
def test_greedy_is_bit_for_bit_what_the_model_says_alone(make, name):
    plain = run(Engine(make(MODEL), 4), REQUESTS)
    drafted = run(drafting(make(MODEL), 4, make(DRAFTS[name])), REQUESTS)
    assert [c.choices for c in drafted] == [c.choices for c in plain]
    assert [c.finish for c in drafted] == [c.finish for c in plain]
    assert sum(c.n_settled for c in drafted) > 5


def test_a_draft_that_agrees_saves_passes():
    network, passes = Network(MODEL), []
    engine = drafting(network, 1, Network(MODEL))
    made = engine.submit(Request((1, 2, 3), 64, GREEDY))
    while not engine.is_idle:
        engine.step()
        passes.append(made.n_new)
    assert made.n_right == made.n_settled > 0
    assert len(passes) < 64 * 0.6


@pytest.mark.parametrize("name", DRAFTS)
def test_a_request_among_others_gets_the_same_bits_as_alone(make, name):
    requests = [Request((n + 1, n % 5), 20, Sampling(0.9, top_k=8, top_p=0.9, seed=n), n_top=1) for n in range(9)]
    network, draft = make(MODEL), make(DRAFTS[name])
    together = run(drafting(network, 5, draft), requests)
    for request, continuation in zip(requests, together, strict=True):
        (alone,) = run(drafting(network, 5, draft), [request])
        assert alone.choices == continuation.choices


def test_settled_guesses_have_the_distribution_of_the_model():
    generator = torch.Generator().manual_seed(0)
    found = torch.tensor([0.5, 0.2, 0.2, 0.1, 0.0, 0.0], dtype=torch.float64)
    for other in ([0.1, 0.5, 0.1, 0.0, 0.3, 0.0], [0, 0, 0, 0, 0, 1], [0.5, 0.2, 0.2, 0.1, 0, 0]):
        guessed = torch.tensor(other, dtype=torch.float64)
        counts = Counter()
        for _ in range(6000):
            token = int(draw(guessed[None], [generator]))
            counts[settle(found, Guess(token, guessed), generator)] += 1
        assert set(counts) <= {0, 1, 2, 3}
        assert chisquare([counts[n] for n in range(4)], (6000 * found[:4]).tolist()).pvalue > 1e-3


@pytest.mark.parametrize("name", DRAFTS)
def test_texts_with_a_draft_have_the_distribution_of_the_model(name):
    """Every text of three tokens, its probability computed by hand, against how often it was made."""
    sampling, n = Sampling(1.3, top_k=3, top_p=0.95, repetition_penalty=1.2), 600
    engine = drafting(Network(MODEL), 16, Network(DRAFTS[name]))
    made = run(engine, [Request((1, 2), 3, sampling, index) for index in range(n)])
    counts = Counter(tuple(c.ids[2:]) for c in made)
    expected = {(): 1.0}
    for _ in range(3):
        expected = {(*text, token): p * q for text, p in expected.items() for token, q in following(text, sampling)}
    assert set(counts) <= set(expected) and len(expected) <= 27
    counted = [(counts[text], n * p) for text, p in expected.items() if n * p >= 5]
    rare = [(counts[text], n * p) for text, p in expected.items() if n * p < 5]
    observed, wanted = zip(*counted, *([tuple(map(sum, zip(*rare, strict=True)))] if rare else []), strict=True)
    assert chisquare(observed, wanted).pvalue > 1e-3


def following(text: tuple[int, ...], sampling: Sampling) -> list[tuple[int, float]]:
    """Tokens that may come after the prompt and this text, with their probabilities, from the plain model."""
    with torch.inference_mode():
        logits = MODEL(torch.tensor([[1, 2, *text]]))[0, -1]
    found = chances(logits, (1, 2), text, sampling)
    return [(token, p) for token, p in enumerate(found.tolist()) if p > 0]


def test_a_draft_whose_scores_are_not_finite_says_nothing():
    broken = copy.deepcopy(DRAFTS["unlike"])
    with torch.no_grad():
        broken.token_embedding.weight[3] = float("nan")
    plain = run(Engine(Network(MODEL), 2), REQUESTS)
    drafted = run(drafting(Network(MODEL), 2, Network(broken)), REQUESTS)
    assert [c.choices for c in drafted] == [c.choices for c in plain]


def test_a_draft_that_is_never_right_is_soon_not_asked():
    opposite = copy.deepcopy(MODEL)
    with torch.no_grad():
        opposite.norm.weight.neg_()
        opposite.norm.bias.neg_()
    (made,) = run(drafting(Network(MODEL), 1, Network(opposite)), [Request((1, 2), 60, GREEDY)])
    assert made.n_settled < 20


def test_guesses_pay_when_they_are_right_and_cheap():
    passes = [1 + n / 10 for n in range(8)]
    assert n_paying(0.0, 0.1, passes) == 0 and n_paying(0.99, 0.01, passes) == 7
    amounts = [n_paying(right / 20, 0.2, passes) for right in range(20)]
    assert amounts == sorted(amounts)


@pytest.fixture(scope="module")
def lms():
    tokenizer = train_tokenizer([TEXT * 20], vocab_size=280)
    large, small = gpt(0, 8, 280, 0.3), gpt(3, 1, 280, 0.3)
    return LM(large, tokenizer), LM(large, tokenizer, draft=LM(small, tokenizer))


@pytest.mark.parametrize("stop", [(), ("a",), ("e", "\ufffd\ufffd")])
def test_text_streams_and_stops_as_without_a_draft(lms, stop):
    plain, drafted = lms
    for prompt in ("The cat", "Für", ""):
        expected = plain.generate(prompt, 40, GREEDY, stop)
        assert drafted.generate(prompt, 40, GREEDY, stop) == expected
        assert "".join(drafted.stream(prompt, 40, GREEDY, stop)) == expected
    prompts = ["The", "Katze 🐈", "mat"]
    assert drafted.generate_batch(prompts, 30, GREEDY, stop) == plain.generate_batch(prompts, 30, GREEDY, stop)


def test_the_same_seed_gives_the_same_text(lms):
    texts = {lms[1].generate("The cat", 40, Sampling(0.8, seed=seed)) for seed in (1, 1, 2)}
    assert len(texts) == 2


def test_a_draft_with_another_tokenizer_is_refused(lms):
    other = train_tokenizer([TEXT.upper() * 20], vocab_size=280)
    with pytest.raises(ValueError, match="the draft has another tokenizer"):
        LM(lms[0].model, lms[0].tokenizer, draft=LM(gpt(3, 1, 280), other))
