"""The gradient noise scale is what it says on gradients of known covariance, costs little and changes no bit."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.errors import MISTAKE
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.noise import KIND, NoiseScale, Norms, batch_from_noise, measured_every, noise_of, ratio
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import read_metrics
from cerebras_gpt.train import noise_scale
from cerebras_gpt.train.calibrate import Calibration, keep
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.noise_scale import squared_norms
from cerebras_gpt.train.pretrain import pretrain
from cerebras_gpt.train.trainer import Hook


def measurements(rng, n, true, deviations, small, big):
    """Norms of n measurements on Gaussian gradients of that mean and those standard deviations a token."""
    for _ in range(n):
        parts = true + deviations * rng.standard_normal((big // small, len(true))) / np.sqrt(small)
        yield Norms(float((parts**2).sum(1).mean()), float((parts.mean(0) ** 2).sum()), small, big)


@pytest.mark.parametrize("small", [4, 16])
def test_the_noise_scale_of_known_gradients_is_found_within_its_error(small):
    rng = np.random.default_rng(0)
    true, deviations = 0.1 * rng.standard_normal(50), rng.uniform(0.2, 2.0, 50)
    expected = (deviations**2).sum() / (true**2).sum()
    offs = []
    for _ in range(100):
        found = ratio([(m.variance, m.squared_gradient) for m in measurements(rng, 60, true, deviations, small, 32)])
        offs.append((found.tokens - expected) / found.error)
    assert abs(np.mean(offs)) < 0.5  # of its error: the ratio is biased by less
    assert 0.8 < np.std(offs) < 1.25
    assert np.mean(np.abs(offs) < 2) > 0.88


def test_both_estimates_are_unbiased():
    rng = np.random.default_rng(1)
    true, deviations = rng.standard_normal(20), rng.uniform(0.5, 2.0, 20)
    found = list(measurements(rng, 4000, true, deviations, 2, 8))
    assert np.mean([m.variance for m in found]) == pytest.approx((deviations**2).sum(), rel=0.02)
    assert np.mean([m.squared_gradient for m in found]) == pytest.approx((true**2).sum(), rel=0.05)


@pytest.mark.parametrize("size", [1, 2])
def test_norms_watched_on_the_way_are_those_of_each_part_alone(tiny, size):
    model = initialize(GPT(tiny.architecture, tiny.parametrization), torch.Generator().manual_seed(0))
    ids = torch.randint(288, (4, 17), generator=torch.Generator().manual_seed(1))
    batch = Batch(ids[:, :-1], ids[:, 1:])

    def squared(rows):
        gradients(model, Batch(*(tensor[rows] for tensor in batch)), Execution("float32", 4), World())
        found = sum(p.grad.double().square().sum().item() for p in model.parameters())
        model.zero_grad(set_to_none=True)
        return found

    alone = [squared(slice(i, i + size)) for i in range(0, 4, size)]
    found = squared_norms(model, batch, Execution("float32", size))
    assert found.small == pytest.approx(np.mean(alone), rel=1e-5)
    assert found.big == pytest.approx(squared(slice(None)), rel=1e-5)
    assert (found.small_tokens, found.big_tokens) == (16 * size, 64)
    assert all(p.grad is None for p in model.parameters())


def train(plan, data, run, hooks=()):
    keep(Calibration(Execution("float32", 2), 1.0, 1.0, 1.0), run)
    return pretrain(plan, data, run, World(), hooks)


@pytest.fixture(scope="module")
def longer(tiny):
    """Long enough to be measured four times."""
    return replace(tiny, steps=80, evaluations=1, saves=2)


@pytest.fixture(scope="module")
def often():
    """Measures every tenth step, so that a short run is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise_scale, "measured_every", lambda steps: 10)
        yield


@pytest.fixture(scope="module")
def measured(longer, data, tmp_path_factory, often):
    """A run with its noise rows."""
    run = tmp_path_factory.mktemp("measured")
    train(longer, data, run)
    return run


def noise_rows(run):
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == KIND]
    return [{key: value for key, value in row.items() if key != "measuring_seconds"} for row in rows]


