import json
import math
import random

import numpy as np
import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.data.examples import Example
from cerebras_gpt.evaluate import score as room
from cerebras_gpt.evaluate.asking import batches, joined
from cerebras_gpt.evaluate.benchmarks import Question
from cerebras_gpt.evaluate.metrics import exponential, mean, measure
from cerebras_gpt.evaluate.score import Ask, score
from cerebras_gpt.generate.likelihood import Continuation, Likelihood, likelihoods, token_nats
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.text.tokenizer import train_tokenizer

TEXT = "Question: what is wet? Answer: rain. The cat sat on the mat, and sand is dry.\n"


@pytest.fixture(scope="module")
def lm():
    tokenizer = train_tokenizer([TEXT * 20], vocab_size=300)
    shape = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=300, seq_len=24)
    model = GPT(shape, Parametrization(2, 16, base_init_std=0.3))
    return LM(initialize(model, torch.Generator().manual_seed(0)).eval(), tokenizer)


@pytest.fixture
def run(lm, tmp_path):
    texts = {"model.json": checkpoint.model_json(lm.model)}
    lm.tokenizer.save(tmp_path / "tokenizer.json")
    texts["tokenizer.json"] = (tmp_path / "tokenizer.json").read_text("utf-8")
    checkpoint.save(tmp_path / "run", 1, texts, {"model.safetensors": dict(lm.model.named_parameters())})
    return tmp_path / "run"


