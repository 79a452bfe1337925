"""The verb that measures this machine: bench."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerebras_gpt.cli.app import AsJson, app, prepare_process

if TYPE_CHECKING:
    from cerebras_gpt.plan.plan import Plan

MOST_SECONDS = 3600


@app.command(epilog="Example: cerebras-gpt bench 111M")
def bench(
    what: Annotated[str, typer.Argument(help="A published size, or a run folder, whose plan is measured.")] = "111M",
    seq_len: Annotated[int | None, typer.Option(help="Tokens of a sequence; the plan's own if not given.")] = None,
    seconds: Annotated[float, typer.Option(help="Measure each thing for about so long.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Measure this machine: products, memory, and training steps, with what training would choose."""
    prepare_process()
    from cerebras_gpt.bench import bench as measure
    from cerebras_gpt.train.speed import Stopwatch

    if not 0 <= seconds <= MOST_SECONDS:
        raise ValueError(f"--seconds {seconds:g} is no time to measure; give 0 to {MOST_SECONDS}")
    found = measure(_plan(what, seq_len), Stopwatch(seconds))
    print(json.dumps(found.to_json(), indent=2) if as_json else _aligned(found.rows()))


def _plan(what: str, seq_len: int | None) -> "Plan":
    """The plan of a run, or of a published size."""
    from dataclasses import replace

    from cerebras_gpt.plan.plan import Plan, published_plan

    file = Path(what) / "plan.json"
    plan = Plan.load(file) if file.exists() else published_plan(what, "sp")
    if seq_len is None:
        return plan
    return replace(plan, architecture=replace(plan.architecture, seq_len=seq_len))


def _aligned(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"{label:<24} {value}" for label, value in rows)
