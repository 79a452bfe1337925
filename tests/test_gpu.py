"""What holds on a processor holds on a GPU: the same numbers but for rounding, and its own bits every time."""

import copy
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch.nn import functional as F

from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.generate.engine import Engine
from cerebras_gpt.generate.network import Network
from cerebras_gpt.generate.precision import prepared
from cerebras_gpt.generate.request import Request
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.flash import flash_serves
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.loss import summed_loss
from cerebras_gpt.plan.families import mup
from cerebras_gpt.plan.memory import peak_bytes
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import read_metrics
from cerebras_gpt.train.calibrate import Calibration, fastest, keep
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.feed import Feed
from cerebras_gpt.train.pretrain import pretrain
from cerebras_gpt.train.speed import Stopwatch, TrainingStep
from cerebras_gpt.train.trainer import Hook

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

SHAPE = Architecture(d_model=128, n_layers=3, n_heads=2, vocab_size=1000, seq_len=256)
PLAN = Plan("gpu", SHAPE, mup(SHAPE), 8, steps=30, warmup_steps=3, peak_lr=6e-3)
GREEDY, WARM = Sampling(temperature=0), Sampling(temperature=0.8, top_k=30, seed=11)
PLAIN = Execution("bfloat16", 2, "cuda")


def model_of(shape=SHAPE, seed=0):
    return initialize(GPT(shape, mup(shape)), torch.Generator().manual_seed(seed))


def gradients_of(execution, shape=SHAPE):
    model = execution.placed(model_of(shape))
    ids = torch.randint(shape.vocab_size, (8, shape.seq_len + 1), generator=torch.Generator().manual_seed(1))
    ids = ids.to(execution.device)
    loss = gradients(model, Batch(ids[:, :-1], ids[:, 1:]), execution, World())
    return loss.item(), [parameter.grad.cpu() for parameter in model.parameters()]


def far(ours, theirs):
    """Largest difference of a tensor, relative to its size."""
    return max(((a - b).norm() / b.norm().clamp_min(1e-9)).item() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("n_words", [1000, 5003, 50257])
def test_the_loss_and_its_gradients_are_those_of_torch(dtype, rounding, n_words):
    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(700, 64, device="cuda", generator=generator).to(dtype).requires_grad_()
    table = torch.randn(n_words, 64, device="cuda", generator=generator).mul(0.3).requires_grad_()
    targets = torch.randint(n_words, (700,), device="cuda", generator=generator)
    targets[::7] = -100
    loss = summed_loss(hidden, table, targets)
    loss.backward()
    x, w = hidden.detach().double().requires_grad_(), table.detach().to(dtype).double().requires_grad_()
    expected = F.cross_entropy(x @ w.T, targets, reduction="sum")
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=rounding)
    assert far([hidden.grad.double(), table.grad.double()], [x.grad, w.grad]) < rounding


@pytest.mark.parametrize(
    ("execution", "rounding"),
    [
        (Execution("float32", 4, "cuda"), 1e-4),
        (Execution("bfloat16", 4, "cuda"), 5e-2),
        (Execution("bfloat16", 4, "cuda", compiled=True), 5e-2),
        (Execution("bfloat16", 2, "cuda", compiled=True, recompute=True), 5e-2),
    ],
    ids=str,
)
def test_a_gpu_computes_the_gradients_of_a_processor(execution, rounding):
    loss, found = gradients_of(Execution("float32", 4))
    other_loss, others = gradients_of(execution)
    assert other_loss == pytest.approx(loss, rel=rounding)
    # A key's bias has gradient 0 but for rounding.
    assert far(
        [g for g in others if g.norm() > 1e-4], [g for g, o in zip(found, others, strict=True) if o.norm() > 1e-4]
    ) < (rounding)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_same_bits_every_time(compiled):
    shape = replace(SHAPE, seq_len=1024, vocab_size=50257)
    execution = replace(PLAIN, compiled=compiled)
    first, again = gradients_of(execution, shape), gradients_of(execution, shape)
    assert first[0] == again[0] and all(map(torch.equal, first[1], again[1]))


def test_one_compilation_serves_all_blocks():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    gradients_of(replace(PLAIN, compiled=True))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


class Killed(BaseException):
    """Stands for a process that ends in the middle of a step."""


@pytest.mark.parametrize("execution", [PLAIN, replace(PLAIN, compiled=True)], ids=["plain", "compiled"])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(tiny, data, tmp_path, execution):
    shape = Architecture(128, 2, 2, tiny.architecture.vocab_size, 64)
    plan = replace(PLAN, architecture=shape, parametrization=mup(shape), saves=6, evaluations=3)

    def run(name, *hooks):
        keep(Calibration(execution, 1.0, 1.0, 1.0), tmp_path / name)
        return pretrain(plan, data, tmp_path / name, World(), hooks)

    def breaks(trainer):
        if trainer.step == 17:
            raise Killed

    whole = [parameter.cpu() for parameter in run("whole").model.parameters()]
    with pytest.raises(Killed):
        run("killed", Hook(1, breaks))
    assert all(map(torch.equal, whole, [parameter.cpu() for parameter in run("killed").model.parameters()]))


