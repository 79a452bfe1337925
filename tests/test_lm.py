from pathlib import Path

import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.text.tokenizer import Tokenizer, train_tokenizer

TEXT = "The cat sat on the mat. Für die Katze 🐈 ist die Matte schön, 猫はマットの上。\n"
GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    # Hardly more than the 256 bytes: random ids give characters split over tokens and bytes that are no text at all.
    return train_tokenizer([TEXT * 20], vocab_size=280)


@pytest.fixture(scope="module")
def lm(tokenizer) -> LM:
    architecture = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=tokenizer.vocab_size, seq_len=64)
    parametrization = Parametrization(architecture.n_layers, architecture.d_head, base_init_std=0.3)
    return LM(initialize(GPT(architecture, parametrization), torch.Generator().manual_seed(0)).eval(), tokenizer)


@pytest.fixture(scope="module")
def parrot(tokenizer) -> LM:
    """A model that has learned the text by heart, so that what it says is valid UTF-8 with characters of 4 bytes."""
    architecture = Architecture(d_model=48, n_layers=2, n_heads=2, vocab_size=tokenizer.vocab_size, seq_len=128)
    model = GPT(architecture, Parametrization(architecture.n_layers, architecture.d_head))
    initialize(model, torch.Generator().manual_seed(0))
    ids = torch.tensor([[tokenizer.end_of_text, *tokenizer.encode(TEXT), tokenizer.end_of_text]])
    assert ids.shape[1] < architecture.seq_len
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(80):
        optimizer.zero_grad()
        seen = ids[:, step % 2 :]  # every other time without the end-of-text before it
        torch.nn.functional.cross_entropy(model(seen[:, :-1])[0], seen[0, 1:]).backward()
        optimizer.step()
    return LM(model.eval(), tokenizer)


def test_an_empty_prompt_starts_from_end_of_text_and_ends_with_it(parrot):
    assert parrot.generate("", sampling=GREEDY) == TEXT


def test_a_prompt_is_continued(parrot):
    assert parrot.generate("The cat sat on the mat.", sampling=GREEDY) == TEXT.removeprefix("The cat sat on the mat.")


def test_no_piece_of_a_stream_holds_a_broken_character(parrot):
    pieces = list(parrot.stream("", sampling=GREEDY))
    assert "".join(pieces) == TEXT
    assert "🐈" in "".join(pieces)
    assert len(pieces) > 20
    assert all(pieces)


@pytest.mark.parametrize("seed", range(8))
def test_the_joined_stream_equals_generate_and_the_decoded_ids(lm, seed):
    sampling, stop = Sampling(seed=seed), ["e", "\ufffd\ufffd\ufffd"]
    text = lm.generate("The cat", 40, sampling)
    assert "".join(lm.stream("The cat", 40, sampling)) == text
    stopped = lm.generate("The cat", 40, sampling, stop)
    assert "".join(lm.stream("The cat", 40, sampling, stop)) == stopped
    assert stopped == min((text.split(s)[0] for s in stop), key=len)


def test_text_ends_before_a_stop_string_that_spans_tokens(parrot):
    assert parrot.generate("", sampling=GREEDY, stop=["e Katze 🐈 i"]) == TEXT.split("e Katze 🐈 i")[0]
    assert parrot.generate("", sampling=GREEDY, stop=["schön", "die", "?"]) == TEXT.split("die")[0]
    assert parrot.generate("", sampling=GREEDY, stop=["not there"]) == TEXT


def test_a_batch_equals_each_prompt_alone(lm):
    prompts = ["The cat", "", "Für die Katze ist", "猫"]
    batch = lm.generate_batch(prompts, 40, Sampling(seed=5), stop=["a"])
    assert batch == [lm.generate(prompt, 40, Sampling(seed=5 + i), stop=["a"]) for i, prompt in enumerate(prompts)]
    assert lm.generate_batch([]) == []


def test_a_long_text_needs_a_sliding_context(lm):
    sampling = Sampling(seed=2)
    stopped = lm.generate("The cat", 150, sampling)
    slid = lm.generate("The cat", 150, sampling, overflow="slide")
    assert slid.startswith(stopped.rstrip("\ufffd"))
    assert len(slid) > len(stopped)


