"""The verb that trains a ladder."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from cerebras_gpt.cli.app import AsJson, Out, RayAddress, WorkerCount, app, prepare_process, workers_on


@app.command(epilog="Example: cerebras-gpt ladder --data data/ --minutes 60 --out runs/ladder")
def ladder(
    data: Annotated[Path, typer.Option(help="A pack, best of bytes: a tokenizer of 257.")] = Path("data"),
    minutes: Annotated[float, typer.Option(help="For all of it; about half goes to the predicted run.")] = 60.0,
    out: Out = Path("runs/ladder"),
    rungs: Annotated[int, typer.Option(help="Sizes, the predicted one included: 5 or more.")] = 9,
    parametrization: Annotated[str, typer.Option(help="Of the family: mup, completep or sp.")] = "mup",
    twin: Annotated[str | None, typer.Option(help="sp: the same sizes under SP too; takes as long again.")] = None,
    tuned: Annotated[Path | None, typer.Option(help="What `tune` found, instead of our values for small runs.")] = None,
    seed: Annotated[int, typer.Option(help="Of the first run of each size.")] = 0,
    workers: WorkerCount = None,
    ray: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Train small compute-optimal models, predict the next size, train it, give the verdict; goes on after a kill."""
    from cerebras_gpt.process import n_cores

    if not 0 < minutes < math.inf:
        raise ValueError(f"--minutes {minutes:g} is not a time to train; give a positive number such as 60")
    if twin not in (None, "sp"):
        raise ValueError(f"--twin {twin!r} is unknown; the only twin is sp")
    n_here = n_cores()  # before threads are bound: then one core is left to see
    prepare_process()
    from cerebras_gpt import config
    from cerebras_gpt import ladder as climbing
    from cerebras_gpt.report.ladder_words import ladder_table

    crew = workers_on(ray, workers, n_here)
    design = climbing.begun(climbing.Wish(minutes, rungs, parametrization, seed, tuned), data, out)
    found = climbing.climb(design, data, out, crew)
    if twin is not None:
        found = climbing.with_twin(found, design, data, out, crew)
    print(json.dumps(config.to_mapping(found), indent=2) if as_json else ladder_table(found))
