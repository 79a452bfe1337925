"""Trials on Ray: what is refused at the door, by which name, and the one seam that both ways of training share.

Ray itself is no part of the test environment; benchmarks/ray_ladder.py compares a whole ladder with and without it.
"""

import shutil
import sys
from collections.abc import Generator
from dataclasses import replace
from importlib.machinery import ModuleSpec

import pytest

from cerebras_gpt.data.documents import Document
from cerebras_gpt.data.shards import Shards, pack
from cerebras_gpt.text.tokenizer import train_tokenizer
from cerebras_gpt.train import on_ray
from cerebras_gpt.train.crew import Processes
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.on_ray import RayTasks, check_same_pack
from cerebras_gpt.train.trial import Trial, Work, outcomes


class Here:
    """Workers that are this process, by the calls that a Ray task makes."""

    def train(self, work: Work) -> Generator:
        for key, trial in work.longest_first:
            yield key, on_ray._task(trial, work.data.resolve(), work.fingerprint, work.execution, False)


@pytest.fixture(scope="module")
def trials(tiny):
    return [Trial(f"{steps} steps", replace(tiny, steps=steps, warmup_steps=1)) for steps in (6, 12, 8)]


def test_the_call_of_a_ray_task_gives_the_bits_of_a_process(trials, data, tmp_path):
    ours = outcomes(trials, data, tmp_path / "ours.jsonl", Processes(2))
    theirs = outcomes(trials, data, tmp_path / "theirs.jsonl", Here())
    assert [found[:3] for found in ours] == [found[:3] for found in theirs]
    assert outcomes(trials, data, tmp_path / "theirs.jsonl", Processes(1)) == theirs


def test_the_longest_trial_begins_first(trials, data):
    work = Work({trial.name: trial for trial in trials}, data, "", Execution())
    assert [key for key, _ in work.longest_first] == ["12 steps", "8 steps", "6 steps"]


def test_a_host_without_the_pack_or_with_another_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray.socket, "gethostname", lambda: "second")
    fingerprint = Shards.open(data, "train").fingerprint
    check_same_pack(data, fingerprint)
    with pytest.raises(ValueError, match=r"nowhere is no pack on the host second; put the same one there"):
        check_same_pack(tmp_path / "nowhere", fingerprint)
    texts = [Document(f"{n}.txt", f"another text {n} " * 40) for n in range(20)]
    pack(texts, train_tokenizer((text.text for text in texts), 288), tmp_path / "other", val_fraction=0.1)
    with pytest.raises(ValueError, match=r"other is another pack on the host second"):
        check_same_pack(tmp_path / "other", fingerprint)
    shutil.rmtree(tmp_path / "other")


@pytest.mark.parametrize("address", ["", "remote", "10.0.0.1", "ray://host", "ray://host:port", "local:1"])
def test_an_address_that_ray_has_not_is_refused_with_those_it_has(address):
    with pytest.raises(ValueError, match=r"is no address; give local, auto or ray://HOST:10001"):
        RayTasks(address)


@pytest.mark.parametrize("address", ["local", "auto", "ray://host:10001"])
def test_without_ray_one_line_says_what_to_install(address, monkeypatch):
    monkeypatch.setattr(on_ray, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r'^.*need ray; pip install "cerebras-gpt\[ray\]"$'):
        RayTasks(address)


def test_nothing_to_train_needs_no_cluster(data, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setitem(sys.modules, "ray", None)  # an import would fail
    assert outcomes([], data, tmp_path / "record.jsonl", RayTasks("local")) == []


@pytest.mark.parametrize("verb", ["tune", "ladder"])
def test_a_verb_refuses_before_it_measures_anything(verb, call, data, tmp_path):
    code, out, error = call(verb, "--data", data, "--out", tmp_path / "out", "--ray", "there")
    assert (code, out) == (2, "") and not (tmp_path / "out").exists()
    assert error.splitlines() == ["cerebras-gpt: --ray 'there' is no address; give local, auto or ray://HOST:10001"]
