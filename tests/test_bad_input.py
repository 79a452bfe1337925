"""What a user can do wrong: exit code 2, one line that says what to do, and nothing left behind."""

import dataclasses
import errno
import json
import os
import resource
import shutil
import subprocess
import sys

import pytest

from cerebras_gpt import checkpoint, cli
from cerebras_gpt.distributed import World
from cerebras_gpt.train.calibrate import Calibration, keep
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.pretrain import pretrain

CALIBRATION = Calibration(Execution("float32", 4), 1.0, 1.0, 1.0)


def tree(folder):
    """Every file with its content, and every folder."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def flip(path):
    """Damages one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def here(tmp_path, monkeypatch, data, tiny, documents):
    """The current folder, with good and bad things in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_PROC_BIND", "false")  # the tests' process is not to be bound
    (tmp_path / "good.txt").write_text(" ".join(document.text for document in documents))
    (tmp_path / "short.txt").write_text("A very short text indeed.")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "binary.txt").write_bytes(b"\x7fELF\0\0\0\1" * 10)
    (tmp_path / "latin.txt").write_bytes("Überall Süßes".encode("latin-1"))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "picture.png").write_bytes(b"\x89PNG")
    shutil.copytree(data, tmp_path / "data")
    shutil.copy(data / "tokenizer.json", tmp_path / "tokenizer.json")
    (tmp_path / "corrupt.json").write_bytes((data / "tokenizer.json").read_bytes()[:-100])
    (tmp_path / "plan.json").write_text(tiny.to_json())
    return tmp_path


@pytest.fixture
def refused(here, monkeypatch, capsys):
    """Runs the command line, sees that it ends as a mistake must, and gives the line."""

    def run(*arguments):
        before = tree(here)
        monkeypatch.setattr(sys, "argv", ["cerebras-gpt", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        assert (ended.value.code, told.out) == (2, ""), told.err
        assert told.err.startswith("cerebras-gpt: ") and told.err.count("\n") == 1
        assert tree(here) == before
        return told.err

    return run


@pytest.mark.parametrize("command", ["tokenizer", "pack", "quickstart"])
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.txt", "no file or folder 'nowhere.txt'; give .txt"),
        ("empty.txt", "empty.txt gives no document: empty"),
        ("binary.txt", "binary.txt gives no document: binary: it holds NUL bytes (binary.txt, byte 4)"),
        ("latin.txt", "latin.txt gives no document: not UTF-8 (latin.txt, byte 0)"),
        ("picture.png", "cannot read 'picture.png': its suffix is not one of .txt"),
        ("folder", "folder gives no document: no file in it can be read, 1 are of other formats"),
    ],
)
def test_text_that_is_none(refused, command, source, words):
    sources = ["--data", source] if command == "quickstart" else [source]
    assert words in refused(command, *sources, "--out", "out")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("tokenizer short.txt --out t.json", "vocabulary of 4096 is larger than the text can give (2"),
        ("tokenizer good.txt --vocab-size 100 --out t.json", "too small for every byte; use 257 or more"),
        ("tokenizer", "give text to train on, or --gpt2"),
        ("tokenizer good.txt --gpt2", "give text to train on, or --gpt2"),
        ("tokenizer good.txt --vocab-size 288 --out folder", "folder is a folder; give a file"),
        ("pack good.txt --tokenizer nowhere.json --out out", "no tokenizer at nowhere.json; make one with"),
        ("pack good.txt --tokenizer corrupt.json --out out", "cannot use the tokenizer corrupt.json: "),
        ("pack good.txt --out good.txt", "good.txt exists and is no whole pack; choose another folder"),
        ("pack good.txt --val-fraction 1.5 --out out", "val fraction must be at least 0 and less than 1"),
        ("plan 112M", "'112M'; did you mean '111M'? allowed: 111M, 256M"),
        ("plan", "give one budget: a size (111M to 13B), --minutes"),
        ("plan --minutes 0 --data data", "--minutes 0 is not a time to train; give a positive number"),
        ("plan --minutes 3", "--minutes needs --data"),
        ("plan --minutes 3 --data folder", "folder is no pack (no manifest.json); make one with"),
        ("plan 111M --out folder", "folder is a folder; give a file"),
        ("quickstart --minutes 0 --out out", "--minutes 0 is not a time to train; give a positive number"),
        ("quickstart --minutes -3 --out out", "--minutes -3 is not a time to train; give a positive number"),
        ("quickstart --minutes nan --out out", "--minutes nan is not a time to train"),
        (
            "quickstart --corpus sotu+pile --out out",
            "unknown corpus 'pile'; choose sotu, wiki or sotu+wiki, or give --data",
        ),
        ("quickstart --data good.txt --out good.txt", "good.txt is a file; give a folder with --out"),
        ("pretrain nowhere.json --out out", "no plan at nowhere.json; make one with: cerebras-gpt plan"),
        ("pretrain 112M --out out", "did you mean '111M'?"),
        ("pretrain good.txt --out out", "good.txt is not a plan: "),
        ("pretrain plan.json lr --out out", "'lr' is not key=value; write a setting of the plan such as peak_lr=0.004"),
        ("pretrain plan.json =3 --out out", "'=3' is not key=value"),
        ("pretrain plan.json peak_rl=3 --out out", "unknown plan key 'peak_rl'; did you mean 'peak_lr'?"),
        ("pretrain plan.json peak_lr=fast --out out", "plan key 'peak_lr' is 'fast': "),
        ("pretrain plan.json --data nowhere --out out", "nowhere is no pack (no manifest.json); make one with"),
        ("pretrain 111M --out out", "the plan has a vocabulary of 50257, the pack 288; plan with --data, or pack"),
        ("pretrain plan.json architecture.seq_len=99999 --out out", "tokens; one window needs seq_len + 1 = 100000"),
        ("pretrain plan.json architecture.n_heads=3 --out out", "d_model 32 is not a multiple of n_heads 3"),
        ("generate nowhere", "nowhere does not exist; give a run folder or a checkpoint folder"),
        ("generate folder", "folder has no manifest.json; give a run folder or a checkpoint folder"),
        ("evaluate nowhere --text good.txt", "nowhere does not exist; give a run folder"),
        ("report folder --out out.html", "folder is no run, ladder, check, search, scores or law"),
        ("verify nowhere", "nowhere holds nothing to verify; give a pack, a checkpoint or a run folder"),
    ],
)
def test_a_mistake_of_any_kind(refused, command, words):
    assert words in refused(*command.split())


def test_an_unknown_key_of_a_plan_file_is_named_with_its_neighbour(refused, here, tiny):
    (here / "typo.json").write_text(json.dumps({**json.loads(tiny.to_json()), "warmup_step": 3}))
    line = refused("pretrain", "typo.json", "--out", "out")
    assert "typo.json is not a plan: unknown plan key 'warmup_step'; did you mean 'warmup_steps'?" in line


@pytest.mark.parametrize("name", ["train-00000.bin", "val-offsets.bin", "tokenizer.json", "manifest.json"])
def test_a_damaged_pack_is_never_trained_on(refused, here, name):
    flip(here / "data" / name)
    assert f"data/{name} is damaged: " in refused("pretrain", "plan.json", "--out", "out")
    assert f"data/{name} is damaged: " in refused("verify", "data")


def test_a_run_goes_on_only_with_its_own_plan(refused, here, tiny):
    (here / "run").mkdir()
    (here / "run" / "plan.json").write_text(dataclasses.replace(tiny, seed=1).to_json())
    assert "run holds a run of another plan; give another --out" in refused("pretrain", "plan.json", "--out", "run")


def test_a_quickstart_goes_on_only_with_its_own_settings(refused, here):
    (here / "run").mkdir()
    begun = {"minutes": 5.0, "corpus": "sotu", "data": ["good.txt"]}
    (here / "run" / "quickstart.json").write_text(json.dumps(begun))
    line = refused("quickstart", "--data", "good.txt", "--minutes", 6, "--out", "run")
    assert "run was begun with minutes 5.0, now it is 6.0; give another --out" in line


def test_too_little_text_for_a_quickstart_leaves_no_folder(here, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cerebras-gpt", "quickstart", "--data", "short.txt", "--out", "out"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("cerebras-gpt: ") and "bytes of text are too few to learn from; give 20,000 or more" in line
    assert not (here / "out").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may do everything")
def test_a_folder_that_may_not_be_written(refused, here):
    (here / "folder").chmod(0o500)
    try:
        assert "no permission for folder/" in refused("plan", "111M", "--out", "folder/plan.json")
    finally:
        (here / "folder").chmod(0o700)


@pytest.mark.parametrize(
    "command",
    ["tokenizer good.txt --vocab-size 288 --out t.json", "plan 111M --out p.json", "pack good.txt --out new"],
)
def test_a_full_disk(refused, here, monkeypatch, command):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace" if "tokenizer" in command else "fsync", full)
    told = refused(*command.split())
    assert "no space left for " in told and "; free some" in told


def start(*arguments, before=None):
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "cerebras_gpt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=before, check=False)


def test_a_disk_that_fills_up_while_packing(here):
    before = tree(here)
    told = start(
        "pack", "good.txt", "--out", "out", before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    )
    assert (told.returncode, told.stdout) == (2, ""), told.stderr
    assert told.stderr.startswith("cerebras-gpt: no space left for ") and told.stderr.count("\n") == 1
    assert tree(here) == before


def test_a_missing_source_in_a_process_of_its_own(here):
    before = tree(here)
    told = start("pack", "nowhere.txt", "--out", "out")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("cerebras-gpt: no file or folder 'nowhere.txt'") and told.stderr.count("\n") == 1
    assert tree(here) == before


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny, data):
    """A short run with two checkpoints."""
    run = tmp_path_factory.mktemp("trained") / "run"
    keep(CALIBRATION, run)
    pretrain(dataclasses.replace(tiny, steps=4, saves=2, evaluations=1), data, run, World())
    return run


@pytest.fixture
def run(trained, here):
    return shutil.copytree(trained, here / "run")


def test_a_damaged_checkpoint_gives_way_to_the_one_before_loudly(run):
    newest, before = checkpoint.checkpoints(run)
    flip(newest / "model.safetensors")
    told = start("generate", "run", "--prompt", "the cat", "--max-tokens", 3)
    assert told.returncode == 0 and told.stdout.startswith("the cat")
    assert told.stderr.startswith(f"cerebras-gpt: run/checkpoints/{newest.name}/model.safetensors is damaged")
    assert "falling back" in told.stderr and told.stderr.count("\n") == 1
    assert told.stdout == start("generate", before, "--prompt", "the cat", "--max-tokens", 3).stdout


def test_when_every_checkpoint_is_damaged_there_is_no_model(refused, run):
    for folder in checkpoint.checkpoints(run):
        flip(folder / "manifest.json")
    assert "run holds no checkpoint that verifies; train it first, or train it again" in refused("generate", "run")


def test_verify_tells_the_good_from_the_damaged(run, here, monkeypatch, capsys):
    newest, before = checkpoint.checkpoints(run)
    flip(newest / "optimizer.safetensors")
    monkeypatch.setattr(sys, "argv", ["cerebras-gpt", "verify", "run"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    told = capsys.readouterr()
    assert told.out == f"run/checkpoints/{before.name}: good\n"
    assert f"run/checkpoints/{newest.name}/optimizer.safetensors is damaged" in told.err and told.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("generate run --temperature -1", "temperature"),
        ("generate run --top-p 0", "top_p"),
        ("generate run --top-k -1", "top_k"),
        ("generate run --max-tokens -1", "max_tokens"),
        ("evaluate run --text nowhere.txt", "nowhere.txt does not exist"),
        ("evaluate run --text folder", "folder is a folder; give a file"),
        ("evaluate run --text empty.txt", "empty.txt is empty; give a file with text"),
        ("evaluate run --text latin.txt", "latin.txt is not UTF-8 text (byte 0); convert it first"),
        ("report run --out folder", "folder is a folder; give a file"),
    ],
)
def test_a_mistake_in_using_a_run(refused, run, command, words):
    assert words in refused(*command.split())
