"""The command line as a whole: what all verbs share, and how each of them ends."""

import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerebras_gpt import __version__
from cerebras_gpt.errors import DONE, OURS, READER_GONE, Ending, ending

if TYPE_CHECKING:
    from cerebras_gpt.train.trial import Workers

log = logging.getLogger("cerebras_gpt")

app = typer.Typer(
    name="cerebras-gpt",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: cerebras-gpt quickstart --minutes 1",
)

Out = Annotated[Path, typer.Option(help="Folder or file to write.")]
RunPath = Annotated[Path, typer.Argument(help="A run folder (its newest good checkpoint) or a checkpoint folder.")]
WorkerCount = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes at a time; one a core if not given.")
]
RayAddress = Annotated[
    str | None, typer.Option("--ray", help="Train on Ray's hosts instead: local, auto or ray://HOST:10001.")
]
Weights = Annotated[str, typer.Option(help="Bits of the weights: auto, fastest, float32, bfloat16, int8 or int4.")]
DraftRun = Annotated[
    Path | None, typer.Option("--draft", help="A smaller run of the same tokenizer, to guess tokens ahead.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"cerebras-gpt {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    debug: Annotated[bool, typer.Option("--debug", help="Tell of a mistake with its whole traceback.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Plan, train, check and use compute-optimal GPTs of the Cerebras-GPT family."""
    log.setLevel(logging.DEBUG if debug else logging.WARNING)


def prepare_process() -> None:
    """Thread placement and memory, before torch is imported."""
    from cerebras_gpt.process import bind_threads, keep_memory

    bind_threads()
    keep_memory()


def workers_on(ray: str | None, n: int | None, n_here: int) -> "Workers":
    """Who trains the trials of a verb, n at a time: processes here (one for each core here), or a Ray cluster."""
    from cerebras_gpt.train.crew import Processes
    from cerebras_gpt.train.on_ray import RayTasks

    return Processes(n or n_here) if ray is None else RayTasks(ray, n)


def main() -> None:
    """Runs a verb; a mistake is one line on stderr and exit code 2."""
    logging.basicConfig(format="cerebras-gpt: %(message)s", level=logging.WARNING)
    command = typer.main.get_command(app)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to stop in either way, a verb ends in one way
    try:
        with command.make_context("cerebras-gpt", sys.argv[1:] or ["--help"]) as context:
            command.invoke(context)
        sys.stdout.flush()
        code = DONE
    except BaseException as error:
        code = _told(error)
    sys.exit(code)


def _told(error: BaseException) -> int:
    """The exit code of an error, after its one line; a bug of ours shows its traceback."""
    found = ending(error)
    if found is None:
        traceback.print_exception(error)
        found = Ending(OURS, "this is our bug, not your mistake; please report it with what `cerebras-gpt doctor` says")
    elif found.code != DONE:
        log.debug("the traceback of the line below", exc_info=error)
    if found.code == READER_GONE:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
    if found.line:
        print(f"cerebras-gpt: {' '.join(found.line.split())}", file=sys.stderr)
    return found.code
