"""The command line: one verb a function, one line for a mistake, results on standard output and all else on stderr."""

import errno
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cerebras_gpt.plan.plan import Plan

# Nothing heavy up here: `cerebras-gpt --help` must answer at once, so each verb imports what it needs.

app = typer.Typer(
    name="cerebras-gpt",
    help="Plan, train, check and use compute-optimal GPTs of the Cerebras-GPT family.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: cerebras-gpt quickstart --minutes 1",
)

DONE, OURS, MISTAKE, STOPPED, DIVERGED = 0, 1, 2, 3, 4
"""Exit codes: done, our bug, the user's mistake, interrupted and saved, loss no longer finite (docs/cli.md)."""

Sources = Annotated[list[str], typer.Argument(help="Text files, folders, or - for standard input.")]
Out = Annotated[Path, typer.Option(help="Folder or file to write.")]
RunPath = Annotated[Path, typer.Argument(help="A run folder (its newest good checkpoint) or a checkpoint folder.")]


@app.command(epilog="Example: cerebras-gpt quickstart --minutes 5 --data my_texts/ --out runs/mine")
def quickstart(
    minutes: Annotated[float, typer.Option(help="Training time; set-up comes on top.")] = 5.0,
    out: Out = Path("runs/quickstart"),
    corpus: Annotated[str, typer.Option(help="Built-in text: sotu, wiki, or both as sotu+wiki.")] = "sotu",
    data: Annotated[list[str] | None, typer.Option(help="Your own text instead: files or folders.")] = None,
) -> None:
    """From raw text to a model that speaks: tokenizer, shards, plan, training, samples, report."""
    _prepare_process()
    from cerebras_gpt.quickstart import Quickstart

    Quickstart(out, minutes, corpus, tuple(data or ())).run()


@app.command(epilog="Example: cerebras-gpt tokenizer my_texts/ --vocab-size 4096 --out tokenizer.json")
def tokenizer(
    sources: Annotated[list[str] | None, typer.Argument(help="Text files, folders, or -.")] = None,
    vocab_size: Annotated[int, typer.Option(help="Tokens, the 256 bytes and the end of text included.")] = 4096,
    gpt2: Annotated[
        bool, typer.Option("--gpt2", help="Write GPT-2's tokenizer, 50,257 tokens; no text needed.")
    ] = False,
    out: Out = Path("tokenizer.json"),
) -> None:
    """Train a byte-level BPE tokenizer on text, or write GPT-2's."""
    from cerebras_gpt.data.accounting import Accounting
    from cerebras_gpt.data.documents import read_documents
    from cerebras_gpt.text.tokenizer import gpt2_tokenizer, train_tokenizer

    if gpt2 == bool(sources):
        raise ValueError("give text to train on, or --gpt2 for GPT-2's tokenizer, and not both")
    texts = (document.text for document in read_documents(sources or [], Accounting()))
    made = gpt2_tokenizer() if gpt2 else train_tokenizer(texts, vocab_size)
    made.save(out)
    print(f"{out}: {made.vocab_size:,} tokens, sha256 {made.hash[:12]}")


@app.command(epilog="Example: cerebras-gpt pack my_texts/ --tokenizer tokenizer.json --out data/")
def pack(
    sources: Sources,
    tokenizer: Annotated[Path, typer.Option(help="A tokenizer.json.")] = Path("tokenizer.json"),
    out: Out = Path("data"),
    val_fraction: Annotated[float, typer.Option(help="Part of the documents to hold out.")] = 0.05,
) -> None:
    """Turn text into verified token shards with a held-out part; every record is accounted for."""
    from cerebras_gpt.data.accounting import Accounting
    from cerebras_gpt.data.documents import read_documents
    from cerebras_gpt.data.shards import pack as write_pack
    from cerebras_gpt.text.tokenizer import Tokenizer

    accounting = Accounting()
    made = Tokenizer.load(tokenizer)
    manifest = write_pack(read_documents(sources, accounting), made, out, val_fraction, accounting)
    for name in ("train", "val"):
        split = manifest.split(name)
        print(f"{name}: {split.n_documents:,} documents, {split.n_bytes:,} bytes, {split.n_tokens:,} tokens")
    print(json.dumps(accounting.to_mapping()))


