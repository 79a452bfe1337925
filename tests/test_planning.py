"""`plan` takes one budget of any kind, and says in one line what is wrong with any other."""

import json
import resource
import subprocess
import sys

import pytest

from cerebras_gpt import cli
from cerebras_gpt.cli import planning
from cerebras_gpt.errors import MISTAKE
from cerebras_gpt.train import pilot


@pytest.fixture
def plan(monkeypatch, capsys):
    """Runs `plan` in this process: exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setenv("OMP_PROC_BIND", "false")  # the tests' process is not to be bound
        monkeypatch.setattr(sys, "argv", ["cerebras-gpt", "plan", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return ended.value.code, told.out, told.err

    return run


def test_each_kind_of_budget_gives_a_plan(plan, data):
    for budget in (
        ["--flops", "1e18"],
        ["--tokens", "1e9"],
        ["--cost", "10", "--price", "2", "--device-flops", "1e14"],
        ["111M"],
    ):
        code, out, err = plan(*budget, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["reasons"]


def test_without_calibration_it_answers_within_two_seconds_and_needs_no_torch():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-X", "importtime", "-m", "cerebras_gpt", "plan", "--flops", "1e20"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "torch" not in {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_money_is_spent_at_the_measured_speed_if_none_is_given(plan, data, monkeypatch):
    monkeypatch.setattr(pilot, "CAREFUL", pilot.Stopwatch(0.0, fewest=1))
    code, _, err = plan("--cost", "1e5", "--price", "2", "--data", data)  # far more than so short a text is good for
    assert code == MISTAKE and "too little data" in err


def test_a_pack_brings_its_vocabulary_and_limits_the_plan(plan, data):
    code, out, err = plan("--tokens", "4e6", "--data", data)
    assert (code, out) == (MISTAKE, "")
    assert "too little data" in err
    code, out, err = plan("111M", "--data", data)
    assert code == MISTAKE and "too little data" in err


def test_what_is_needed_and_what_is_there_is_shown(plan):
    code, out, _ = plan("13B")
    assert code == 0
    assert "peak memory" in out and "weights 77.1" in out and "GB for checkpoints" in out
    code, out, _ = plan("111M", "--memory", "16")
    assert "the most that fit in 16 GB" in out


def test_measured_it_tells_the_time_as_an_interval(plan, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(pilot, "CAREFUL", pilot.Stopwatch(0.0, fewest=1))
    rows = dict(planning.before_the_run(tiny, None, planning.measured(tiny)))
    assert " s to " in rows["time"] and "tokens/s measured here" in rows["time"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "give one budget: a size"),
        (["111M", "--flops", "1e18"], "a size and --flops were given"),
        (["--flops", "nan"], "a budget of nan FLOPs is none"),
        (["--flops", "-1"], "a budget of -1 FLOPs is none"),
        (["--tokens", "1e40"], "the nearest possible plan: --tokens 2.57e+11"),
        (["--cost", "5"], "--cost needs --price"),
        (["--tokens", "1e9", "--price", "2"], "--price belongs to --cost"),
        (
            ["111M", "--inference-tokens", "1e9"],
            "--inference-tokens belongs to --flops or --tokens or --cost, not to a",
        ),
        (["--flops", "1e18", "--inference-tokens", "-1"], "-1 tokens of inference cannot be"),
        (["13B", "--memory", "80"], "the largest size that fits: 3.8B (width 3072), plan --tokens"),
        (["111M", "--memory", "nan"], "--memory nan is no memory"),
        (["--minutes", "1e40", "--data", "x"], "the nearest possible plan: --minutes 527040"),
        (["--minutes", "-2", "--data", "x"], "--minutes -2 is not a time to train"),
        (["--minutes", "5"], "--minutes needs --data"),
    ],
)
def test_nonsense_is_one_clear_line(plan, arguments, line):
    code, out, err = plan(*arguments)
    assert (code, out) == (MISTAKE, "")
    assert line in err and err.count("\n") == 1
