"""The verb check: does a parametrization keep its promise?"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerebras_gpt.cli.app import AsJson, app, prepare_process
from cerebras_gpt.cli.make import named_plan

if TYPE_CHECKING:
    from cerebras_gpt.check import Finding, Settings, Subject
    from cerebras_gpt.train.coordinates import Axis

NAMES = "sp, mup or completep"


def _numbers(option: str, text: str | None) -> tuple[int, ...]:
    """Whole numbers separated by commas."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(f"{option} {text!r} is not a list of whole numbers; write it as 64,128,256") from None


@app.command(epilog="Example: cerebras-gpt check --parametrization mup --out check/    or: cerebras-gpt check 111M")
def check(
    subject: Annotated[str | None, typer.Argument(help="A run, a plan.json or a published size.")] = None,
    parametrization: Annotated[list[str] | None, typer.Option(help=f"{NAMES}; may be given again.")] = None,
    along: Annotated[list[str] | None, typer.Option(help="width, head or depth; may be given again.")] = None,
    widths: Annotated[str | None, typer.Option(help="Widths to compare, as 64,128,256,512.")] = None,
    head_widths: Annotated[str, typer.Option(help="Head widths to compare.")] = "8,16,32,64",
    depths: Annotated[str, typer.Option(help="Depths to compare.")] = "2,4,8,16,32",
    steps: Annotated[int, typer.Option(help="Steps of training.")] = 10,
    seeds: Annotated[int, typer.Option(help="Runs of each shape.")] = 5,
    first_seed: Annotated[int, typer.Option(help="The first of the seeds.")] = 0,
    lr: Annotated[float, typer.Option(help="Constant learning rate, large on purpose.")] = 0.01,
    data: Annotated[Path | None, typer.Option(help="A pack to read instead of a made-up language.")] = None,
    transfer: Annotated[bool, typer.Option("--transfer", help="Also train over a grid of rates (minutes).")] = False,
    transfer_steps: Annotated[int, typer.Option(help="Steps of each of these runs.")] = 200,
    octaves: Annotated[int, typer.Option(help="Rates on each side of --lr, a factor of 2 apart.")] = 4,
    workers: Annotated[int, typer.Option(help="Processes that train them.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Folder for check.json and the pictures.")] = None,
    as_json: AsJson = False,
) -> None:
    """Assert that activations and updates do not change with width or depth; exit code 5 if they do."""
    if transfer:
        if data is None or out is None:
            raise ValueError("--transfer trains on real text: give --data, a pack, and --out, where its record is kept")
    else:
        prepare_process()
    from cerebras_gpt.check import BrokenPromiseError, Settings, check_transfer
    from cerebras_gpt.check import check as check_one
    from cerebras_gpt.train.crew import Processes

    settings = Settings(
        _numbers("--widths", widths),
        _numbers("--head-widths", head_widths),
        _numbers("--depths", depths),
        *(steps, seeds, first_seed, lr, data),
    )
    subjects = _subjects(subject, parametrization or [], settings)
    axes = _axes(along or [])
    findings = []
    for one in subjects:
        found = check_one(one, axes, settings)
        if transfer and out is not None:
            record = out / "trials.jsonl"
            found = check_transfer(found, settings, transfer_steps, octaves, record, Processes(workers))
        findings.append(found)
    _tell(findings, out, as_json)
    broken = [(found.subject.parametrization, line) for found in findings for line in found.broken]
    if broken:
        name, line = broken[0]
        raise BrokenPromiseError(f"{name} does not hold: {line}" + f"; {len(broken)} in all" * (len(broken) > 1))


def _axes(names: Sequence[str]) -> "list[Axis]":
    from typing import get_args

    from cerebras_gpt.config import unknown
    from cerebras_gpt.train.coordinates import Axis

    allowed = get_args(Axis)
    for name in names:
        if name not in allowed:
            raise ValueError(unknown("axis", name, allowed))
    return [axis for axis in allowed if axis in names]


def _subjects(given: str | None, names: Sequence[str], settings: "Settings") -> "list[Subject]":
    from cerebras_gpt.check import named_subject, subject_of

    if given is None:
        if not names:
            raise ValueError(
                f"nothing to check; give a run, a plan.json, a size such as 111M, or --parametrization {NAMES}"
            )
        return [named_subject(name, settings) for name in names]
    plan = named_plan(given)
    return [subject_of(plan, settings, name) for name in names] or [subject_of(plan, settings)]


def _tell(findings: "Sequence[Finding]", out: Path | None, as_json: bool) -> None:
    """Prints what was found, and writes it with its pictures."""
    from cerebras_gpt.check import described, mapping

    text = json.dumps([mapping(found) for found in findings], indent=1) + "\n"
    if out is not None:
        from cerebras_gpt.files import replace_text
        from cerebras_gpt.report.check_figures import Picture, write_figures

        out.mkdir(parents=True, exist_ok=True)
        replace_text(out / "check.json", text)
        pictures = [Picture(f.subject.parametrization, f.sizes, f.slopes, f.transfer) for f in findings]
        for path in write_figures(pictures, out):
            print(path, file=sys.stderr)
    print(text if as_json else "\n".join(described(found) for found in findings), end="")
