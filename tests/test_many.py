"""Real processes over gloo: as many as there are, stopped or killed, they train the same run to the same bits."""

import hashlib
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
import torch.distributed.fsdp  # here once, not in every forked process

from cerebras_gpt import checkpoint
from cerebras_gpt.checkpoint.tensors import load_tensors, take_part
from cerebras_gpt.distributed import World, fill, fold_tree, joined, whole
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import mup
from cerebras_gpt.record import read_metrics
from cerebras_gpt.train import sharding
from cerebras_gpt.train.calibrate import Calibration, keep
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.optim import optimizer, state_tensors, weights
from cerebras_gpt.train.pretrain import pretrain
from cerebras_gpt.train.sharding import gathered_bytes, new_model, sharded_execution
from cerebras_gpt.train.trainer import Hook

EXECUTION = Execution("bfloat16", 1)
EXACT = Execution("float32", 1)
TIMED = {"tokens_per_second", "flops_share", "seconds"}
FORK = multiprocessing.get_context("fork")


def as_rank(rank, size, port, job, *arguments):
    place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_PORT=str(port))
    with joined(60) as world:
        job(world, *arguments)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(size, job, *arguments):
    """Starts a job on so many processes, as torchrun would."""
    port = free_port()
    processes = [FORK.Process(target=as_rank, args=(rank, size, port, job, *arguments)) for rank in range(size)]
    for process in processes:
        process.start()
    return processes


def end(processes):
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def train(world, plan, data, run):
    pretrain(plan, data, run, world)


def killed_after(step, size, plan, data, run):
    """A run whose processes all die by kill -9 once the step is done."""
    processes = start(size, train, plan, data, run)
    while steps_done(run) < step:
        assert any(process.is_alive() for process in processes)
        time.sleep(0.005)
    for process in processes:
        process.kill()
        process.join()


def steps_done(run):
    return max((int(row["step"]) for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"), default=0)


def begun(run, execution):
    keep(Calibration(execution, 1.0, 1.0, 1.0), run)
    return run


def hashes(run):
    path = checkpoint.resolve(run)
    names = ("model.safetensors", "optimizer.safetensors")
    return [hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names]


def figures(run):
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] in ("train", "held_out")]
    return [{key: value for key, value in row.items() if key not in TIMED} for row in rows]


@pytest.fixture(scope="module")
def plan(tiny):
    return replace(tiny, batch_size=6, steps=30, saves=15, evaluations=3)


@pytest.fixture(scope="module")
def alone(plan, data, tmp_path_factory):
    """The run of one process that nothing disturbed."""
    run = begun(tmp_path_factory.mktemp("alone") / "run", EXECUTION)
    end(start(1, train, plan, data, run))
    return run


@pytest.mark.parametrize("n_rows", range(1, 14))
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_every_row_has_one_process_and_parts_are_whole_micro_batches(n_rows, size):
    execution = Execution(micro_batch_size=2)
    rows = [row for rank in range(size) for row in execution.rows(n_rows, World(rank, size))]
    assert rows == list(range(n_rows))
    assert all(part.start % 2 == 0 for part in execution.parts_of(n_rows, World(0, size)) if part)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
