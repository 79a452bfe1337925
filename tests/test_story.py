import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.generate.engine import Engine
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.network import Network
from cerebras_gpt.generate.request import Request
from cerebras_gpt.generate.sampling import Sampling, forbid_repeats
from cerebras_gpt.generate.story import tell, tell_words, until
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import mup
from cerebras_gpt.tasks.story import distinct, opinion, repeated, variety
from cerebras_gpt.text.tokenizer import train_tokenizer

SEQ_LEN = 32


@pytest.fixture(scope="module")
def lm():
    """A model that knows nothing."""
    tokenizer = train_tokenizer(["one. two three. four and more. "] * 4, 270)
    shape = Architecture(d_model=16, n_layers=1, n_heads=2, vocab_size=tokenizer.vocab_size, seq_len=SEQ_LEN)
    return LM(initialize(GPT(shape, mup(shape)), torch.Generator().manual_seed(0)).eval(), tokenizer)


@pytest.fixture(scope="module")
def run(lm, tmp_path_factory):
    """The same as a checkpoint."""
    texts = {"model.json": checkpoint.model_json(lm.model), "tokenizer.json": lm.tokenizer.to_json()}
    tensors = {"model.safetensors": dict(lm.model.named_parameters())}
    return checkpoint.save(tmp_path_factory.mktemp("run"), 0, texts, tensors)


def test_what_slides_out_of_sight_is_the_middle(lm):
    """Greedy ids are those of a model that is shown the kept beginning and the last half, and nothing else."""
    network, kept = Network(lm.model), 3
    request = Request(tuple(range(5, 15)), 60, Sampling(temperature=0), overflow="slide", n_kept=kept)
    engine = Engine(network, 1)
    continuation = engine.submit(request)
    while not engine.is_idle:
        engine.step()
    ids, start = list(request.ids), 0
    for _ in range(60):
        seen = ids[: min(kept, start)] + ids[start:]
        ids.append(int(lm.model(torch.tensor([seen]))[0, -1].argmax()))
        if min(kept, start) + len(ids) - start > SEQ_LEN:
            start = len(ids) - SEQ_LEN // 2
    assert continuation.ids == ids
    assert continuation.window[:kept] == ids[:kept]


def test_at_most_a_quarter_is_kept(lm):
    with pytest.raises(ValueError, match="a quarter of the context"):
        Engine(Network(lm.model), 1).submit(Request((1, 2), 5, n_kept=SEQ_LEN // 4 + 1))


def test_within_the_context_a_story_is_what_generate_gives(lm):
    for seed in range(3):
        sampling = Sampling(seed=seed)
        assert "".join(tell(lm, "one", 20, sampling)) == lm.generate("one", 20, sampling)


def test_a_text_goes_on_beyond_the_context_for_as_many_words_as_wanted(lm):
    spaced = Sampling(seed=3, bias=((lm.tokenizer.encode(" ")[0], 9.0),))
    text = "".join(tell_words(lm, "one two", 50, spaced))
    assert len(lm.tokenizer.encode(text)) > 2 * SEQ_LEN
    assert 49 <= len(("x" + text).split()) <= 65  # the first piece may go on with the prompt's last word
    assert text == "".join(tell_words(lm, "one two", 50, spaced))


@pytest.mark.parametrize("words", [1, 2, 3, 5, 8])
def test_a_text_ends_with_a_sentence_or_at_the_most(words):
    pieces = ["A", " b", "b", " c.", "\n", "D", " e", '!"', " F"] + [" g"] * 40
    text = "".join(until(iter(pieces), words, 12))
    n = len(text.split())
    assert words <= n <= 12
    assert text.endswith((".", '!"')) if words <= 5 else n == 12


def test_no_run_of_tokens_occurs_twice(lm):
    ids = lm.tokenizer.encode("".join(tell(lm, "one", 200, Sampling(temperature=0))))
    assert len({tuple(ids[i : i + 3]) for i in range(len(ids) - 2)}) < len(ids) - 2  # greedy text goes in circles
    engine = Engine(Network(lm.model), 1)
    made = engine.submit(Request((1, 2, 3), 150, Sampling(temperature=0, no_repeat=3), overflow="slide"))
    while not engine.is_idle:
        engine.step()
    runs = [tuple(made.ids[i : i + 3]) for i in range(len(made.ids) - 2)]
    assert len(set(runs)) == len(runs)


def test_a_ban_leaves_at_least_one_token():
    logits = torch.zeros(2)
    assert torch.equal(forbid_repeats(logits, [0, 0, 1, 0], 1), logits)
    assert forbid_repeats(logits, [0, 0], 2).tolist() == [-float("inf"), 0]
    assert forbid_repeats(logits, [0, 1, 0], 0) is logits


def test_variety_counts_words_and_runs():
    assert variety("a b c d " * 5) == (20, 4 / 20, 4 / 19, 1 - 4 / 20 + 4 / 20 - 4 / 20)
    assert (distinct([], 1), repeated([])) == (1.0, 0.0)
    assert repeated(["a", "b", "c", "d", "e", "f"]) == 0


def test_an_opinion_is_the_score_of_the_text_alone(lm):
    found = opinion(lm, "one", " two three")
    score = lm.score_continuation("one", " two three")
    assert found.bits_per_byte == pytest.approx(score.nats / 0.6931471805599453 / len(" two three"))
    with pytest.raises(ValueError, match="no text to judge"):
        opinion(lm, "one", "")


def test_the_verb_tells_a_story_and_judges_it(call, run):
    arguments = ("--title", "A tale", "--words", 30, "--no-repeat", 4, "--judge", run)
    code, told, opinion_ = call("generate", run, *arguments)
    assert (code, told.startswith("A tale\n\n")) == (0, True)
    assert "distinct-2" in opinion_
    assert "bits per byte" in opinion_
    assert call("generate", run, "--prompt", "one", "--slide", "--max-tokens", 90)[0] == 0
    assert call("generate", run, "--words", -1)[0] == 2
