"""Verbs that keep a model at hand: serve, chat."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from cerebras_gpt.cli.app import DraftRun, RunPath, Weights, app, prepare_process


@app.command(epilog="Example: cerebras-gpt serve runs/mine --port 8000")
def serve(
    runs: Annotated[list[Path], typer.Argument(help="Run or checkpoint folders; each is served under its name.")],
    host: Annotated[str, typer.Option(help="Address; any but this machine's own needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    api_key_file: Annotated[Path | None, typer.Option(help="File whose first line clients must send as key.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another host name that clients use.")] = None,
    slots: Annotated[int, typer.Option(help="Answers made together, if memory allows.", min=1, max=64)] = 64,
    queue: Annotated[int, typer.Option(help="Answers that may wait; more are refused.", min=0)] = 64,
    deadline: Annotated[float, typer.Option(help="Seconds that an answer may take.", min=0.1)] = 300.0,
    drain: Annotated[float, typer.Option(help="Seconds to finish answers after SIGTERM.", min=0.0)] = 20.0,
    show_runs: Annotated[Path | None, typer.Option(help="Folder of training runs to show live.")] = None,
    weights: Weights = "auto",
    draft: DraftRun = None,
) -> None:
    """Serve models over HTTP: a page, and the OpenAI protocol."""
    from cerebras_gpt.process import keep_memory

    keep_memory()  # threads stay unbound: the one that answers would share its core with a computing one for good
    from cerebras_gpt.generate.precision import precision
    from cerebras_gpt.serve.models import load

    key = api_key_file.read_text("utf-8").partition("\n")[0].strip() if api_key_file else None
    if api_key_file and not key:
        raise ValueError(f"{api_key_file} holds no key; write one into its first line")
    with ThreadPoolExecutor(1) as beside:  # hashes are checked while Python imports
        loading = beside.submit(load, runs, precision(weights), draft)
        try:
            from cerebras_gpt.serve.limits import Limits
            from cerebras_gpt.serve.server import Address
            from cerebras_gpt.serve.server import serve as run_server
        except ModuleNotFoundError as error:
            raise ValueError(f"{error.name} is missing; install it with: pip install 'cerebras-gpt[serve]'") from None
        address = Address(host, port, key, tuple(allow_host or ()))
        typer.echo(f"http://{host}:{port}", err=True)
    limits = Limits(queue=queue, deadline_seconds=deadline, drain_seconds=drain)
    run_server(loading.result(), address, slots, limits, show_runs)


@app.command(epilog="Example: cerebras-gpt chat runs/mine")
def chat(
    run: RunPath,
    system: Annotated[str, typer.Option(help="What the model is told first.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 400,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Only the likeliest tokens of this total probability.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Same seed and same words, same answers.")] = 0,
    recall: Annotated[bool, typer.Option("--recall", help="Keep how turns beyond the context began.")] = False,
) -> None:
    """Talk with a model: /reset forgets, /system TEXT sets the scene, Ctrl-C stops an answer, Ctrl-D ends."""
    prepare_process()
    from cerebras_gpt.process import uncollected

    with uncollected():
        from cerebras_gpt.cli.conversation import converse
        from cerebras_gpt.generate.lm import LM
        from cerebras_gpt.generate.sampling import Sampling
        from cerebras_gpt.text.chat import forget, opening_words

        lm = LM.load(run)
    sampling = Sampling(temperature, top_p=top_p, seed=seed)
    converse(lm, system, max_tokens, sampling, opening_words if recall else forget)