def test_weights_in_the_memory_of_the_host_train_like_the_whole(tiny, data, tmp_path):
    shape = Architecture(128, 2, 2, tiny.architecture.vocab_size, 64)
    plan = replace(PLAN, architecture=shape, parametrization=mup(shape), steps=12)
    losses = []
    for offload in (False, True):
        run = tmp_path / str(offload)
        keep(Calibration(Execution("float32", 4, "cuda", offload=offload), 1.0, 1.0, 1.0), run)
        trainer = pretrain(plan, data, run, World())
        assert {p.device.type for p in trainer.model.parameters()} == {"cpu" if offload else "cuda"}
        losses.append([row["loss"] for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_flash_attention_agrees_where_it_is_installed():
    if find_spec("flash_attn") is not None:
        assert flash_serves(64) and flash_serves(128)


def test_batches_that_are_read_ahead_are_the_same_batches():
    class Numbers:
        def rows(self, step, rows):
            ids = torch.tensor([[1000 * step + row] for row in rows])
            return Batch(ids, ids + 1)

    feed = Feed(Numbers(), "cuda")
    for step, ahead in [(0, 1), (1, 2), (5, 6), (6, 7)]:  # a batch in between was left out
        assert feed.take(step, range(3)).ids.tolist() == [[1000 * step + row] for row in range(3)]
        feed.prepare(ahead, range(3))


def test_the_execution_is_chosen_among_those_that_fit():
    plan = replace(PLAN, steps=10**6)  # worth compiling
    found = fastest(plan, Stopwatch(0.05))
    assert found.execution.device == "cuda" and found.tokens_per_second > 0


@pytest.mark.parametrize("micro_batch_size", [4, 16])
def test_the_planned_memory_holds(micro_batch_size):
    shape = Architecture(768, 10, 12)
    plan = replace(PLAN, architecture=shape, parametrization=mup(shape), batch_size=micro_batch_size)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step = TrainingStep(plan, Execution("bfloat16", micro_batch_size, "cuda"))
    step.micro_batch()
    step.update()
    planned = peak_bytes(shape, micro_batch_size)
    assert 0.6 * planned < torch.cuda.max_memory_allocated() < planned


def network_of(model, weights="auto"):
    return prepared(copy.deepcopy(model), weights).make_network()


def finished(engine, requests):
    continuations = [engine.submit(request) for request in requests]
    while not engine.is_idle:
        engine.step()
    return [[(c.id, c.log_probability) for c in one.choices] for one in continuations]


def requests_of(n, n_new, sampling):
    chance = torch.Generator().manual_seed(3)
    lengths = [1 + 37 * i % 120 for i in range(n)]
    prompts = [torch.randint(1000, (length,), generator=chance).tolist() for length in lengths]
    return [Request(tuple(ids), n_new, sampling, i, n_top=0) for i, ids in enumerate(prompts)]


def test_greedy_tokens_are_those_of_a_processor():
    model = model_of()
    asked = requests_of(6, 80, GREEDY)
    ours = finished(Engine(network_of(model), 4), asked)
    theirs = finished(Engine(Network(model), 4), asked)
    assert [[token for token, _ in one] for one in ours] == [[token for token, _ in one] for one in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            torch.tensor([p for _, p in mine]), torch.tensor([p for _, p in other]), atol=1e-3, rtol=1e-3
        )


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
def test_a_sequence_has_the_same_bits_alone_and_among_others(weights, sampling):
    network, asked = network_of(model_of(), weights), requests_of(40, 60, sampling)
    together = finished(Engine(network, 16), asked)
    for i in (0, 7, 23, 39):
        assert finished(Engine(network, 1, 200), [asked[i]]) == [together[i]]


def test_a_known_beginning_changes_no_bit():
    network = network_of(model_of(), "bfloat16")
    first, *_ = requests_of(1, 1, GREEDY)
    long = replace(first, ids=tuple(n * 7 % 1000 for n in range(150)), max_tokens=40)
    other = replace(long, ids=(*long.ids[:100], *range(70)))
    engine = Engine(network, 2)
    fresh = finished(Engine(network, 2), [other])
    finished(engine, [long])
    assert finished(engine, [other]) == fresh and engine.cache.pages


def test_one_graph_serves_every_cache():
    network = network_of(model_of(), "bfloat16")
    asked = requests_of(3, 20, GREEDY)
    first = finished(Engine(network, 3), asked)
    graph = network._following._graph
    assert finished(Engine(network, 8, 180), asked) == first and network._following._graph is graph
