"""What was expected of a run and what happened: time and peak memory, recorded at its end."""

from functools import partial
from typing import NamedTuple

from cerebras_gpt.plan.memory import peak_bytes
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import duration
from cerebras_gpt.train.calibrate import Calibration
from cerebras_gpt.train.device import forget_peak, held, peak
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.trainer import Hook, Trainer


class Account(NamedTuple):
    """A run's estimate beside its measurement."""

    planned_seconds: float
    seconds: float
    """In updates, all sessions together."""
    planned_bytes: int
    peak_bytes: int
    """Of the process since training began; of the device where there is one. 0 where nothing tells."""

    def __str__(self) -> str:
        time = f"planned {duration(self.planned_seconds)}, took {duration(self.seconds)}"
        planned, peak = f"{self.planned_bytes / 1e9:.3g} GB", f"{self.peak_bytes / 1e9:.3g} GB"
        return f"{time}{off(self.seconds, self.planned_seconds)}; memory planned {planned}, peak {peak}" + (
            off(self.peak_bytes, self.planned_bytes)
        )


def off(measured: float, planned: float) -> str:
    """How far a measurement lies from its estimate, in words; nothing where either is unknown."""
    return f" ({measured / planned - 1:+.0%})" if measured > 0 and planned > 0 else ""


class Observer:
    """Watches the memory of a session from its making on: after calibration, before anything large is made."""

    def __init__(self) -> None:
        forget_peak()
        self.before = held()

    def planned_bytes(self, plan: Plan, execution: Execution) -> int:
        """The peak to expect."""
        size, n_bytes = execution.micro_batch_size, execution.torch_dtype.itemsize
        n_micro_batches = -(-plan.batch_size // size)
        found = peak_bytes(plan.architecture, size, n_bytes, n_micro_batches, execution.recompute)
        return max(self.before, found)

    def at_end(self, plan: Plan, calibration: Calibration) -> Hook:
        """Tells at the last step, and only there."""
        return Hook(plan.steps, partial(self.tell, calibration))

    def tell(self, calibration: Calibration, trainer: Trainer) -> None:
        """Records the account of a run that has just ended, and shows it."""
        planned = self.planned_bytes(trainer.plan, trainer.execution)
        found = Account(calibration.predicted_seconds, trainer.seconds, planned, peak())
        trainer.metrics.write("account", step=trainer.step, **found._asdict())
        trainer.progress.say(str(found))
