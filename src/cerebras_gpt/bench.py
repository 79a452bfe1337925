"""What this machine can do: products, memory, and the training steps of a plan, with what was chosen and why."""

from typing import NamedTuple

import torch

from cerebras_gpt.plan.flops import matmul_flops_per_token
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.process import n_cores
from cerebras_gpt.train.calibrate import Trial, ranking
from cerebras_gpt.train.device import device, forget_peak, name, peak
from cerebras_gpt.train.execution import DTYPES, Execution
from cerebras_gpt.train.speed import Stopwatch, measure_peak

COPIED_BYTES = {"cpu": 2**28, "cuda": 2**31}
"""Far more than any cache holds."""


class Machine(NamedTuple):
    """The ceilings: no step can be faster than these let it be."""

    processor: str
    cores: int
    threads: int
    torch: str
    peak_flops: dict[str, float]
    """FLOP/s of a large matrix product, by dtype."""
    bytes_per_second: float
    """Read and written together, copying from memory to memory."""


class Bench(NamedTuple):
    """A plan on a machine."""

    machine: Machine
    plan: Plan
    trials: list[Trial]
    """The fastest, which training would choose, first."""
    peak_bytes: int
    """The most memory that this process held in the trials; 0 where the system does not tell."""

    def share(self, trial: Trial) -> float:
        """Of the dtype's peak that goes into the step's matrix products: the model's FLOP utilisation."""
        flops = trial.speed.tokens_per_second * matmul_flops_per_token(self.plan.architecture)
        return flops / self.machine.peak_flops[trial.execution.dtype]

    def rows(self) -> list[tuple[str, str]]:
        """All of it as rows of label and value, for printing."""
        machine, shape = self.machine, self.plan.architecture
        peaks = ", ".join(f"{peak / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, peak in machine.peak_flops.items())
        chosen = self.trials[0]
        return [
            ("machine", f"{machine.processor}, {machine.cores} cores, {machine.threads} threads"),
            ("torch", machine.torch),
            ("matrix products", peaks),
            ("memory", f"{machine.bytes_per_second / 1e9:.3g} GB/s copied (read + written)"),
            ("plan", f"{self.plan.name}: {self.plan.batch_size} x {shape.seq_len:,} tokens a step"),
            *((_words(trial.execution), self._speed(trial)) for trial in self.trials),
            ("peak memory", f"{self.peak_bytes / 1e9:.3g} GB" if self.peak_bytes else "unknown"),
            ("chosen", f"{_words(chosen.execution)}: the fastest of {len(self.trials)}"),
        ]

    def _speed(self, trial: Trial) -> str:
        speed = trial.speed
        return f"{speed.tokens_per_second:,.0f} tokens/s, {self.share(trial):.0%} of the peak, +{speed.spread:.0%}"

    def to_json(self) -> dict[str, object]:
        """All of it as plain values."""
        return {
            "machine": self.machine._asdict(),
            "plan": self.plan.name,
            "tokens_per_step": self.plan.tokens_per_step,
            "trials": [
                {**vars(trial.execution), **trial.speed._asdict(), "flops_share": self.share(trial)}
                for trial in self.trials
            ],
            "peak_bytes": self.peak_bytes,
        }


def bench(plan: Plan, stopwatch: Stopwatch) -> Bench:
    """Measures the machine, then every way to train the plan on it."""
    machine = measure_machine(stopwatch)
    forget_peak()
    return Bench(machine, plan, ranking(plan, stopwatch).trials, peak())


def measure_machine(stopwatch: Stopwatch) -> Machine:
    """The ceilings."""
    peaks = {dtype: measure_peak(Execution(dtype, 1, device()), stopwatch.seconds) for dtype in DTYPES}
    return Machine(
        name(),
        n_cores(),
        torch.get_num_threads(),
        torch.__version__,
        peaks,
        measure_bandwidth(stopwatch),
    )


def measure_bandwidth(stopwatch: Stopwatch, n_bytes: int = 0) -> float:
    """Bytes a second, read and written, of a copy from memory to memory."""
    n_bytes = n_bytes or COPIED_BYTES[device()]
    source = torch.ones(n_bytes // 4, device=device())
    out = torch.empty_like(source)
    return 2 * n_bytes / stopwatch.time(lambda: out.copy_(source)[0].item())


def _words(execution: Execution) -> str:
    """An execution in a few words."""
    again = ", activations computed again" if execution.recompute else ""
    compiled = ", compiled" if execution.compiled else ""
    return f"{execution.dtype}, {execution.micro_batch_size} at a time{compiled}{again}"
