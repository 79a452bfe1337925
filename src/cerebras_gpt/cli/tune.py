"""The verb that tunes a proxy."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerebras_gpt.cli.app import AsJson, Out, RayAddress, WorkerCount, app, workers_on
from cerebras_gpt.cli.make import with_settings

if TYPE_CHECKING:
    from cerebras_gpt.train.search import Range


@app.command(epilog="Example: cerebras-gpt tune --data data/ --out runs/tuned --samples 40    then: plan --tuned")
def tune(
    settings: Annotated[list[str] | None, typer.Argument(help="Settings of the proxy's plan as key=value.")] = None,
    data: Annotated[Path, typer.Option(help="A pack.")] = Path("data"),
    out: Out = Path("runs/tuned"),
    samples: Annotated[int, typer.Option(help="Points to try; more of them later go on from these.")] = 40,
    width: Annotated[int, typer.Option(help="Of the proxy: d_model, a multiple of 32.")] = 64,
    layers: Annotated[int, typer.Option(help="Of the proxy: best the depth of the model to come.")] = 2,
    steps: Annotated[int, typer.Option(help="Of each trial, of 2,048 tokens.")] = 200,
    parametrization: Annotated[str, typer.Option(help="How values carry over: mup, completep or sp.")] = "mup",
    peak_lr: Annotated[str, typer.Option(help="Range LOW:HIGH to search.")] = "0.001:0.06",
    init_std: Annotated[str, typer.Option(help="Range LOW:HIGH to search.")] = "0.02:0.32",
    embedding_scale: Annotated[str, typer.Option(help="Range LOW:HIGH to search.")] = "1:32",
    workers: WorkerCount = None,
    ray: RayAddress = None,
    seed: Annotated[int, typer.Option(help="Of the sequence of points.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Search peak learning rate, init std and embedding scale on a small proxy; run it again and it goes on."""
    from cerebras_gpt.process import keep_memory, n_cores

    keep_memory()  # threads stay unbound: the workers would inherit one core
    from cerebras_gpt import tune as tuning
    from cerebras_gpt.train.search import Proxy, Search, Space

    crew = workers_on(ray, workers, n_cores())
    space = Space(_range("peak-lr", peak_lr), _range("init-std", init_std), _range("embedding-scale", embedding_scale))
    template = with_settings(tuning.proxy_template(data, width, layers, steps), settings or [])
    search = Search(Proxy(template, parametrization), space, samples, seed)
    execution = tuning.measured_execution(search, out)
    found = tuning.tune(search, data, out, crew, execution)
    print(found.tuned.to_json() if as_json else tuning.table(found) + "\n", end="")


def _range(option: str, text: str) -> "Range":
    from cerebras_gpt.train.search import Range

    low, colon, high = text.partition(":")
    try:
        return Range(float(low), float(high if colon else low))
    except ValueError:
        raise ValueError(f"--{option} {text!r} is no range; write LOW:HIGH such as 0.001:0.06, or one value") from None
