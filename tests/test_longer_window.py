import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.distributed import World
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.positions import interpolated, stretched
from cerebras_gpt.plan.families import mup
from cerebras_gpt.train.longer_window import lengthen, longer_plan
from cerebras_gpt.train.pretrain import pretrain


def test_learned_positions_stay_where_they_are_met_again():
    table = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    longer = interpolated(table, 14)
    assert torch.equal(longer[::2], table)
    torch.testing.assert_close(longer[1:-1:2], (table[:-1] + table[1:]) / 2)
    assert torch.equal(longer[-1], table[-1])


def test_a_line_stays_a_line_at_any_length():
    line = torch.arange(8.0)[:, None]
    longer = interpolated(line, 19)[:, 0]
    torch.testing.assert_close(longer, (torch.arange(19) * 8 / 19).clamp(max=7))


def test_only_positions_change():
    shape = Architecture(d_model=16, n_layers=1, n_heads=2, vocab_size=64, seq_len=8)
    model = initialize(GPT(shape, mup(shape)), torch.Generator().manual_seed(0)).eval()
    longer = stretched(model, 12)
    for name, tensor in model.state_dict().items():
        assert name == "position_embedding.weight" or torch.equal(tensor, longer.state_dict()[name])
    assert longer(torch.zeros(1, 12, dtype=torch.long)).shape == (1, 12, 64)
    assert not longer.training
    with pytest.raises(ValueError, match="no longer than 8"):
        stretched(model, 8)


def test_pretrain_goes_on_from_the_longer_window(data, tiny, tmp_path):
    pretrain(tiny, data, tmp_path / "short", World())
    plan = lengthen(tmp_path / "short", 32, data, 4, tmp_path / "long")
    assert (plan.batch_size, plan.tokens_per_step) == (2, tiny.tokens_per_step)
    begun = checkpoint.load_model(checkpoint.resolve(tmp_path / "long"))
    assert torch.equal(
        begun.position_embedding.weight[::2], LM.load(tmp_path / "short").model.position_embedding.weight
    )
    assert pretrain(plan, data, tmp_path / "long", World()).step == 4
    assert LM.load(tmp_path / "long").model.architecture.seq_len == 32
    with pytest.raises(ValueError, match="not empty"):
        lengthen(tmp_path / "short", 32, data, 4, tmp_path / "long")


def test_a_window_that_is_longer_than_a_batch_leaves_one_row(tiny):
    assert longer_plan(tiny, 1024, 5).batch_size == 1
