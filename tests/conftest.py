"""Small real things that many tests use: a text, its pack, a plan that trains in a second."""

import random
import sys

import pytest
import torch

from cerebras_gpt import cli
from cerebras_gpt.data.documents import Document
from cerebras_gpt.data.shards import pack
from cerebras_gpt.model import kernel
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.plan import memory
from cerebras_gpt.plan.families import mup
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.text.tokenizer import train_tokenizer


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small models are faster on one thread, and two test processes then share two cores fairly."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """What is remembered of this machine stays among the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("LOCALAPPDATA", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def torch_alone(monkeypatch):
    """As on a machine without compiled kernels."""
    monkeypatch.setattr(kernel, "kernel", lambda: None)
    monkeypatch.setattr(memory, "trains_here", lambda: False)


@pytest.fixture(scope="session")
def documents():
    """Forty short texts of a little grammar, so that there is something to learn."""
    choose = random.Random(0).choice
    who, does, what = (
        ["the cat", "a dog", "my aunt", "the ship"],
        ["sees", "wants", "finds"],
        ["milk", "rain", "home"],
    )
    return [
        Document(f"{n}.txt", " ".join(f"{choose(who)} {choose(does)} {choose(what)}." for _ in range(60)))
        for n in range(40)
    ]


@pytest.fixture(scope="session")
def data(tmp_path_factory, documents):
    """A pack of those texts."""
    out = tmp_path_factory.mktemp("pack") / "data"
    pack(documents, train_tokenizer((d.text for d in documents), 288), out, val_fraction=0.1)
    return out


@pytest.fixture(scope="session")
def tiny():
    """A plan of 30 steps of 4 sequences of 16 tokens."""
    architecture = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=288, seq_len=16)
    return Plan(
        name="tiny",
        architecture=architecture,
        parametrization=mup(architecture),
        batch_size=4,
        steps=30,
        warmup_steps=3,
        peak_lr=6e-3,
        evaluations=3,
        saves=6,
    )


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the command line in this process: exit code, standard output, standard error."""

    def run(*arguments):
        capsys.readouterr()  # what was told before
        monkeypatch.setenv("OMP_PROC_BIND", "false")  # the tests' process is not to be bound
        monkeypatch.setattr(sys, "argv", ["cerebras-gpt", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return ended.value.code, told.out, told.err

    return run
