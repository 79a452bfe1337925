import json
import random
from dataclasses import replace

import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import mup
from cerebras_gpt.record import read_metrics
from cerebras_gpt.tasks.adapt import Adaptation
from cerebras_gpt.tasks.scoring import score
from cerebras_gpt.tasks.table import load_task
from cerebras_gpt.tasks.tuning_data import held_out_places, read_tuning_data
from cerebras_gpt.tasks.tuning_plan import Tuning
from cerebras_gpt.text.tokenizer import train_tokenizer
from cerebras_gpt.train.trainer import Trainer

TOKENIZER = train_tokenizer(["the cat sees milk", "a dog wants rain", "Label: cold warm"], 290)
SEQ_LEN = 32
TUNING = Tuning(epochs=10, batch_size=8, evaluations=4, rate=0.01, patience=4)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A checkpoint of a model that knows nothing yet."""
    shape = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=290, seq_len=SEQ_LEN)
    model = initialize(GPT(shape, mup(shape)), torch.Generator().manual_seed(0))
    texts = {"model.json": checkpoint.model_json(model), "tokenizer.json": TOKENIZER.to_json()}
    tensors = {"model.safetensors": dict(model.named_parameters())}
    return checkpoint.save(tmp_path_factory.mktemp("source"), 0, texts, tensors)


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    """What is cold and what is warm: the first word decides."""
    choose = random.Random(0).choice
    rows = []
    for n in range(160):
        label = choose(["cold", "warm"])
        word = {"cold": ["ice", "snow"], "warm": ["sun", "fire"]}[label]
        rows.append({"text": f"{choose(word)} {n}", "label": label})
    file = tmp_path_factory.mktemp("topics") / "topics.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def adaptation(source, topics, out, tuning=TUNING):
    data = read_tuning_data("classification", topics, None, TOKENIZER, SEQ_LEN)
    return Adaptation(source, out, data, tuning)


@pytest.fixture(scope="module")
def adapted(source, topics, tmp_path_factory):
    """A run that does the task, and what it scored."""
    out = tmp_path_factory.mktemp("adapted") / "run"
    return out, adaptation(source, topics, out).run()


def test_it_learns_the_task(adapted, topics):
    out, scores = adapted
    assert scores.figures["accuracy"] == 1.0
    assert score(out, "classification", topics)[0].figures["accuracy"] > 0.95
    assert load_task(out).labels == ("cold", "warm")
    assert LM.load(out).generate("snow 7\n\nLabel:", 2).strip().startswith("cold"[:1])


def test_low_rank_updates_alone_learn_the_task(source, topics, tmp_path):
    # In half the epochs it is learned or not by the seed, in every dtype.
    longer = replace(TUNING, rank=4, epochs=20, evaluations=8, patience=8)
    scores = adaptation(source, topics, tmp_path / "run", longer).run()
    assert scores.figures["accuracy"] > 0.95
    assert (checkpoint.resolve(tmp_path / "run") / "adapter_config.json").exists()
    before, after = (checkpoint.load_model(checkpoint.resolve(run)) for run in (source, tmp_path / "run"))
    assert torch.equal(before.position_embedding.weight, after.position_embedding.weight)
    assert torch.linalg.matrix_rank(after.token_embedding.weight - before.token_embedding.weight, rtol=1e-4) == 4
    assert not torch.equal(before.blocks[0].attention.qkv.weight, after.blocks[0].attention.qkv.weight)


def test_the_best_weights_are_kept_and_the_record_is_whole(adapted):
    out, _ = adapted
    rows = [row for row in read_metrics(out / "metrics.jsonl") if row["kind"] == "held_out"]
    best = max(rows, key=lambda row: (row["likeliest"], -row["loss"]))
    assert rows[0]["step"] == 0
    assert checkpoint.resolve(out).name == f"step_{best['step']:08d}"
    assert not (out / "work").exists()


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(adapted, source, topics, tmp_path, monkeypatch):
    update = Trainer.update

    def killed(trainer):
        update(trainer)
        if trainer.step == 50:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        adaptation(source, topics, tmp_path / "run").run()
    monkeypatch.undo()
    adaptation(source, topics, tmp_path / "run").run()
    ours, theirs = (checkpoint.load_model(checkpoint.resolve(run)) for run in (tmp_path / "run", adapted[0]))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    held_out = [
        [(row["step"], row["loss"]) for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "held_out"]
        for run in (tmp_path / "run", adapted[0])
    ]
    assert held_out[0] == held_out[1]


def test_early_stopping_ends_a_run_that_no_longer_gains(source, topics, tmp_path):
    tuning = Tuning(epochs=30, batch_size=8, evaluations=60, rate=0.1, patience=2)
    run = adaptation(source, topics, tmp_path / "run", tuning)
    run.run()
    steps = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "held_out"]
    assert steps[-1] < run.plan.steps


def test_a_folder_that_was_begun_otherwise_is_refused(adapted, source, topics):
    with pytest.raises(ValueError, match="begun with another tuning"):
        adaptation(source, topics, adapted[0], Tuning(epochs=2)).run()


def test_equal_prompts_are_on_one_side():
    places = held_out_places(["a", "b", "a", "c", "b"] * 10)
    prompts = (["a", "b", "a", "c", "b"] * 10)[next(iter(places))]
    assert len(places) in (10, 20)
    assert prompts in "abc"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], "1 label in the data"),
        ([{"text": "", "label": "x"}], "0 label in the data"),
        ([{"words": "a", "label": "x"}], "no column for the text"),
        ([{"text": "a", "label": "x" * 50}, {"text": "b", "label": "y" * 50}], "0 examples to learn"),
    ],
)
def test_data_that_teaches_nothing_is_refused_in_one_line(rows, words, tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=words):
        read_tuning_data("classification", tmp_path / "a.jsonl", None, TOKENIZER, SEQ_LEN)


def test_labels_that_were_not_learned_and_long_texts_are_named(topics, tmp_path):
    rows = [{"text": "ice", "label": "cold"}, {"text": "mud", "label": "wet"}, {"text": "sun " * 40, "label": "warm"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_tuning_data("classification", topics, tmp_path / "a.jsonl", TOKENIZER, SEQ_LEN)
    assert len(found.held_out) == 2
    assert "refused: 1 x a.jsonl: label 'wet' is not one that was learned (line 2)" in found.lines()
    assert any("its middle is left out (line 3)" in line for line in found.lines())


def test_the_verb_checks_and_adapts(call, source, topics, tmp_path):
    code, told, _ = call("adapt", source, "--task", "classification", "--data", topics, "--check")
    assert code == 0
    assert told.startswith("160 rows, 0 refused\n144 examples to learn")
    code, told, _ = call(
        "adapt", source, "--task", "classification", "--data", topics, "--out", tmp_path / "r", "--epochs", 1, "--json"
    )
    assert code == 0
    assert set(json.loads(told)) == {"accuracy", "macro_f1"}
    assert (tmp_path / "r" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    code, _, why = call("adapt", source, "--task", "classify", "--data", topics)
    assert code == 2
    assert "did you mean 'classification'" in why


def test_evaluate_scores_a_file_with_the_labels_that_were_learned(call, adapted, tmp_path):
    rows = [{"text": "ice 900", "label": "cold"}, {"text": "mud", "label": "wet"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, told, why = call("evaluate", adapted[0], "--task", "classification", "--data", tmp_path / "a.jsonl", "--json")
    assert code == 0
    assert json.loads(told)["accuracy"] == 1.0
    assert "label 'wet' is not one that was learned (line 2)" in why
