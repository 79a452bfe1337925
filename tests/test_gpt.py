import copy
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import ACTIVATIONS, GPT, initialize, roles
from cerebras_gpt.model.parametrization import ROLES, TRUNCATION, Parametrization
from cerebras_gpt.plan.families import Base, completep, mup, standard
from cerebras_gpt.plan.sizes import small_architecture

TRUNCATED_STD = 0.8796  # of a unit normal cut at 2 standard deviations
TINY = Architecture(8, 2, 2, vocab_size=11, seq_len=6)
SMALL = Architecture(64, 3, 4, vocab_size=101, seq_len=32)
UNTIED = replace(SMALL, tied=False)
NARROW = replace(UNTIED, d_embedding=24)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small networks run faster on one thread, above all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(shape: Architecture, table: Parametrization | None = None, seed: int = 0) -> GPT:
    return initialize(GPT(shape, table or standard(shape)), torch.Generator().manual_seed(seed))


def tokens(shape: Architecture, batch_size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(shape.vocab_size, (batch_size, shape.seq_len), generator=generator)  # (B, T)


def lively(shape: Architecture) -> Parametrization:
    """Weights large enough that attention and activations are far from linear, and every scale differs from 1."""
    return mup(shape, Base(d_model=4, init_std=0.7, embedding_scale=2.0, output_alpha=3.0))


def loss_of(model: GPT, ids: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def test_roles_yield_every_parameter_exactly_once():
    model = network(SMALL)
    found = list(roles(model))
    assert sorted(item.name for item in found) == sorted(name for name, _ in model.named_parameters())
    assert {id(item.parameter) for item in found} == {id(parameter) for parameter in model.parameters()}
    assert {item.role for item in found} == set(ROLES)


def test_roles_go_to_the_right_tensors():
    role = {item.name: item.role for item in roles(network(SMALL))}
    assert role["token_embedding.weight"] == role["position_embedding.weight"] == "embedding"
    assert role["blocks.0.attention.qkv.weight"] == role["blocks.2.feed_forward.up.weight"] == "hidden"
    assert role["blocks.1.attention.out.weight"] == role["blocks.1.feed_forward.down.weight"] == "residual_out"
    assert role["blocks.0.attention.qkv.bias"] == role["blocks.0.feed_forward.down.bias"] == "bias"
    assert role["norm.weight"] == role["norm.bias"] == role["blocks.0.norm_attention.bias"] == "norm"


def test_roles_survive_a_copy_and_an_assigning_load():
    model = network(SMALL)
    other = copy.deepcopy(model)
    other.load_state_dict(model.state_dict(), assign=True)
    assert [(item.name, item.role) for item in roles(other)] == [(item.name, item.role) for item in roles(model)]


@pytest.mark.parametrize("family", [standard, mup])
def test_weights_start_with_the_std_of_the_table(family):
    shape = small_architecture(256, vocab_size=300, seq_len=256)
    model = network(shape, family(shape))
    for name, parameter, role in roles(model):
        std = model.parametrization.row(role).init_std
        values = parameter.detach()
        if std:
            assert values.std().item() == pytest.approx(TRUNCATED_STD * std, rel=0.02), name
            assert values.abs().max().item() <= TRUNCATION * std * (1 + 1e-6), name
            assert abs(values.mean().item()) < 0.02 * std, name


def test_biases_start_at_zero_and_norms_at_one():
    for name, parameter, role in roles(network(SMALL)):
        if role in ("bias", "norm"):
            expected = 1.0 if role == "norm" and name.endswith("weight") else 0.0
            assert parameter.unique().tolist() == [expected], name


def test_a_seed_fixes_the_weights():
    one, same, other = (network(SMALL, seed=seed) for seed in (1, 1, 2))
    for (name, a), b, c in zip(one.named_parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.unique().numel() == 1 or not torch.equal(a, c), name


def test_mup_at_multiplier_one_is_the_standard_parametrization():
    neutral = mup(SMALL, Base(SMALL.d_model))
    neutral = replace(neutral, attention_power=0.5)
    assert neutral == standard(SMALL)
    ids = tokens(SMALL, 3)
    assert torch.equal(network(SMALL, neutral)(ids), network(SMALL, standard(SMALL))(ids))


def test_the_forward_scales_act_where_the_paper_says():
    model, ids = network(SMALL, lively(SMALL)), tokens(SMALL, 2)
    table = model.parametrization
    folded = copy.deepcopy(model)
    folded.parametrization = replace(table, embedding_scale=1.0, output_alpha=table.width_multiplier)  # logit scale 1
    with torch.no_grad():
        folded.token_embedding.weight *= table.embedding_scale
        folded.position_embedding.weight *= table.embedding_scale
        folded.norm.weight *= table.logit_scale / table.embedding_scale
        folded.norm.bias *= table.logit_scale / table.embedding_scale
    assert torch.allclose(folded(ids), model(ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("seq_len", "position"), [(32, 1), (32, 5), (32, 31), (600, 37), (600, 513)])
def test_later_tokens_do_not_change_earlier_logits_by_a_bit(seq_len, position):
    shape = replace(SMALL, seq_len=seq_len)
    model, ids = network(shape, lively(shape)), tokens(shape, 2)
    changed = ids.clone()
    changed[:, position:] = (ids[:, position:] + 1) % shape.vocab_size
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :position], after[:, :position])
    assert not torch.equal(before[:, position], after[:, position])


def test_earlier_tokens_and_their_order_count():
    model, ids = network(SMALL, lively(SMALL)), tokens(SMALL, 1)
    swapped = ids.clone()
    swapped[0, 0], swapped[0, 1] = ids[0, 1], ids[0, 0]
    assert ids[0, 0] != ids[0, 1]
    assert not torch.allclose(model(ids)[:, -1], model(swapped)[:, -1])


def test_a_shorter_input_gives_the_first_logits_of_a_longer_one():
    model, ids = network(SMALL, lively(SMALL)), tokens(SMALL, 2)
    for T in (1, 2, 17):
        assert torch.allclose(model(ids[:, :T]), model(ids)[:, :T], rtol=1e-4, atol=1e-5)


def test_sequences_of_a_batch_do_not_see_each_other():
    model, ids = network(SMALL, lively(SMALL)), tokens(SMALL, 3)
    assert torch.allclose(model(ids[1:2]), model(ids)[1:2], rtol=1e-4, atol=1e-5)


def test_the_first_loss_is_that_of_guessing():
    shape = small_architecture(256, vocab_size=8192, seq_len=64)
    with torch.no_grad():
        assert loss_of(network(shape), tokens(shape, 4)).item() == pytest.approx(math.log(8192), rel=0.02)


def attention_by_hand(x: torch.Tensor, block: torch.nn.Module, n_heads: int, scale: float) -> torch.Tensor:
    B, T, C = x.shape
    q, k, v = (block.qkv(x)[..., i * C : (i + 1) * C].view(B, T, n_heads, -1) for i in range(3))  # (B, T, H, D)
    out = torch.zeros(B, T, n_heads, C // n_heads, dtype=x.dtype)
    for t in range(T):
        scores = torch.einsum("bhd,bshd->bhs", q[:, t], k[:, : t + 1]) * scale  # (B, H, t + 1)
        out[:, t] = torch.einsum("bhs,bshd->bhd", scores.softmax(-1), v[:, : t + 1])  # (B, H, D)
    return block.out(out.reshape(B, T, C))


@pytest.mark.parametrize("family", [standard, lively])
def test_attention_is_the_textbook_sum(family):
    model = network(SMALL, family(SMALL)).double()
    attention = model.blocks[0].attention
    x = torch.randn(2, 9, SMALL.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = attention_by_hand(x, attention, SMALL.n_heads, model.parametrization.attention_scale)
    assert torch.allclose(attention(x), expected, rtol=1e-10, atol=1e-12)


ACTIVATIONS_BY_HAND = {
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_new": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: max(x, 0.0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_follow_their_formulas(name):
    x = torch.linspace(-5, 5, 41, dtype=torch.float64)
    expected = torch.tensor([ACTIVATIONS_BY_HAND[name](value) for value in x.tolist()], dtype=torch.float64)
    assert torch.allclose(ACTIVATIONS[name](x), expected, rtol=1e-9, atol=1e-12)


def test_the_activation_is_the_one_asked_for():
    ids = tokens(TINY, 2)
    logits = [network(shape, lively(shape))(ids) for shape in (replace(TINY, activation=name) for name in ACTIVATIONS)]
    assert not torch.allclose(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_central_differences(activation):
    shape, step = replace(TINY, activation=activation), 1e-6
    model = network(shape, lively(shape)).double()
    ids = tokens(shape, 2)
    loss_of(model, ids).backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter, _ in roles(model):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            parameter += step * direction
            above = loss_of(model, ids)
            parameter -= 2 * step * direction
            below = loss_of(model, ids)
            parameter += step * direction
        expected = (above - below) / (2 * step)
        assert (parameter.grad * direction).sum().item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("shape", [SMALL, UNTIED, NARROW], ids=["tied", "untied", "narrow"])
def test_every_parameter_learns(shape):
    model = network(shape, lively(shape))
    loss_of(model, tokens(shape, 2)).backward()
    for name, parameter, _ in roles(model):
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_few_steps_learn_a_batch_by_heart():
    model, ids = network(SMALL), tokens(SMALL, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        loss = loss_of(model, ids)
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.0


def test_an_untied_head_is_a_table_of_its_own():
    ids = tokens(SMALL, 2)
    model = network(UNTIED, lively(UNTIED))
    loss_of(model, ids).backward()
    table, head = model.token_embedding.weight, model.head_table
    assert head is model.head.weight and head.data_ptr() != table.data_ptr()
    unseen = [token for token in range(SMALL.vocab_size) if token not in ids[:, :-1]]
    assert not table.grad[unseen].any()  # only rows that were read
    assert head.grad.abs().amax(1).min() > 0  # a probability for every token


def test_a_tied_head_is_the_token_table():
    model = network(SMALL, lively(SMALL))
    assert model.head is None and model.head_table is model.token_embedding.weight


@pytest.mark.parametrize("tied", [True, False])
def test_a_table_as_wide_as_the_network_is_no_other_network(tied):
    plain = replace(SMALL, tied=tied)
    same = replace(plain, d_embedding=SMALL.d_model)
    one, other = network(plain, lively(plain)), network(same, lively(same))
    assert [name for name, _ in one.named_parameters()] == [name for name, _ in other.named_parameters()]
    assert not any(name.startswith("projection") for name, _ in other.named_parameters())
    assert torch.equal(one(tokens(SMALL, 2)), other(tokens(SMALL, 2)))


def test_one_projection_maps_the_sum_of_narrow_tables():
    model, ids = network(NARROW, lively(NARROW)), tokens(NARROW, 2)
    assert {item.name: item.role for item in roles(model)}["projection.weight"] == "embedding"
    assert model.projection.bias is None
    table = model.token_embedding.weight[ids] + model.position_embedding.weight[: NARROW.seq_len]  # (B, T, E)
    x = table @ model.projection.weight.T * model.parametrization.embedding_scale  # (B, T, C)
    for block in model.blocks:
        x = block(x)
    expected = model.logits(model.norm(x) * model.parametrization.logit_scale)
    assert torch.allclose(model(ids), expected, rtol=1e-4, atol=1e-5)


def test_the_residual_scale_multiplies_both_branches():
    table = replace(lively(SMALL), depth_multiplier=4.0)
    model = network(SMALL, table)
    block, x = model.blocks[1], torch.randn(2, 5, SMALL.d_model, generator=torch.Generator().manual_seed(0))
    half_way = x + 0.25 * block.attention(block.norm_attention(x))
    expected = half_way + 0.25 * block.feed_forward(block.norm_feed_forward(half_way))
    assert table.residual_scale == 0.25
    assert torch.allclose(block(x), expected, rtol=1e-5, atol=1e-6)


def test_completep_at_the_base_depth_with_neutral_powers_is_mup():
    base = Base(d_model=32, n_layers=SMALL.n_layers, init_std=0.08, embedding_scale=10.0)
    table = completep(SMALL, base)
    assert table.residual_scale == 1.0
    neutral = replace(table, residual_init_power=0.5, decay_power=0.0, eps_power=0.0)
    assert neutral == mup(SMALL, base)