@app.command(
    epilog="Example: cerebras-gpt plan 111M --mup    or: cerebras-gpt plan --minutes 5 --data data/ --out plan.json"
)
def plan(
    size: Annotated[str | None, typer.Argument(help="A published size: 111M to 13B.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time on this machine, which is measured.")] = None,
    data: Annotated[Path | None, typer.Option(help="A pack: the planner must know how much text there is.")] = None,
    mup: Annotated[bool, typer.Option("--mup", help="The published muP recipe of the size.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON instead of tables.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the plan to this file.")] = None,
) -> None:
    """Plan a run from a published size, or from minutes on this machine."""
    from cerebras_gpt.plan.plan import published_plan

    if (size is None) == (minutes is None):
        raise ValueError("give a size (111M to 13B) or --minutes, one of the two")
    if size is not None:
        made = published_plan(size, "mup" if mup else "sp")
    else:
        assert minutes is not None
        made = _plan_here(minutes, data)
    if out is not None:
        out.write_text(made.to_json(), "utf-8")
    print(made.to_json() if as_json else _plan_text(made), end="")


def _plan_text(plan: "Plan") -> str:
    """The plan and its table of roles as aligned lines."""
    from cerebras_gpt.plan.plan import describe, role_table

    lines = [f"{label:<22} {value}" for label, value in describe(plan)]
    lines += ["", f"{'role':<13} {'init std':>10} {'lr scale':>9} {'peak lr':>10}  decays"]
    lines += [
        f"{row.role:<13} {row.init_std:>10.5g} {row.lr_scale:>9.4g} {row.peak_lr:>10.4g}  {('no', 'yes')[row.decays]}"
        for row in role_table(plan)
    ]
    return "\n".join([*lines, "", *(f"- {reason}" for reason in plan.reasons)]) + "\n"


def _plan_here(minutes: float, data: Path | None) -> "Plan":
    if data is None:
        raise ValueError("--minutes needs --data, a folder made by `cerebras-gpt pack`: its size limits the plan")
    _prepare_process()
    from cerebras_gpt.train.calibrate import plan_here

    return plan_here(minutes, data).plan


@app.command(epilog="Example: cerebras-gpt pretrain plan.json --data data/ --out runs/mine peak_lr=0.004 seed=1")
def pretrain(
    plan: Annotated[str, typer.Argument(help="A plan.json, or a published size.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Plan settings as key=value.")] = None,
    data: Annotated[Path, typer.Option(help="A pack.")] = Path("data"),
    out: Out = Path("runs/run"),
) -> None:
    """Train a plan on a pack; run it again after any interruption and it goes on, bit by bit the same."""
    _prepare_process()
    from cerebras_gpt import distributed
    from cerebras_gpt.plan.plan import Plan, overridden, published_plan
    from cerebras_gpt.train.pretrain import pretrain as train

    wrong = [text for text in overrides or [] if "=" not in text]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not key=value; for example peak_lr=0.004")
    made = Plan.load(Path(plan)) if Path(plan).exists() else published_plan(plan)
    made = overridden(made, dict(text.split("=", 1) for text in overrides or []))
    train(made, data, out, distributed.join())
    print(out)


