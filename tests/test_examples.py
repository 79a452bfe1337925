"""The programs in examples/ do what they say."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import mup
from cerebras_gpt.plan.sizes import SIZES
from cerebras_gpt.text.tokenizer import train_tokenizer

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def test_a_text_becomes_a_model_that_continues_a_prompt(tmp_path, monkeypatch, capsys):
    text, out = tmp_path / "my.txt", tmp_path / "run"
    text.write_text(" ".join(map(str, range(9000))), "utf-8")
    small = ("--d-model", 32, "--steps", 8, "--prompt", "1 2 3")
    said = run("train_from_python.py", monkeypatch, capsys, text, "--out", out, *small)
    assert "parameters" in said
    assert len(said.rpartition("\n\n1 2 3")[2]) > 10
    assert len(list((out / "checkpoints").glob("step_*"))) == 2


def test_the_family_is_a_line_for_each_size(monkeypatch, capsys):
    lines = run("plan_the_family.py", monkeypatch, capsys).splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(SIZES)
    assert lines[1].split()[1:6] == ["111,050,496", "2,220,933,120", "9,037", "2.64e+18", "2.22e+18"]


@pytest.mark.parametrize(("arguments", "hidden"), [((), 0.046188), (("2.7B",), 0.025298)])
def test_the_mup_table_has_the_published_stds(arguments, hidden, monkeypatch, capsys):
    lines = run("mup_table.py", monkeypatch, capsys, *arguments).splitlines()
    row = lines[lines.index("init std") + 2].split()
    assert row[0] == "hidden"
    assert [float(figure) for figure in row[1:3]] == pytest.approx([0.02, hidden], abs=1e-6)


def test_the_mup_table_shows_what_completep_adds(monkeypatch, capsys):
    lines = run("mup_table.py", monkeypatch, capsys, "111M").splitlines()  # width times 3, depth times 5
    assert lines[lines.index("decay times") + 2].split() == ["hidden", "1", "1", "3"]
    assert lines[lines.index("epsilon times") + 2].split() == ["hidden", "1", "1", "0.066667"]
    assert ["residual", "scale", "1", "1", "0.2"] in [line.split() for line in lines]


def test_the_attention_picture_is_a_small_png(tmp_path, monkeypatch, capsys):
    picture = tmp_path / "attention.png"
    run("attention_picture.py", monkeypatch, capsys, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 120_000


@pytest.fixture
def source(tmp_path):
    """A run that knows nothing yet."""
    tokenizer = train_tokenizer(["ice snow cold sun fire warm"], 270)
    shape = Architecture(d_model=32, n_layers=1, n_heads=2, vocab_size=tokenizer.vocab_size, seq_len=48)
    model = initialize(GPT(shape, mup(shape)), torch.Generator().manual_seed(0))
    texts = {"model.json": checkpoint.model_json(model), "tokenizer.json": tokenizer.to_json()}
    checkpoint.save(tmp_path / "source", 0, texts, {"model.safetensors": dict(model.named_parameters())})
    return tmp_path / "source"


def test_a_classifier_is_tuned_and_asked(source, tmp_path, monkeypatch, capsys):
    rows = [f"{word} {n},{label}" for n in range(12) for word, label in (("ice", "cold"), ("fire", "warm"))]
    (tmp_path / "data.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    settings = ("--text", "ice 99", "--out", tmp_path / "out", "--epochs", 2)
    said = run("tune_a_classifier.py", monkeypatch, capsys, source, tmp_path / "data.csv", *settings)
    assert "22 examples to learn" in said
    assert "'ice 99' is " in said


def test_documents_are_asked(source, tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "pay.txt").write_text("Refunds take five days.")
    asked = run("ask_documents.py", monkeypatch, capsys, source, tmp_path / "docs", "How long do refunds take?")
    assert "(pay.txt, paragraph 1)" in asked
    assert "not in the documents" in run(
        "ask_documents.py", monkeypatch, capsys, source, tmp_path / "docs", "Who won the cup?"
    )