def data(path, n=40, seed=0):
    """Questions whose right answer is chance."""
    draw = random.Random(seed)
    words = TEXT.split()
    rows = [
        {"question_stem": " ".join(draw.choices(words, k=draw.randint(1, 30))),
         "choices": {"text": [" ".join(draw.choices(words, k=3)) for _ in range(4)], "label": list("ABCD")},
         "answerKey": draw.choice("ABCD")}
        for _ in range(n)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_a_batch_gives_what_each_gives_alone(lm):
    asked = [
        Continuation(tuple(range(k, k + n)), first) for k, n, first in ((1, 9, 3), (5, 20, 19), (0, 60, 57), (2, 70, 5))
    ]
    together = likelihoods(lm.model, asked)
    for one, found in zip(asked, together, strict=True):
        (alone,) = likelihoods(lm.model, [one])
        assert found.logprob == pytest.approx(alone.logprob, abs=1e-4)
    for one, found in zip(asked[:2], together, strict=False):
        assert -found.logprob == pytest.approx(float(token_nats(lm.model, one.ids, one.first).sum()), abs=1e-4)


def test_a_long_context_is_cut_on_the_left(lm):
    ids = tuple(range(60))
    cut = likelihoods(lm.model, [Continuation(ids[-25:], 22)])[0].logprob  # 24 tokens are read, the last is only asked
    assert likelihoods(lm.model, [Continuation(ids, 57)])[0].logprob == pytest.approx(cut, abs=1e-5)


def test_greedy_continuations_are_known(lm):
    ids = [1, 2, 3]
    for _ in range(4):
        ids.append(int(lm.model(torch.tensor([ids]))[0, -1].argmax()))
    wrong = [*ids[:-1], (ids[-1] + 1) % 300]
    assert [one.is_greedy for one in likelihoods(lm.model, [Continuation(tuple(x), 3) for x in (ids, wrong)])] == [
        True,
        False,
    ]


def test_spaces_at_the_end_of_the_context_go_to_the_continuation(lm):
    apart = joined(lm.tokenizer, Question("The cat", " sat"))
    assert joined(lm.tokenizer, Question("The cat ", "sat")) == apart
    assert lm.tokenizer.decode(list(apart.ids)) == "The cat sat" and apart.first == len(lm.tokenizer.encode("The cat"))


def test_without_a_context_a_document_begins(lm):
    found = joined(lm.tokenizer, Question("", " sat"))
    assert found.ids == (lm.tokenizer.end_of_text, *lm.tokenizer.encode(" sat")) and found.first == 1
    with pytest.raises(ValueError, match="no tokens of its own"):
        joined(lm.tokenizer, Question("The", ""))


def test_batches_hold_every_place_once_and_fit():
    lengths = [random.Random(0).randint(1, 50) for _ in range(100)]
    found = list(batches(lengths, 120))
    assert sorted(i for group in found for i in group) == list(range(100))
    assert all(max(lengths[i] for i in group) * len(group) <= 120 for group in found)


def test_metrics_of_answers_made_by_hand():
    examples = [Example("q", "bb", ("a", "bb", "cccc"), 1), Example("q", "a", ("a", "bb", "cccc"), 0)]
    found = [[Likelihood(p, False) for p in (-2.0, -3.0, -8.0)], [Likelihood(p, True) for p in (-1.0, -5.0, -3.0)]]
    told = measure(("acc", "acc_norm", "bits_per_byte"), examples, found)
    assert told["acc"].value == 0.5  # the first says "a"
    assert told["acc_norm"].value == 0.5  # -1.5 of "bb" wins in the first, -0.75 of "cccc" in the second
    assert told["bits_per_byte"].value == pytest.approx((1.5 + 1.0) / 2 / math.log(2))
    assert told["acc"].stderr == pytest.approx(0.5)


def test_a_free_answer_is_right_if_greedy_and_gives_perplexity():
    examples = [Example("she opened the", "door"), Example("he closed the", "book")]
    found = [[Likelihood(-1.0, True)], [Likelihood(-3.0, False)]]
    told = measure(("acc", "perplexity"), examples, found)
    assert told["acc"].value == 0.5 and told["perplexity"].value == pytest.approx(math.exp(2))


def test_standard_errors_are_binomial_and_bootstrapped():
    hits = np.array([1.0] * 30 + [0.0] * 70)
    assert mean(hits).stderr == pytest.approx(math.sqrt(0.3 * 0.7 / 99))
    nats = np.random.default_rng(0).normal(-2, 0.5, 400)
    assert exponential(nats).stderr == pytest.approx(math.exp(2) * 0.5 / 20, rel=0.1)  # the delta method


def test_a_model_that_knows_nothing_is_at_chance(run, tmp_path):
    made = score(run, Ask("openbookqa", data(tmp_path / "o.jsonl", 200)))
    acc = made.metrics["acc"]
    assert made.chance == 0.25 and abs(acc.value - 0.25) < 4 * acc.stderr
    assert made.n_examples == 200 and made.n_cut > 0


def test_an_interrupted_evaluation_goes_on_where_it_was(run, tmp_path, monkeypatch):
    path = data(tmp_path / "o.jsonl")
    whole = score(run, Ask("openbookqa", path))
    lines = whole.answers.read_text("utf-8").splitlines(keepends=True)
    whole.answers.write_text("".join(lines[:20]) + lines[20][:30], "utf-8")  # killed while it wrote a line
    asked = []
    monkeypatch.setattr(room, "likelihoods", lambda model, some: asked.append(len(some)) or likelihoods(model, some))
    again = score(run, Ask("openbookqa", path))
    assert sum(asked) == 4 * (40 - 19)
    assert again.metrics["acc"] == whole.metrics["acc"]
    assert again.metrics["bits_per_byte"].value == pytest.approx(whole.metrics["bits_per_byte"].value, rel=1e-5)
    score(run, Ask("openbookqa", path))
    assert sum(asked) == 4 * (40 - 19)  # nothing is asked twice


def test_other_data_are_asked_anew(run, tmp_path):
    first = score(run, Ask("openbookqa", data(tmp_path / "o.jsonl")))
    assert score(run, Ask("openbookqa", data(tmp_path / "o.jsonl", seed=1))).answers != first.answers
    assert score(run, Ask("openbookqa", tmp_path / "o.jsonl", few_shot=1)).few_shot == 1


def test_the_verb_prints_a_table_and_json_and_refuses_bad_files(call, run, tmp_path):
    path = data(tmp_path / "o.jsonl", 8)
    code, out, _ = call("evaluate", run, "--task", "openbookqa", "--data", path)
    assert code == 0 and out.startswith("openbookqa, 0-shot, 8 examples") and "acc_norm" in out
    with path.open("a") as file:
        file.write("{}\n")
    code, _, told = call("evaluate", run, "--task", "openbookqa", "--data", path)
    assert code == 2 and "1 of 9 records are bad: o.jsonl:9" in told and "--skip-bad" in told
    code, out, _ = call("evaluate", run, "--task", "openbookqa", "--data", path, "--skip-bad", "--json")
    assert code == 0 and json.loads(out)["n_skipped"] == 1
    assert call("evaluate", run)[0] == call("evaluate", run, "--task", "openbookqa")[0] == 2