@app.command(epilog='Example: cerebras-gpt generate runs/quickstart --prompt "My fellow citizens" --top-k 50')
def generate(
    run: RunPath,
    prompt: Annotated[str, typer.Option(help="How the text begins.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Longest continuation.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Only the k likeliest tokens; 0 is all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Only the likeliest tokens of this total probability.")] = 0.95,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 discourages what already occurred.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Same seed, same text.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this string; may be given again.")] = None,
) -> None:
    """Continue a prompt, streaming."""
    _prepare_process()
    from cerebras_gpt.generate.lm import LM
    from cerebras_gpt.generate.sampling import Sampling

    sampling = Sampling(temperature, top_k, top_p, repetition_penalty, seed)
    lm = LM.load(run)
    print(prompt, end="", flush=True)
    for piece in lm.stream(prompt, max_tokens, sampling, stop or ()):
        print(piece, end="", flush=True)
    print()


@app.command(epilog="Example: cerebras-gpt evaluate runs/quickstart --text book.txt")
def evaluate(
    run: RunPath,
    text: Annotated[Path, typer.Option(help="A UTF-8 text file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Score a text: perplexity and bits per byte."""
    _prepare_process()
    from cerebras_gpt.evaluate.perplexity import perplexity
    from cerebras_gpt.generate.lm import LM

    found = perplexity(LM.load(run), text)
    if as_json:
        print(json.dumps(found._asdict()))
    else:
        print(
            f"{found.bits_per_byte:.4f} bits per byte, {found.loss:.4f} nats per token, perplexity "
            f"{found.perplexity:.2f} over {found.n_tokens:,} tokens, {found.n_bytes:,} bytes"
        )


@app.command(epilog="Example: cerebras-gpt report runs/a runs/b --out comparison.html")
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Out = Path("report.html"),
) -> None:
    """Write one self-contained HTML page with pictures of one or more runs."""
    from cerebras_gpt.report.page import write_report

    print(write_report(runs, out))


@app.command(epilog="Example: cerebras-gpt verify runs/quickstart")
def verify(path: Annotated[Path, typer.Argument(help="A pack, a checkpoint or a run folder.")]) -> None:
    """Check every file of a pack or of a run's checkpoints against its recorded hash."""
    from cerebras_gpt import checkpoint
    from cerebras_gpt.data import shards

    found = checkpoint.checkpoints(path)
    if found or (path / "model.json").exists():
        for folder in found or [path]:
            checkpoint.verify(folder)
            print(f"{folder}: good")
    else:
        shards.verify(path)
        print(f"{path}: good")


def _prepare_process() -> None:
    """Thread placement and memory, before torch is imported."""
    from cerebras_gpt.process import bind_threads, keep_memory

    bind_threads()
    keep_memory()


def main() -> None:
    """Runs a verb; a mistake is one line on stderr and exit code 2."""
    logging.basicConfig(format="cerebras-gpt: %(message)s", level=logging.WARNING)
    try:
        code = app(standalone_mode=False) or DONE
    except BaseException as error:
        code = _explain(error)
    sys.exit(code)


def _explain(error: BaseException) -> int:
    """The exit code of an error, after its one line; raises again what is a bug of ours."""
    if isinstance(error, typer.Exit):
        return error.exit_code
    known = {"DivergedError": DIVERGED, "StoppedError": STOPPED, "KeyboardInterrupt": STOPPED, "Abort": STOPPED}
    for kind in type(error).__mro__:
        if kind.__name__ in known:
            return _say(str(error) or "interrupted", known[kind.__name__])
    if hasattr(error, "format_message"):  # click's own: unknown option, missing argument
        return _say(f"{error.format_message()}; see --help", MISTAKE)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return _say(f"no space left on the disk of {error.filename or 'the output'}; free some and run again", MISTAKE)
    if isinstance(error, OSError) and error.filename is not None and not isinstance(error, FileNotFoundError):
        return _say(f"{error.filename}: {(error.strerror or 'cannot be used').lower()}", MISTAKE)
    if isinstance(error, ValueError | FileNotFoundError):
        return _say(str(error), MISTAKE)
    raise error


def _say(line: str, code: int) -> int:
    print(f"cerebras-gpt: {' '.join(line.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
