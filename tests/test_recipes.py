"""What the recipes read of installed packages becomes rows; no package of theirs is needed here."""

import gettext
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import mup
from cerebras_gpt.text.tokenizer import train_tokenizer

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def recipes(monkeypatch):
    """The folder of examples, importable as it is for its own programs."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in [name for name in sys.modules if name.startswith("recipe")]:
        del sys.modules[name]


def test_a_missing_package_is_named(recipes):
    import recipe

    with pytest.raises(SystemExit, match="pip install no-such-package"):
        recipe.package_file("no-such-package", "a.txt")
    assert recipe.package_file("pytest", "pytest/__init__.py").is_file()


def test_a_catalogue_gives_its_messages_of_one_line(recipes, monkeypatch, tmp_path):
    import recipe_translation

    messages = {"": "head", "Save": "Sichern", "a\nb": "x", ("n", 1): "y", "empty": " "}
    monkeypatch.setattr(gettext.GNUTranslations, "_parse", lambda self, stream: setattr(self, "_catalog", messages))
    (tmp_path / "a.mo").write_bytes(b"")
    assert list(recipe_translation.messages(tmp_path / "a.mo")) == [("Save", "Sichern")]


def test_a_play_gives_conversations_of_short_speeches(recipes):
    import recipe_shakespeare

    names, long = ("ONE", "TWO") * 3, "word " * 41
    said = ["Who's there?", "_Aside_\n\nNay, answer\nme.", "Long live\nthe king!", "Bernardo?", long, "He."]
    speeches = "\n\n".join(f"**{name}**\n{text}" for name, text in zip(names, said, strict=True))
    play = f"# A play\n\n## ACT I\n\n### SCENE I.\n\n_Enter ONE_\n\n{speeches}\n\n### SCENE II.\n\n**ONE**\nAlone."
    assert list(recipe_shakespeare.talks(play)) == [
        ["Who's there?", "Nay, answer me.", "Long live the king!", "Bernardo?"]
    ]


def test_a_recipe_tunes_and_scores(recipes, tmp_path, capsys):
    import recipe

    tokenizer = train_tokenizer(["plain words"], 257)
    shape = Architecture(d_model=16, n_layers=1, n_heads=2, vocab_size=257, seq_len=32)
    model = initialize(GPT(shape, mup(shape)), torch.Generator().manual_seed(0))
    texts = {"model.json": checkpoint.model_json(model), "tokenizer.json": tokenizer.to_json()}
    run = checkpoint.save(tmp_path / "run", 0, texts, {"model.safetensors": dict(model.named_parameters())})
    rows = [{"prompt": f"say {n}", "response": f"{n}"} for n in range(30)]
    given = Namespace(run=run, out=tmp_path / "out", minutes=0.01, limit=20)
    lm = recipe.adapted(given, "instruction", rows)
    assert "20 rows, 0 refused" in capsys.readouterr().out
    assert lm.model.architecture == shape
