import copy
import ctypes
import logging
import random

import pytest
import torch

from cerebras_gpt import compiled
from cerebras_gpt.generate.engine import Engine, generate_ids
from cerebras_gpt.generate.kernel import LargePages, input_floats, kernel, packed, round_in_place
from cerebras_gpt.generate.kernel_network import KernelNetwork
from cerebras_gpt.generate.network import Network
from cerebras_gpt.generate.precision import Prepared, precision, prepared, reduce
from cerebras_gpt.generate.request import Choice, Request
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.generate.weights import KINDS, SMALLEST, Kind, filled, rounded
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization

GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=0.9, top_k=40, seed=5)
PROMPTS = [[5, 17, 3], [40], [8, 8, 2, 60, 31, 9, 22, 1] * 9, [11, 12]]
OF_INPUTS = {"float32": 1e-6, "bfloat16": 3e-3, "int8": 8e-3, "int4": 8e-3}
"""What rounding the inputs of a product costs, as a part of its root mean square."""
SHAPES = {
    "plain": (Architecture(32, 2, 2, 61, 256), Parametrization(2, 16, base_init_std=0.3)),
    "mup": (
        Architecture(60, 2, 6, 61, 256, ffn_multiple=2.5, activation="gelu_new"),
        Parametrization(2, 10, 2.0, base_init_std=0.3, embedding_scale=2.0, attention_power=1.0),
    ),
    "untied": (
        Architecture(48, 2, 3, 100, 128, activation="relu", tied=False, d_embedding=20),
        Parametrization(2, 16, base_init_std=0.2, depth_multiplier=2.0),
    ),
}


def random_model(name: str = "plain", seed: int = 0) -> GPT:
    generator = torch.Generator().manual_seed(seed)
    model = initialize(GPT(*SHAPES[name]), generator).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def has_compiler() -> bool:
    return any(compiled.shutil.which(name) for name in compiled.COMPILERS)


def continued(network: Network, prompts: list[list[int]], sampling: Sampling, n: int = 24) -> list[list[int]]:
    steps = list(generate_ids(network, prompts, sampling, n))
    return [[step[i] for step in steps if step[i] is not None] for i in range(len(prompts))]


def answered(engine: Engine, requests: list[Request]) -> list[list[Choice]]:
    """What follows each, all submitted at once."""
    made = [engine.submit(request) for request in requests]
    while not engine.is_idle:
        engine.step()
    return [continuation.choices for continuation in made]


@torch.inference_mode()
def read(network: Network, ids: list[int]) -> torch.Tensor:
    """Logits of a text, the first part read as a prompt, the rest token by token: (T, V)."""
    cache, found = network.slots(3, len(ids)), []
    n = len(ids) - 5
    for start in range(0, n, 64):
        rows = network.prefill(ids[start : min(start + 64, n)], 1, start)
        found.append(network.logits(network.hidden(rows, cache))[: min(64, n - start)])
    for position in range(n, len(ids)):
        rows = network.decode([ids[position]], [1], [position])
        found.append(network.logits(network.hidden(rows, cache))[:1])
    return torch.cat(found)


@torch.inference_mode()
def pieces(network: Network, ids: list[int], lengths: list[int]) -> torch.Tensor:
    """Final states of a text that is read in pieces of these lengths: (T, C)."""
    cache, found, start = network.slots(2, len(ids)), [], 0
    for length in lengths:
        found.append(network.hidden(network.prefill(ids[start : start + length], 1, start), cache))
        start += length
    assert start == len(ids)
    return torch.cat(found)


def product(library: ctypes.CDLL, weight: torch.Tensor, x: torch.Tensor, kind: Kind, n_threads: int) -> torch.Tensor:
    """x times the packed weight: (N, n_in), (n_out, n_in) -> (N, n_out)."""
    (told, _kept), work = packed(LargePages(library), weight, kind), torch.empty(input_floats(*x.shape))
    y = torch.full((len(x), len(weight)), torch.nan)
    addresses = [tensor.data_ptr() for tensor in (x, work, y)]
    library.product(ctypes.addressof(told), *x.shape, *addresses, n_threads)
    return y


