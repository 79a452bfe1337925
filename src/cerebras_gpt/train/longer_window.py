"""A run with a longer window, begun from the weights of another: `pretrain` then goes on with it."""

from dataclasses import replace
from pathlib import Path

from cerebras_gpt import checkpoint
from cerebras_gpt.data.batches import PackedBatches
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.distributed import World
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.positions import stretched
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.identity import identify
from cerebras_gpt.train.trainer import Trainer

RATE_SHARE = 0.1
"""Of pretraining's peak, where plans of this package end: in few steps a higher one undoes more than it teaches."""
WARMUP_SHARE = 0.1


def longer_plan(plan: Plan, seq_len: int, steps: int) -> Plan:
    """The plan of the short training: as many tokens in a step as before, at a lower rate that falls to zero."""
    n_rows = max(1, plan.batch_size * plan.architecture.seq_len // seq_len)
    return replace(
        plan,
        name=f"{plan.name}, window {seq_len}",
        architecture=replace(plan.architecture, seq_len=seq_len),
        batch_size=n_rows,
        steps=steps,
        warmup_steps=max(1, int(WARMUP_SHARE * steps)),
        peak_lr=RATE_SHARE * plan.peak_lr,
        final_lr_fraction=0.0,
        evaluations=min(plan.evaluations, steps),
        saves=min(plan.saves, steps),
        prediction=None,
        reasons=(f"from a trained network with a window of {plan.architecture.seq_len}, its positions interpolated",),
    )


def lengthen(source: Path, seq_len: int, data: Path, steps: int, out: Path) -> Plan:
    """Writes step 0 of a run with a longer window; `pretrain` with this plan, the same data and `out` goes on."""
    folder = checkpoint.resolve(source)
    if not (folder / "plan.json").exists():
        raise ValueError(f"{folder} has no plan.json, so nothing says how it was trained; give a run of pretrain")
    return begin(
        stretched(checkpoint.load_model(folder), seq_len), longer_plan(Plan.load(folder), seq_len, steps), data, out
    )


def begin(model: GPT, plan: Plan, data: Path, out: Path) -> Plan:
    """Writes the network as step 0 of the plan's run; gives the plan."""
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; give another folder, or go on with it by pretrain")
    train = Shards.open(data, "train")
    identify(plan, train, out)
    batches = PackedBatches(train, plan.architecture.seq_len, plan.batch_size, plan.seed)
    Trainer(plan, model, batches, out, Execution(), World(), texts={"tokenizer.json": train.tokenizer.to_json()}).save()
    return plan
