import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebras_gpt import checkpoint
from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.likelihood import token_nats, windows
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import mup
from cerebras_gpt.tasks.classification import Classification
from cerebras_gpt.tasks.question_answering import QuestionAnswering
from cerebras_gpt.tasks.segments import answer_from, label_log_probabilities, score_in_segments, segments
from cerebras_gpt.tasks.task import filled, unfilled
from cerebras_gpt.tasks.translation import Translation
from cerebras_gpt.text.tokenizer import train_tokenizer

TASK = Classification(("cold", "warm"))
TOKENIZER = train_tokenizer(["one two three four and more words "] * 4, 280)
SEQ_LEN = 64


@pytest.fixture(scope="module")
def lm():
    """A model that knows nothing."""
    shape = Architecture(d_model=16, n_layers=1, n_heads=2, vocab_size=TOKENIZER.vocab_size, seq_len=SEQ_LEN)
    return LM(initialize(GPT(shape, mup(shape)), torch.Generator().manual_seed(0)).eval(), TOKENIZER)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab \n.", max_size=80), st.integers(1, 12))
def test_segments_are_the_text_in_pieces_that_fit(text, room):
    pieces = segments(text, room, TOKENIZER)
    assert "".join(pieces).strip() == text.strip()
    for piece in pieces:
        assert len(piece.split()) <= 1 or sum(len(TOKENIZER.encode(word)) for word in piece.split()) <= room


def test_neighbours_share_what_they_are_told_to():
    text = " ".join(f"w{n}" for n in range(40))
    pieces = segments(text, 24, TOKENIZER, shared=0.5)
    for before, after in pairwise(pieces):
        assert after.split()[0] in before.split()
        assert after.split()[-1] not in before.split()
    assert list(dict.fromkeys(" ".join(pieces).split())) == text.split()


@pytest.mark.parametrize("template", ["{text}\n\nLabel:", "Q: {text} A: {label}", "{text}{text}"])
def test_a_template_is_undone(template):
    texts = {"text": "a [b]\n(c) {text}", "label": "x"}
    there = {name: text for name, text in texts.items() if f"{{{name}}}" in template}
    assert unfilled(template, filled(template, **texts)) == there
    assert unfilled(template + "!", "something else") == {}


def test_a_text_that_fits_has_the_probabilities_of_the_whole(lm):
    texts = ["one two", "more words and more"]
    whole = TASK.log_probabilities(lm, [TASK.prompt(text) for text in texts])
    torch.testing.assert_close(label_log_probabilities(lm, TASK, texts), whole)


def test_a_long_text_is_the_mean_of_its_segments_whatever_is_beside_it(lm):
    long = "one two three four " * 30
    room = TASK.room(lm) - len(TOKENIZER.encode(TASK.prompt("")))
    pieces = segments(long, room, TOKENIZER)
    weights = torch.tensor([len(TOKENIZER.encode(piece)) for piece in pieces]).double()
    logs = TASK.log_probabilities(lm, [TASK.prompt(piece) for piece in pieces])
    mean = torch.log_softmax((logs * weights[:, None]).sum(0) / weights.sum(), -1)
    assert len(pieces) > 3
    torch.testing.assert_close(label_log_probabilities(lm, TASK, ["one", long])[1], mean)


def test_an_answer_comes_from_the_surest_segment(lm):
    task, document = QuestionAnswering(), "one two three four and more words " * 12
    said = answer_from(lm, task, "Who?", document)
    assert said == answer_from(lm, task, "Who?", document)
    assert answer_from(lm, task, "Who?", "one") == task.answer(lm, "Who?", "one")


def test_tasks_without_long_texts_refuse_segments(lm):
    with pytest.raises(ValueError, match="--segments is for classification"):
        score_in_segments(lm, Translation(), [Example("a\n=>", " b")])


@pytest.mark.parametrize("stride", [1, 3, 8, SEQ_LEN])
def test_any_stride_scores_each_id_once(stride):
    asked = [place for _, first, end in windows(200, 1, SEQ_LEN, stride) for place in range(first, end)]
    assert asked == list(range(1, 200))
    assert all(
        first - start >= SEQ_LEN - stride + 1 for start, first, _ in list(windows(200, 1, SEQ_LEN, stride))[1:-1]
    )


def test_stride_one_gives_each_token_a_whole_window(lm):
    ids = torch.randint(0, 250, (90,), generator=torch.Generator().manual_seed(0)).tolist()
    found = token_nats(lm.model, ids, stride=1)
    for place in (5, 70, 89):
        seen = torch.tensor([ids[max(0, place - SEQ_LEN) : place]])
        expected = -lm.model(seen)[0, -1].detach().double().log_softmax(-1)[ids[place]]
        assert float(found[place - 1]) == pytest.approx(float(expected), rel=1e-4)
    with pytest.raises(ValueError, match="stride is 65"):
        token_nats(lm.model, ids, stride=SEQ_LEN + 1)


def test_the_verb_reads_long_texts_and_strides(call, lm, tmp_path):
    texts = {"model.json": checkpoint.model_json(lm.model), "tokenizer.json": TOKENIZER.to_json()}
    run = checkpoint.save(tmp_path, 0, texts, {"model.safetensors": dict(lm.model.named_parameters())})
    rows = [{"text": "one two " * (40 * n + 1), "label": label} for n, label in enumerate(TASK.labels)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--task", "classification", "--data", tmp_path / "a.jsonl")
    code, told, _ = call("evaluate", run, *arguments, "--segments", "--json")
    assert (code, set(json.loads(told))) == (0, {"accuracy", "macro_f1"})
    rows = [{"question": "Who?", "context": "one two " * 60, "answer": "two"}]
    (tmp_path / "q.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert call("evaluate", run, "--task", "question-answering", "--data", tmp_path / "q.jsonl", "--segments")[0] == 0
    assert call("evaluate", run, "--text", tmp_path / "a.jsonl", "--stride", 16)[0] == 0
    assert call("evaluate", run, *arguments, "--segments", "--few-shot", 1)[0] == 2