@pytest.fixture(scope="module")
def plain_kernel(tmp_path_factory) -> ctypes.CDLL:
    """The kernel for any processor of this kind, with the instructions that all of them have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("plain")))
        patch.setattr(compiled, "FLAGS", tuple(flag for flag in compiled.FLAGS if flag != "-march=native"))
        kernel.cache_clear()
        made = kernel()
    kernel.cache_clear()
    assert made is not None
    return made


@pytest.mark.parametrize("kind, largest, mean", [("int8", 0.5 / 127 + 1e-3, 0.008), ("int4", 0.24, 0.12)])
def test_how_far_rounding_moves_a_number(kind, largest, mean):
    weight = torch.randn(50, 100, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 50)[:, None]
    groups = filled(weight).view(50, -1, 32)
    moved = (filled(rounded(weight, kind)).view(50, -1, 32) - groups).abs()
    # The scale's own rounding (2^-9), half a step, and of int4 what the least squared error clips.
    assert (moved.amax(-1) <= groups.abs().amax(-1) * largest).all()
    assert (moved.square().mean((1, 2)) < mean**2 * groups.square().mean((1, 2))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_again_changes_nothing(kind):
    once = rounded(torch.randn(33, 70, generator=torch.Generator().manual_seed(1)), kind)
    assert torch.equal(rounded(once, kind), once)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_zeros_stay_and_so_does_a_number_alone_but_for_its_scale(kind):
    weight = torch.zeros(3, 64)
    weight[1, 5] = 0.75
    torch.testing.assert_close(rounded(weight, kind), weight, rtol=2**-8, atol=0)


@pytest.mark.skipif(not has_compiler(), reason="this machine has no C++ compiler")
class TestKernel:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_product_is_torchs_for_all_numbers_of_rows_and_each_row_its_own(self, kind):
        generator = torch.Generator().manual_seed(2)
        weight, x = torch.randn(117, 75, generator=generator), torch.randn(131, 75, generator=generator)
        expected = x @ rounded(weight, kind).T
        every = product(kernel(), weight, x, kind, 1)
        assert (every - expected).square().mean().sqrt() < OF_INPUTS[kind] * expected.square().mean().sqrt()
        for n in (*range(1, 20), 40, 64):
            assert torch.equal(product(kernel(), weight, x[:n], kind, 1 + n % 2), every[:n])

    @pytest.mark.parametrize("kind", SMALLEST)
    def test_the_kernel_rounds_weights_as_torch_does(self, kind):
        scales = torch.logspace(-6, 3, 50)[:, None]
        weight = torch.randn(50, 100, generator=torch.Generator().manual_seed(7)) * scales
        weight[3], weight[4, 32:64] = 0, 0
        weight[5, :8] = torch.tensor([0.5, -0.5, 1.5, 2.5, -8, 8, -127, 127])
        expected = rounded(weight, kind)
        round_in_place(kernel(), weight, kind)
        assert torch.equal(weight, expected)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_processor_without_long_vectors_computes_the_same_but_for_rounding(self, kind, plain_kernel):
        generator = torch.Generator().manual_seed(5)
        weight, x = torch.randn(53, 96, generator=generator), torch.randn(11, 96, generator=generator)
        plain = product(plain_kernel, weight, x, kind, 1)
        torch.testing.assert_close(plain, product(kernel(), weight, x, kind, 1), rtol=1e-5, atol=1e-5)
        assert torch.equal(product(plain_kernel, weight, x[:1], kind, 1), plain[:1])

    @pytest.mark.parametrize("name", SHAPES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_prompt_read_in_any_pieces_gives_the_same_bits(self, name, kind):
        network = prepared(random_model(name), kind).make_network()
        n = min(network.architecture.seq_len, 200)
        ids = torch.randint(61, (n,), generator=torch.Generator().manual_seed(6)).tolist()
        expected = pieces(network, ids, [1] * n)
        for lengths in ([64, 64, n - 128], [128, n - 128], [3, 1, 17, 40, n - 61], [100, *[1] * (n - 100)]):
            assert torch.equal(pieces(network, ids, [length for length in lengths if length]), expected)

    def test_reading_leaves_the_same_past_as_computing_everything(self):
        network = prepared(random_model(), "int4").make_network()
        rows, read, computed = network.prefill([*range(60)], 0, 0), network.slots(2, 64), network.slots(2, 64)
        network.hidden(rows, computed)
        network.read(rows, read)
        assert torch.equal(read.kv, computed.kv) and bool(read.kv.any())

    @pytest.mark.parametrize("name", SHAPES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_kernel_computes_what_torch_computes_with_the_rounded_weights(self, name, kind):
        made = prepared(random_model(name), kind)
        network = made.make_network()
        assert isinstance(network, KernelNetwork)
        ids = torch.randint(61, (101,), generator=torch.Generator().manual_seed(3)).tolist()
        expected = read(Network(made.model), ids)
        error = (read(network, ids) - expected).norm() / expected.norm()
        assert error < {"float32": 3e-6, "bfloat16": 0.02, "int8": 0.05, "int4": 0.05}[kind]

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
    def test_a_batch_on_the_kernel_equals_each_prompt_alone(self, kind, sampling):
        network = prepared(random_model(), kind).make_network()
        alone = [
            continued(network, [prompt], Sampling(**{**vars(sampling), "seed": sampling.seed + i}))[0]
            for i, prompt in enumerate(PROMPTS)
        ]
        assert continued(network, PROMPTS, sampling) == alone

    @pytest.mark.parametrize("kind", KINDS)
    def test_prompts_read_together_beside_new_tokens_give_the_bits_of_each_alone(self, kind):
        network = prepared(random_model(), kind).make_network()
        choose = random.Random(2)
        prompts = [tuple(choose.choices(range(61), k=choose.choice([1, 30, 64, 100, 200]))) for _ in range(40)]
        requests = [Request(ids, choose.randint(1, 9), GREEDY, n_top=2) for ids in prompts]
        alone = [answered(Engine(network, 1), [request])[0] for request in requests]
        assert answered(Engine(network, 16), requests) == alone

    def test_rows_keep_their_bits_among_any_others(self):
        network = prepared(random_model(), "int8").make_network()
        generator = torch.Generator().manual_seed(4)
        cache = network.slots(16, 128)
        cache.kv.copy_(torch.randn(cache.kv.shape, generator=generator))
        many = network.logits(network.hidden(network.decode([*range(16)], range(16), [*range(60, 76)]), cache))
        for row in range(16):
            one = network.decode([row], [row], [60 + row])
            assert torch.equal(network.logits(network.hidden(one, cache))[0], many[row])

    def test_scores_that_are_not_finite_are_passed_on(self):
        model = random_model()
        with torch.no_grad():
            model.blocks[0].feed_forward.up.bias[3] = torch.inf
        for kind in KINDS:
            with pytest.raises(ValueError, match="not finite"):
                continued(prepared(copy.deepcopy(model), kind).make_network(), [[1, 2]], GREEDY)

    def test_the_fastest_is_one_of_the_kinds_and_leaves_the_given_model(self):
        model = random_model()
        before = copy.deepcopy(model.state_dict())
        made = prepared(model, "fastest")
        assert made.kind in KINDS and isinstance(made.make_network(), KernelNetwork)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.skipif(not has_compiler(), reason="this machine has no C++ compiler")
def test_auto_is_float32_on_the_kernel_where_that_is_faster_and_fits(monkeypatch):
    model, ids = random_model(), [*range(60)]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    network = prepared(model, "auto").make_network()
    assert isinstance(network, KernelNetwork) and network.kind == "float32"
    torch.testing.assert_close(read(network, ids), read(Network(model), ids), rtol=1e-4, atol=1e-4)
    monkeypatch.setattr("cerebras_gpt.generate.precision.memory_at_hand", lambda: 4 * model.architecture.n_parameters)
    assert not isinstance(prepared(model, "auto").make_network(), KernelNetwork)
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not isinstance(prepared(model, "auto").make_network(), KernelNetwork)


def test_auto_says_nothing_where_there_is_no_compiler(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    with caplog.at_level(logging.WARNING, "cerebras_gpt"):
        assert not isinstance(prepared(random_model(), "auto").make_network(), KernelNetwork)
    assert not caplog.records


@pytest.mark.parametrize("weights", ["int8", "fastest"])
def test_without_a_compiler_torch_computes_the_same_weights(weights, monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    kernel.cache_clear()
    with caplog.at_level(logging.WARNING, "cerebras_gpt"):
        made: Prepared = prepared(random_model(), weights)
        network = made.make_network()
        texts = continued(network, PROMPTS, GREEDY)
    kernel.cache_clear()
    assert "C++ compiler" in caplog.text and len(caplog.records) == 1
    expected = random_model()
    reduce(expected, made.kind)
    assert texts == continued(Network(expected), PROMPTS, GREEDY)


def test_a_build_that_fails_is_told_in_one_line(monkeypatch, tmp_path, caplog):
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'error: no space' >&2\nexit 1\n", "utf-8")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    kernel.cache_clear()
    assert kernel() is None
    kernel.cache_clear()
    assert [record.getMessage().count("\n") for record in caplog.records] == [0]
    assert "no space" in caplog.text


def test_an_unknown_precision_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown weights 'int3'"):
        precision("int3")
