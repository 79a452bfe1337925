"""Evaluated runs as points of a downstream law, and the law in words."""

import json
from collections.abc import Sequence
from pathlib import Path

from cerebras_gpt.files import read_json
from cerebras_gpt.plan.downstream_law import DownstreamFit, Result
from cerebras_gpt.report.law_points import run_point


def evaluated(run: Path, task: str, formula: str) -> tuple[Result, float]:
    """What `evaluate --task` last found of a run, with the run's compute; and what chance gives."""
    files = sorted((run / "evaluations").glob(f"{task}-0-*.json"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise FileNotFoundError(
            f"{run} has no zero-shot score of {task}; make it by `cerebras-gpt evaluate --task {task}`"
        )
    found = read_json(files[-1])
    metrics = json.loads(json.dumps(found["metrics"]))
    if not {"acc", "bits_per_byte"} <= metrics.keys():
        raise ValueError(f"{task} has no right answer, so no law of accuracy; choose another task")
    point = run_point(run, formula)
    acc = metrics["acc"]
    loss = metrics["bits_per_byte"]["value"]
    return Result(point.flops or 0.0, loss, acc["value"], acc["stderr"], point.name), float(str(found["chance"]))


def results(runs: Sequence[Path], task: str, formula: str) -> tuple[list[Result], float]:
    """The points of all runs, and chance."""
    found = [evaluated(run, task, formula) for run in runs]
    if not found:
        raise ValueError(f"give run folders that were evaluated by `cerebras-gpt evaluate --task {task}`")
    return [one for one, _ in found], found[0][1]


def downstream_values(task: str, made: DownstreamFit, flops: float | None) -> dict[str, object]:
    """The law and its points as JSON values; `points` is what a report draws."""
    at = [] if flops is None else [flops]
    return {
        "task": task,
        "points": [one._asdict() for one in made.results],
        "loss_law": {
            "exponent": made.losses.law.exponent,
            "scale_flops": made.losses.law.scale_flops,
            "irreducible": made.losses.law.irreducible,
        },
        "sigmoid": made.sigmoid._asdict(),
        "fitted": [made.accuracy(one.flops)._asdict() for one in made.results],
        "predicted": [
            {"flops": x, "task_loss": made.task_loss(x)._asdict(), "accuracy": made.accuracy(x)._asdict()} for x in at
        ],
    }


def downstream_text(task: str, made: DownstreamFit, flops: float | None) -> str:
    """The same as lines for a person."""
    law, curve = made.losses.law, made.sigmoid
    lines = [
        f"{task}: bits per byte of the right answer = (C / {law.scale_flops:.3g})^-{law.exponent:.4f} "
        f"+ {law.irreducible:.4f}",
        f"accuracy = {curve.chance:.3f} + {1 - curve.chance:.3f} / (1 + exp({curve.steepness:.3f} (loss - "
        f"{curve.middle:.3f})))",
        f"{'FLOPs':>10} {'bits/byte':>9} {'accuracy':>17} {'law':>6}  90 % interval",
    ]
    for one in made.results:
        law_says = made.accuracy(one.flops)
        lines.append(
            f"{one.flops:>10.3g} {one.task_loss:>9.4f} {one.accuracy:>8.4f} ± {one.stderr:.4f} {law_says.value:>6.4f}  "
            f"{law_says.low:.4f} to {law_says.high:.4f}  {one.name}"
        )
    if flops is not None:
        told = made.accuracy(flops)
        lines.append(f"{flops:>10.3g} predicted {told.value:.4f}, 90 % interval {told.low:.4f} to {told.high:.4f}")
    return "\n".join(lines) + "\n"