def weights_hash(run):
    path = checkpoint.resolve(run)
    files = [(path / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")]
    return hashlib.sha256(b"".join(files)).hexdigest()


def test_measuring_changes_no_bit_of_the_result(measured, longer, data, tmp_path, monkeypatch):
    monkeypatch.setattr(noise_scale, "measured_every", lambda steps: 10**9)
    train(longer, data, tmp_path / "without")
    assert not noise_rows(tmp_path / "without")
    assert weights_hash(tmp_path / "without") == weights_hash(measured)


def test_a_resumed_run_goes_on_with_the_averages_of_its_record(measured, longer, data, tmp_path):
    class Killed(BaseException):
        pass

    def breaks(trainer):
        if trainer.step == 55:
            raise Killed

    with pytest.raises(Killed):
        train(longer, data, tmp_path / "run", [Hook(1, breaks)])
    train(longer, data, tmp_path / "run")
    assert noise_rows(tmp_path / "run") == noise_rows(measured)
    assert [row["step"] for row in noise_rows(measured)] == list(range(10, 90, 10))


def test_a_batch_of_one_sequence_is_measured_over_two(tmp_path, tiny, data, often):
    train(replace(tiny, batch_size=1, steps=10, warmup_steps=2, evaluations=1, saves=1), data, tmp_path / "run")
    assert len(noise_rows(tmp_path / "run")) == 1


@pytest.mark.parametrize("steps", [100, 1000, 10**6])
def test_measuring_recomputes_at_most_one_token_in_a_hundred(steps):
    assert steps // measured_every(steps) <= steps / 100


def test_the_noise_of_a_run_is_that_of_its_second_half(measured):
    pairs = [(row["variance"], row["squared_gradient"]) for row in noise_rows(measured)]
    assert noise_of(measured) == ratio(pairs[4:])


def test_the_batch_is_a_fifth_of_the_noise_scale_grown_with_the_root_of_the_tokens(tiny):
    plan = replace(tiny, steps=10_000, warmup_steps=500)
    made = batch_from_noise(plan, NoiseScale(10_000.0, 500.0, 8), measured_on=plan.tokens / 4)
    assert made.tokens_per_step == pytest.approx(2 * 0.2 * 10_000, rel=0.02)
    assert made.batch_size % 8 == 0
    assert made.tokens == pytest.approx(plan.tokens, rel=0.02)
    assert made.warmup_steps == round(0.05 * made.steps)
    assert made.peak_lr == plan.peak_lr and made.prediction is None
    assert "10,000 +- 500" in " ".join(made.reasons)
    assert "Malladi et al. 2022" in " ".join(made.reasons)


def test_a_plan_keeps_a_hundred_steps_whatever_the_noise(tiny):
    plan = replace(tiny, steps=10_000, warmup_steps=500)
    made = batch_from_noise(plan, NoiseScale(1e9, 1e6, 8), plan.tokens)
    assert 95 <= made.steps <= 105


def test_plan_takes_the_batch_from_a_run(call, measured):
    code, out, err = call("plan", "--tokens", "1e8", "--noise-from", measured, "--json")
    assert code == 0, err
    plan = json.loads(out)
    expected = 0.2 * noise_of(measured).tokens * (1e8 / Plan.load(measured).tokens) ** 0.5
    tokens_per_step = plan["batch_size"] * plan["architecture"]["seq_len"]
    assert tokens_per_step == pytest.approx(min(expected, 1e8 / 100), abs=4 * plan["architecture"]["seq_len"])
    assert any(reason.startswith("batch: ") and "noise scale" in reason for reason in plan["reasons"])


def test_a_run_without_enough_measurements_is_refused_in_one_line(call, measured, tmp_path):
    run = tmp_path / "short"
    shutil.copytree(measured, run)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(line for line in lines if '"noise"' not in line) + "\n")
    for given, words in ((run, "0 times, 8 are needed"), (tmp_path / "none", "give a run folder")):
        code, out, err = call("plan", "--tokens", "1e9", "--noise-from", given)
        assert (code, out) == (MISTAKE, "")
        assert words in err and err.count("\n") == 1