def test_a_prompt_longer_than_the_context_is_refused_before_the_stream_begins(lm):
    with pytest.raises(ValueError, match="tokens, the context holds 64"):
        lm.stream("cat, cat, " * 30)


@torch.inference_mode()
def test_a_text_scores_the_sum_of_its_log_probabilities(lm):
    text = "Katze 🐈 sat"
    ids = [lm.tokenizer.end_of_text, *lm.tokenizer.encode(text)]
    log_probabilities = lm.model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
    score = lm.score(text)
    assert score.nats == pytest.approx(-float(log_probabilities[range(len(ids) - 1), ids[1:]].sum()), rel=1e-6)
    assert (score.n_tokens, score.n_bytes) == (len(ids) - 1, len(text.encode()))


def test_a_text_of_any_length_is_scored_whole(lm):
    text = TEXT * 8
    score = lm.score(text)
    assert score.n_tokens == len(lm.tokenizer.encode(text)) > 3 * 64
    assert score.n_bytes == len(text.encode())
    assert lm.score("") == (0.0, 0, 0)


@torch.inference_mode()
def test_a_continuation_scores_its_own_tokens_after_those_of_the_context(lm):
    context, continuation = "The cat sat", " on the mat."
    n, ids = len(lm.tokenizer.encode(context)), lm.tokenizer.encode(context) + lm.tokenizer.encode(continuation)
    log_probabilities = lm.model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
    score = lm.score_continuation(context, continuation)
    assert score.nats == pytest.approx(-float(log_probabilities[range(n - 1, len(ids) - 1), ids[n:]].sum()), rel=1e-6)
    assert (score.n_tokens, score.n_bytes) == (len(ids) - n, len(continuation))


def test_a_text_scores_as_a_continuation_of_nothing(lm):
    assert lm.score(TEXT) == lm.score_continuation("", TEXT)


def test_the_right_continuation_scores_best(parrot):
    choices = [" on the mat.", " on the cat.", " die Matte"]
    nats = [parrot.score_continuation("The cat sat", choice).nats for choice in choices]
    assert min(nats) == nats[0]


def test_a_long_context_is_cut_on_the_left(lm):
    long, short = lm.score_continuation(TEXT * 9, " cat"), lm.score_continuation(TEXT * 3, " cat")
    assert long.n_tokens == short.n_tokens
    assert long.nats == pytest.approx(short.nats, rel=1e-5)


def test_the_tokenizer_of_another_run_is_refused(lm):
    other = train_tokenizer([TEXT * 20], vocab_size=270)
    with pytest.raises(ValueError, match="the tokenizer has 270 tokens, the model 280"):
        LM(lm.model, other)


@pytest.fixture
def run(lm, tmp_path) -> Path:
    """A run folder with two checkpoints, the second of which is the newest."""
    for step in (1, 2):
        texts = {"model.json": checkpoint.model_json(lm.model), "tokenizer.json": lm.tokenizer.to_json()}
        checkpoint.save(tmp_path, step, texts, {"model.safetensors": dict(lm.model.named_parameters())})
    return tmp_path


def test_a_loaded_run_or_checkpoint_says_what_the_saved_model_said(lm, run):
    expected = lm.generate("The cat", 20), lm.score(TEXT)
    for path in (run, run / "checkpoints" / "step_00000001"):
        loaded = LM.load(path)
        assert (loaded.generate("The cat", 20), loaded.score(TEXT)) == expected


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(lm, run, caplog):
    tokenizer_json = run / "checkpoints" / "step_00000002" / "tokenizer.json"
    tokenizer_json.write_text(tokenizer_json.read_text("utf-8").replace("cat", "dog") + " ", "utf-8")
    assert LM.load(run).generate("The cat", 20) == lm.generate("The cat", 20)
    assert "tokenizer.json is damaged" in caplog.text


def test_a_path_without_a_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        LM.load(tmp_path)
