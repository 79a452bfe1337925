"""The doors: help that answers at once, exit codes that scripts can trust, results alone on standard output."""

import errno
import json
import os
import re
import resource
import subprocess
import sys
from importlib import metadata

import pytest
import typer

import cerebras_gpt
from cerebras_gpt.cli import app as door
from cerebras_gpt.doctor import PACKAGES, environment
from cerebras_gpt.errors import MISTAKE, READER_GONE, STOPPED, Ending, ending

VERBS = typer.main.get_command(door.app).commands
HEAVY = ("torch", "numpy", "pydantic", "tokenizers", "scipy", "matplotlib", "safetensors")


def plain(text):
    """Help without frames, its lines joined."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def test_help_answers_at_once_and_imports_nothing_heavy():
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-X", "importtime", "-m", "cerebras_gpt", "--help"]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "quickstart" in told.stdout
    imported = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert not imported & set(HEAVY)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(call, verb):
    code, out, err = call(verb, "-h")
    assert (code, err) == (0, "")
    assert f"Example: cerebras-gpt {verb}" in plain(out)
    for parameter in VERBS[verb].params:
        assert getattr(parameter, "help", "a word"), f"{parameter.name} has no help"
        shown = isinstance(parameter.default, str | int | float | os.PathLike) and not isinstance(
            parameter.default, bool
        )
        if shown and parameter.default != "":
            assert f"[default: {parameter.default}]" in plain(out)


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_without_a_verb_there_is_help(call, arguments):
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert "Start with: cerebras-gpt quickstart" in plain(out)
    assert all(verb in out for verb in VERBS)


def test_version(call):
    assert call("--version") == (0, f"cerebras-gpt {cerebras_gpt.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("quickstrat",), "no such command 'quickstrat'. Did you mean 'quickstart'? see: cerebras-gpt --help"),
        (
            ("quickstart", "--minuts", "3"),
            "no such option --minuts; did you mean --minutes? see: cerebras-gpt quickstart -",
        ),
        (("--verion",), "no such option --verion; did you mean --version? see: cerebras-gpt --help"),
        (("pack",), "missing argument 'sources'; see: cerebras-gpt pack --help"),
        (("quickstart", "--minutes", "soon"), "invalid value for '--minutes': "),
    ],
)
def test_a_mistyped_command_is_one_line_with_the_nearest_name(call, arguments, line):
    code, out, err = call(*arguments)
    assert (code, out) == (MISTAKE, "")
    assert err.startswith(f"cerebras-gpt: {line}") and err.count("\n") == 1


def test_debug_shows_where_a_mistake_was_found(call, caplog):
    code, _, err = call("--debug", "plan", "112M")
    assert code == MISTAKE
    assert "published_plan" in caplog.text
    assert err.endswith("allowed: 111M, 256M, 590M, 1.3B, 2.7B, 6.7B, 13B\n")
    caplog.clear()
    call("plan", "112M")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("line one\n  line two"), 2, "line one"),
        (KeyboardInterrupt(), STOPPED, "interrupted"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), READER_GONE, ""),
        (OSError(errno.ENOSPC, "No space", "a/b"), 2, "no space left for a/b; free some"),
        (OSError(errno.EFBIG, "File too large"), 2, "no space left for the output; free some"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 2, "no permission for a/b; choose another"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", ".b.tmp", None, "b"), 2, "b is a folder; give a file"),
        (MemoryError(), 2, "not enough memory; choose a smaller"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            2,
            "not enough mem",
        ),
    ],
)
def test_every_expected_error_has_a_code_and_a_line(error, code, words):
    found = ending(error)
    assert found.code == code and found.line.startswith(words)


def test_errors_of_training_have_codes_of_their_own():
    from cerebras_gpt.train.endings import DivergedError, StoppedError

    assert ending(StoppedError("saved")) == Ending(3, "saved")
    assert ending(DivergedError("loss nan")) == Ending(4, "loss nan")


@pytest.mark.parametrize("error", [AssertionError(), KeyError("x"), RuntimeError("x"), OSError("x"), TypeError()])
def test_our_bugs_are_no_mistakes_of_the_user(error):
    assert ending(error) is None


def test_a_bug_shows_its_traceback_and_asks_for_a_report(call, monkeypatch):
    monkeypatch.setattr(door, "ending", lambda error: None)
    code, _, err = call("plan", "112M")
    assert code == 1
    assert "Traceback" in err and err.splitlines()[-1].startswith("cerebras-gpt: this is our bug")


def test_a_reader_that_goes_away_is_no_error():
    script = "import sys; from cerebras_gpt.cli import main; sys.argv = ['', 'plan', '111M']; main()"
    reader, writer = os.pipe()
    os.close(reader)
    told = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (told.returncode, told.stderr) == (READER_GONE, "")


def test_doctor_tells_the_environment_in_lines_and_json(call):
    code, out, _ = call("doctor")
    assert code == 0
    told = json.loads(call("doctor", "--json")[1])
    assert [line[: len(key)] for line, key in zip(out.splitlines(), told, strict=True)] == list(told)
    for key in ("python", "torch", "processor", "cores", "memory", "disk", "torch threads", "GPUs", "compiler"):
        assert told[key]


def test_doctor_tells_of_every_dependency():
    required = metadata.requires("cerebras-gpt") or []
    assert required
    names = {re.split(r"[^\w-]", line)[0] for line in required if "test" not in line.partition(";")[2]}
    assert names <= set(PACKAGES)


def test_doctor_tells_no_names_and_no_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    told = " ".join(environment().values())
    assert str(tmp_path) not in told and os.path.expanduser("~") not in told


def test_plan_gives_json_on_standard_output_and_in_a_file(call, tmp_path):
    code, out, err = call("plan", "111M", "--mup", "--json", "--out", tmp_path / "new" / "plan.json")
    assert (code, err) == (0, "")
    assert json.loads(out)["batch_size"] == 120
    assert (tmp_path / "new" / "plan.json").read_text() == out


@pytest.mark.parametrize(
    ("arguments", "decay", "std"),
    [
        (["13B"], "cosine", 0.0022361),
        (["13B", "--yaml"], "cosine", 0.0025),
        (["2.7B", "--mup", "--yaml"], "cosine", 0.0),
    ],
)
def test_plan_gives_the_released_recipe_on_request(call, arguments, decay, std):
    code, out, err = call("plan", *arguments)
    assert (code, err) == (0, "")
    assert f"{decay} decay" in out
    assert not std or f"{std:.5g} " in next(line for line in out.splitlines() if line.startswith("residual_out"))


def test_the_released_recipe_needs_a_size(call):
    code, _, err = call("plan", "--minutes", "1", "--yaml")
    assert code == MISTAKE
    assert "--yaml belongs to a size" in err


def test_text_becomes_tokenizer_and_pack_that_verify(call, tmp_path, documents):
    texts = tmp_path / "texts"
    texts.mkdir()
    for document in documents:
        (texts / document.id).write_text(document.text)
    made = tmp_path / "made" / "tokenizer.json"
    code, out, _ = call("tokenizer", texts, "--vocab-size", 288, "--out", made)
    assert code == 0 and "288 tokens" in out
    code, out, _ = call("pack", texts, "--tokenizer", made, "--out", tmp_path / "data")
    assert code == 0 and out.startswith("train: ")
    assert call("verify", tmp_path / "data") == (0, f"{tmp_path / 'data'}: good\n", "")