def test_branches_of_the_tree_add_up_to_the_bits_of_the_whole(n):
    values = [torch.randn(5, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    whole_sum = fold_tree(range(8), lambda i: [values[i].clone()])
    for size in (2, 4, 8):
        branches = [World(rank, size).block(range(8)) for rank in range(size)]
        sums = [fold_tree(branch, lambda i: [values[i].clone()]) for branch in branches]
        assert torch.equal(fold_tree(range(size), lambda rank, sums=sums: sums[rank])[0], whole_sum[0])
    assert fold_tree(range(n), lambda i: None) is None


def test_one_two_one_processes_killed_between_equal_one_to_the_last_bit(tmp_path, plan, data, alone):
    run = begun(tmp_path / "run", EXECUTION)
    killed_after(7, 1, plan, data, run)
    killed_after(17, 2, plan, data, run)
    end(start(1, train, plan, data, run))
    assert hashes(run) == hashes(alone)
    assert figures(run) == figures(alone)


def test_two_verbs_end_well_and_give_the_bits_of_one(tmp_path, plan, data, alone):
    run = begun(tmp_path / "run", EXECUTION)
    (tmp_path / "plan.json").write_text(plan.to_json())
    verb = ["pretrain", str(tmp_path / "plan.json"), "--data", str(data), "--out", str(run)]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([sys.executable, "-m", "cerebras_gpt", *verb], env={**os.environ, **place, "RANK": rank})
        for rank in "01"
    ]
    assert [process.wait(120) for process in both] == [0, 0]
    assert hashes(run) == hashes(alone)


def test_four_processes_equal_one_to_the_last_bit(tmp_path, plan, data, alone):
    run = begun(tmp_path / "run", EXECUTION)
    end(start(4, train, plan, data, run))
    assert hashes(run) == hashes(alone)
    assert figures(run) == figures(alone)


def test_shares_train_like_the_whole_and_go_on_as_the_whole(tmp_path, plan, data):
    run, reference = begun(tmp_path / "run", replace(EXACT, shards=2)), begun(tmp_path / "whole", EXACT)
    end(start(1, train, plan, data, reference))
    killed_after(12, 2, plan, data, run)
    end(start(1, train, plan, data, run))
    losses = zip(*([row["loss"] for row in figures(path)] for path in (reference, run)), strict=True)
    gaps = [abs(ours / theirs - 1) for ours, theirs in losses]
    assert max(gaps[:10]) < 1e-6
    assert max(gaps) < 1e-4


def test_weights_in_the_memory_of_the_host_train_like_the_whole(tmp_path, plan, data):
    run, reference = begun(tmp_path / "run", replace(EXACT, offload=True)), begun(tmp_path / "whole", EXACT)
    end(start(1, train, plan, data, reference))
    killed_after(12, 1, plan, data, run)
    end(start(1, train, plan, data, run))
    losses = zip(*([row["loss"] for row in figures(path)] for path in (reference, run)), strict=True)
    assert max(abs(ours / theirs - 1) for ours, theirs in losses) < 1e-4


def reshard(world, plan, source, target):
    """Reads a checkpoint into shares of this world, or whole, and writes it again."""
    model = new_model(plan, replace(EXECUTION, shards=world.size))
    adamw = optimizer(model, plan)
    tensors = {"model.safetensors": weights(model), "optimizer.safetensors": state_tensors(adamw, model)}
    for name, named in tensors.items():
        load_tensors(source / name, named, world)
    if world.is_main:
        checkpoint.save(target, 1, {}, tensors)
    else:
        take_part(tensors)


def on_a_full_disk(world, plan, data, run):
    pretrain(plan, data, run, world, [Hook(1, refuses_one_save)])


def refuses_one_save(trainer):
    """Files may not grow for as long as one regular save takes; only the first process calls hooks."""
    n_bytes = 4096 if trainer.step == trainer.every else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def test_a_save_that_the_disk_refuses_keeps_no_share_waiting(tmp_path, plan, data):
    run, reference = (begun(tmp_path / name, replace(EXACT, shards=2)) for name in ("run", "reference"))
    end(start(2, train, plan, data, reference))
    end(start(2, on_a_full_disk, plan, data, run))
    assert any(row["kind"] == "save_failed" for row in read_metrics(run / "metrics.jsonl"))
    assert hashes(run) == hashes(reference)
    assert figures(run) == figures(reference)


def test_a_circle_of_reshards_gives_every_tensor_back(tmp_path, plan, alone):
    source = checkpoint.resolve(alone)
    for place, size in enumerate((2, 1, 4, 2, 1)):
        target = tmp_path / str(place)
        end(start(size, reshard, plan, source, target))
        source = checkpoint.resolve(target)
    assert hashes(source) == hashes(alone)


def begins_equal(world, plan):
    shares = new_model(plan, replace(EXECUTION, shards=world.size))
    generator = torch.Generator().manual_seed(plan.seed)
    for theirs, ours in zip(
        initialize(GPT(plan.architecture, plan.parametrization), generator).parameters(),
        shares.parameters(),
        strict=True,
    ):
        assert torch.equal(whole(ours.detach()), theirs)
        if ours.to_local().numel():
            assert ours.to_local().numel() < ours.numel()


def test_shares_begin_from_the_bits_of_the_whole(plan):
    end(start(2, begins_equal, plan))


def test_a_whole_tensor_is_filled_whole():
    tensor = torch.zeros(3)
    fill(tensor, torch.arange(3.0))
    assert whole(tensor).tolist() == [0, 1, 2]


def test_shares_are_chosen_only_where_the_model_does_not_fit(plan):
    assert sharded_execution(plan, 2**40, World(0, 2), "cpu") is None
    shape = replace(plan.architecture, d_model=2048, n_heads=16, n_layers=24, vocab_size=50257)
    large = replace(plan, architecture=shape, parametrization=mup(shape))
    assert sharded_execution(large, 20 * 10**9, World(0, 2), "cpu").shards == 2
    with pytest.raises(ValueError, match="in 2 shares needs"):
        sharded_execution(large, 10**9, World(0, 2), "cpu")


def test_a_gpu_that_is_too_small_leaves_weights_with_the_host(plan, monkeypatch):
    shape = replace(plan.architecture, d_model=2048, n_heads=16, n_layers=24, vocab_size=50257)
    large = replace(plan, architecture=shape, parametrization=mup(shape))
    monkeypatch.setattr(sharding, "memory_at_hand", lambda: 40 * 10**9)
    assert sharded_execution(large, 60 * 10**9, World(), "cuda") is None
    found = sharded_execution(large, 10 * 10**9, World(), "cuda")
    assert found is not None and found.offload and found.is_sharded
    assert gathered_bytes(shape, found.micro_batch_size, 2, found.recompute) <= 10 * 10**9
    for on_host, device in ((10 * 10**9, "cuda"), (40 * 10**9, "cpu")):
        monkeypatch.setattr(sharding, "memory_at_hand", lambda n_bytes=on_host: n_bytes)
        with pytest.raises(ValueError, match="too little memory"):
            sharded_execution(large, 10 * 10**9, World(), device)
