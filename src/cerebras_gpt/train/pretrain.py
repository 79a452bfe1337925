"""Pretraining: a plan and packed text in, a run folder out."""

import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.data.batches import HeldOutWindows, PackedBatches
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.distributed import StopFlag, World
from cerebras_gpt.files import only_one
from cerebras_gpt.plan.flops import matmul_flops_per_token
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.plan.preflight import check_disk
from cerebras_gpt.record import rows_of
from cerebras_gpt.train import calibrate
from cerebras_gpt.train.account import Observer
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.forecast import Watch
from cerebras_gpt.train.held_out import AT_THE_END, held_out_loss
from cerebras_gpt.train.identity import LOCK, check_identity, copies, heal_calibration, identify
from cerebras_gpt.train.noise_scale import noise_hook
from cerebras_gpt.train.sharding import agreed, check_memory, new_model
from cerebras_gpt.train.trainer import Hook, Trainer
from cerebras_gpt.train.twice import twice_hook

QUICK_TOKENS = 2**15
"""About how many held-out tokens are scored at a time during training, spread over all of them."""

SCORED_SHARE = 0.1
"""Tokens scored on the way, all evaluations together, per token trained on; scoring costs a third of training."""


def pretrain(plan: Plan, data: Path, run: Path, world: World, hooks: Sequence[Hook] = ()) -> Trainer:
    """Trains the plan on a pack, or goes on with a run that was interrupted; gives the trainer at its end.

    Raises ValueError when plan and pack, or plan and run, do not belong together.
    """
    train, held_out = Shards.open(data, "train"), Shards.open(data, "val")
    batches = PackedBatches(train, plan.architecture.seq_len, plan.batch_size, plan.seed)  # refuses a short text
    check(plan, train, run, world)
    with sole_writer(run, world):
        if world.is_main:
            begin(plan, train, run)
        calibration = agreed(plan, run, world)
        execution, observer = calibration.execution, Observer()
        moments = [noise_hook(plan), *hooks, observer.at_end(plan, calibration)]
        trainer = Trainer(
            plan,
            new_model(plan, execution),
            batches,
            run,
            execution,
            world,
            hooks=[twice_hook(), scoring(plan, held_out, execution), *main_only(moments, world)],
            texts=copies(train, run) if world.is_main else {},
            flops_per_second=calibration.peak_flops,
            flops_per_token=matmul_flops_per_token(plan.architecture),
        )
        go_on(trainer)
    return trainer


def main_only(hooks: Sequence[Hook], world: World) -> list[Hook]:
    """Hooks that only the first process runs; the others have as many, so that all count alike what is left."""
    return [hook if world.is_main else hook._replace(run=lambda _: None) for hook in hooks]


def go_on(trainer: Trainer) -> None:
    """From the newest checkpoint to the end, or to the signal that asks it to stop."""
    with StopFlag() as stop:
        trainer.asked_to_stop = stop.is_set
        trainer.resume()
        if trainer.world.is_main:
            trainer.metrics.write("start", step=trainer.step, **environment(trainer.execution))
        trainer.run()


@contextmanager
def sole_writer(run: Path, world: World) -> Iterator[None]:
    """Keeps other trainers out of a run folder; the first of many processes does so for all."""
    if not world.is_main:
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    with only_one(run / LOCK, str(run)):
        yield


def scoring(plan: Plan, held_out: Shards, execution: Execution) -> Hook:
    """Measures the held-out loss, records it, and says it beside the forecast."""
    quick, whole = held_out_windows(held_out, plan, execution)
    watch = Watch(plan.prediction)

    def score(trainer: Trainer) -> None:
        at_end = trainer.step == plan.steps
        found = held_out_loss(trainer.model, whole if at_end else quick, execution, trainer.world, trainer.poll)
        if not trainer.world.is_main:
            return
        doubt = watch.doubt(found.bits_per_byte, at_end, rows_of(trainer.metrics.path, "held_out", "doubt"))
        where = {"step": trainer.step, "tokens": trainer.tokens, "seconds": round(trainer.seconds, 3)}
        trainer.metrics.write("held_out", **where, **found._asdict(), final=at_end)
        trainer.progress.say(f"step {trainer.step}: held-out {found.bits_per_byte:.4f} bits per byte{watch.words}")
        if doubt:
            trainer.metrics.write("doubt", **where, words=doubt)
            trainer.progress.say(f"warning: {doubt}")

    return Hook(max(1, plan.steps // plan.evaluations), score)


def held_out_windows(held_out: Shards, plan: Plan, execution: Execution) -> tuple[HeldOutWindows, HeldOutWindows]:
    """What is scored on the way, and what at the end; half a window of context for every token."""
    seq_len = plan.architecture.seq_len
    n_quick = max(seq_len, min(QUICK_TOKENS, int(SCORED_SHARE * plan.tokens / plan.evaluations)))
    quick, whole = (
        scoring.windows(held_out, seq_len, execution.micro_batch_size)
        for scoring in (AT_THE_END._replace(n_tokens=n_quick), AT_THE_END)
    )
    return quick, whole


def check(plan: Plan, train: Shards, run: Path, world: World) -> None:
    """Refuses what cannot go together, before anything is written."""
    check_vocabulary(plan, train)
    if not 0 < plan.warmup_steps < plan.steps:
        raise ValueError(f"warmup_steps is {plan.warmup_steps}; it must lie between 0 and steps ({plan.steps})")
    check_disk(plan, free_disk(run), str(run))
    if not (run / calibrate.FILE).exists():  # a run that once fitted is not kept from going on by an estimate
        check_memory(plan, world)
    check_identity(plan, train, run)


def free_disk(run: Path) -> int:
    """Bytes that are free where a run folder goes, or taken by its own checkpoints, whose place the next ones take."""
    free = shutil.disk_usage(next(path for path in (run, *run.absolute().parents) if path.exists())).free
    return free + sum(file.stat().st_size for path in checkpoint.checkpoints(run) for file in path.iterdir())


def check_vocabulary(plan: Plan, train: Shards) -> None:
    """Refuses a pack whose ids the plan's network does not have."""
    if plan.architecture.vocab_size != train.vocab_size:
        raise ValueError(
            f"the plan has a vocabulary of {plan.architecture.vocab_size}, the pack {train.vocab_size}; "
            "plan with --data, or pack with the plan's tokenizer"
        )


def begin(plan: Plan, train: Shards, run: Path) -> None:
    """Makes a run folder ready: damage is put right, the machine measured, and written what identifies the run."""
    checkpoint.set_damaged_aside(run)
    check_identity(plan, train, run)  # again: another trainer may just have been here
    heal_calibration(run)
    identify(plan, train, run)


def environment(execution: Execution) -> dict[str, object]:
    """What a reader of the record must know of the machine."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": execution.device,
        "dtype": execution.dtype,
        "micro_batch_size": execution.micro_batch_size,
    }
