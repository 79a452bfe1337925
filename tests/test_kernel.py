import copy
import logging

import pytest
import torch

from cerebras_gpt import compiled
from cerebras_gpt.generate.engine import generate_ids
from cerebras_gpt.generate.kernel import input_floats, kernel, linear
from cerebras_gpt.generate.kernel_network import KernelNetwork
from cerebras_gpt.generate.network import Network
from cerebras_gpt.generate.precision import Prepared, precision, prepared, reduce
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.generate.weights import KINDS, filled, pack, quantise, rounded
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
        weight, x = torch.randn(37, 75, generator=generator), torch.randn(19, 75, generator=generator)
        packed = pack(quantise(weight, kind) if kind.startswith("int") else filled(weight), kind)
        told, work = linear(packed, kind, 75, 37), torch.empty(input_floats(19, 75))
        expected = x @ rounded(weight, kind).T
        alone: list[torch.Tensor] = []
        for n in (*range(1, 10), 19):
            y = torch.full((n, 37), torch.nan)
            kernel().product(
                compiled.ctypes.addressof(told), n, 75, x.data_ptr(), work.data_ptr(), y.data_ptr(), 1 + n % 2
            )
            assert (y - expected[:n]).square().mean().sqrt() < OF_INPUTS[kind] * expected.square().mean().sqrt()
            alone = alone or [y[0]]
            assert torch.equal(y[0], alone[0])

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
