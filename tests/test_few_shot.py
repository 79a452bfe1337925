import json

import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import mup
from cerebras_gpt.report.confusion import confusion_figure, write_confusion
from cerebras_gpt.tasks.classification import CONTENT_FREE, Classification
from cerebras_gpt.tasks.few_shot import BREAK, draw, score_by_likelihood, shown_ids
from cerebras_gpt.tasks.metrics import confusion
from cerebras_gpt.tasks.table import read_task_data
from cerebras_gpt.text.tokenizer import train_tokenizer

TASK = Classification(("cold", "warm"))


@pytest.fixture(scope="module")
def lm():
    """A model that knows nothing."""
    shape = Architecture(d_model=16, n_layers=1, n_heads=2, vocab_size=257, seq_len=96)
    model = initialize(GPT(shape, mup(shape)), torch.Generator().manual_seed(0)).eval()
    return LM(model, train_tokenizer(["plain words"], 257))


@pytest.fixture(scope="module")
def run(lm, tmp_path_factory):
    """The same as a checkpoint."""
    texts = {"model.json": checkpoint.model_json(lm.model), "tokenizer.json": lm.tokenizer.to_json()}
    tensors = {"model.safetensors": dict(lm.model.named_parameters())}
    return checkpoint.save(tmp_path_factory.mktemp("run"), 0, texts, tensors)


@pytest.fixture
def data(tmp_path):
    """Twelve rows, a third of them warm."""
    file = tmp_path / "data.csv"
    rows = (f"text {n},{'warm' if n % 3 == 0 else 'cold'}\n" for n in range(12))
    file.write_text("text,label\n" + "".join(rows))
    return file


def example(text, gold):
    return Example(TASK.prompt(text), f" {TASK.labels[gold]}", (" cold", " warm"), gold)


def test_drawn_examples_are_not_asked(data):
    examples = read_task_data("classification", data).examples
    drawn = draw(examples, 4)
    assert len(drawn.shown) == 4
    assert sorted(e.name for e in (*drawn.shown, *drawn.asked)) == sorted(e.name for e in examples)
    assert draw(examples, 3, shots=examples[:3]).asked == examples
    for n in (-1, 12):
        with pytest.raises(ValueError, match="--few-shot"):
            draw(examples, n)


def test_what_is_shown_is_the_text_of_solved_examples(lm):
    shown = [example("ice", 0), example("sun", 1)]
    text = "".join(one.prompt + one.answer + BREAK for one in shown)
    assert lm.tokenizer.decode(shown_ids(lm, TASK, shown)) == text
    question = TASK.prompt("snow")
    before = TASK.log_probabilities(lm, [question], shown_ids(lm, TASK, shown))
    torch.testing.assert_close(before, TASK.log_probabilities(lm, [text + question]))


def test_long_examples_are_cut_so_that_the_question_keeps_its_share(lm):
    shown = [example("ice " * 99, 0), example("sun " * 99, 1)]
    ids = shown_ids(lm, TASK, shown)
    assert len(ids) <= TASK.room(lm) * 2 // 3
    assert lm.tokenizer.decode(ids).endswith(f" warm{BREAK}")
    with pytest.raises(ValueError, match="do not fit"):
        shown_ids(lm, TASK, [example("a", 0)] * 20)


def test_a_text_that_says_nothing_is_no_label_after_calibration(lm):
    before = shown_ids(lm, TASK, [example("ice", 0)])
    logs = TASK.log_probabilities(lm, [TASK.prompt(text) for text in CONTENT_FREE], before)
    even = (logs.exp().mean(0).log() - TASK.prior(lm, before)).softmax(-1)
    torch.testing.assert_close(even, torch.full((2,), 0.5, dtype=torch.float64))


def test_scores_stand_beside_the_majority(lm, data):
    examples = read_task_data("classification", data).examples
    figures = score_by_likelihood(lm, TASK, examples, []).figures
    assert list(figures)[:2] == ["accuracy", "macro_f1"]
    assert figures["majority_accuracy"] == pytest.approx(8 / 12)
    assert figures["majority_macro_f1"] == pytest.approx((2 * 8 / (8 + 12) + 0) / 2)


def test_evaluate_asks_a_run_that_learned_no_task(call, run, data):
    code, told, _ = call("evaluate", run, "--task", "classification", "--data", data, "--few-shot", 2, "--json")
    assert code == 0
    assert set(json.loads(told)) == {
        f"{k}{m}" for k in ("", "calibrated_", "majority_") for m in ("accuracy", "macro_f1")
    }
    code, told, _ = call("evaluate", run, "--task", "classification", "--data", data, "--limit", 6)
    assert (code, told.rstrip().endswith("over 6 examples")) == (0, True)


@pytest.mark.parametrize(
    ("more", "why"),
    [(("--few-shot", 99), "more examples"), (("--limit", 0), "at least 1"), (("--skip-bad",), "always left out")],
)
def test_what_cannot_be_asked_is_refused(call, run, data, more, why):
    code, _, told = call("evaluate", run, "--task", "classification", "--data", data, *more)
    assert (code, why in told) == (2, True)


def test_the_confusion_picture_has_every_count(tmp_path):
    table = confusion(["cold", "a label far too long to be written out in full"], [(0, 0), (0, 1), (1, 1), (1, 1)])
    axes = confusion_figure(table).axes[0]
    assert [text.get_text() for text in axes.texts] == ["1", "1", "", "2"]
    assert "accuracy 0.750" in axes.get_title(loc="left")
    assert write_confusion(table, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
