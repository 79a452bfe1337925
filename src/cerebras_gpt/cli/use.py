"""Verbs that use runs: generate, evaluate, report."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerebras_gpt.cli.app import AsJson, DraftRun, Out, RunPath, Weights, app, prepare_process

if TYPE_CHECKING:
    from cerebras_gpt.generate.lm import LM
    from cerebras_gpt.tasks.scoring import Asking


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
    weights: Weights = "auto",
    draft: DraftRun = None,
    title: Annotated[str, typer.Option(help="Begin a document with this title, before the prompt.")] = "",
    words: Annotated[int, typer.Option(help="About so many words, to the end of a sentence; implies --slide.")] = 0,
    slide: Annotated[
        bool, typer.Option("--slide", help="Go on beyond the context, the opening kept in sight.")
    ] = False,
    no_repeat: Annotated[int, typer.Option(help="No run of so many tokens occurs twice; 0 is off.")] = 0,
    judge: Annotated[Path | None, typer.Option(help="Another run, to tell how it finds the text.")] = None,
) -> None:
    """Continue a prompt or a title, streaming."""
    prepare_process()
    from cerebras_gpt.process import uncollected

    with uncollected():
        from cerebras_gpt.generate.lm import LM
        from cerebras_gpt.generate.precision import precision
        from cerebras_gpt.generate.sampling import Sampling
        from cerebras_gpt.generate.story import tell, tell_words

        sampling = Sampling(temperature, top_k, top_p, repetition_penalty, seed, no_repeat=no_repeat)
        lm = LM.load(run, precision(weights), draft)
        other = None if judge is None else LM.load(judge)
    begun = f"{title}\n\n{prompt}" if title else prompt
    if words:
        pieces = tell_words(lm, begun, words, sampling, stop or ())
    elif slide:
        pieces = tell(lm, begun, max_tokens, sampling, stop or ())
    else:
        pieces = lm.stream(begun, max_tokens, sampling, stop or ())
    print(begun, end="", flush=True)
    text = ""
    for piece in pieces:
        print(piece, end="", flush=True)
        text += piece
    print()
    if other is not None:
        _tell_opinion(other, begun, text)


def _tell_opinion(judge: "LM", prompt: str, text: str) -> None:
    from cerebras_gpt.tasks.story import opinion, variety

    of_text, found = variety(text), opinion(judge, prompt, text)
    print(
        f"{of_text.words:,} words, distinct-1 {of_text.distinct_1:.3f}, distinct-2 {of_text.distinct_2:.3f}, "
        f"repeated {of_text.repeated:.1%}; the judge: perplexity {found.perplexity:.1f}, "
        f"{found.bits_per_byte:.3f} bits per byte",
        file=sys.stderr,
    )


@app.command(epilog="Example: cerebras-gpt evaluate runs/quickstart --task blimp --data BLiMP.zip")
def evaluate(
    run: RunPath,
    text: Annotated[Path | None, typer.Option(help="A UTF-8 text file.")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="hellaswag, piqa, winogrande, lambada, arc-easy, arc-challenge, openbookqa, blimp, crows-pairs."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The benchmark's own file, folder or zip; examples of a task.")
    ] = None,
    few_shot: Annotated[int, typer.Option(help="Solved examples before each question.")] = 0,
    shots: Annotated[
        Path | None, typer.Option(help="File to draw them from; else the data, never the question.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first examples of the file.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records out, and count them.")] = False,
    segments: Annotated[bool, typer.Option("--segments", help="Read texts longer than the window in parts.")] = False,
    stride: Annotated[int, typer.Option(help="Tokens of --text that each window scores; 0 is half of it.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Score a text (perplexity, bits per byte), a published benchmark (with standard error), or examples of a task."""
    if (text is None) == (task is None) or (task is None) != (data is None):
        raise ValueError("evaluate takes --text FILE, or --task NAME with --data FILE; give one of the two")
    prepare_process()
    if task is not None and data is not None:
        from cerebras_gpt.evaluate.score import Ask, plain, score, table
        from cerebras_gpt.tasks.scoring import Asking
        from cerebras_gpt.tasks.table import TASKS

        if task in TASKS:
            if skip_bad:
                raise ValueError(f"--skip-bad is for benchmarks; bad rows of {task} are always left out and counted")
            _evaluate_task(run, task, data, Asking(few_shot, shots, limit, segments), as_json)
            return
        made = score(run, Ask(task, data, few_shot, shots, limit, skip_bad))
        print(json.dumps(plain(made), indent=1) + "\n" if as_json else table(made), end="")
    elif text is not None:
        _evaluate_text(run, text, stride, as_json)


def _evaluate_task(run: Path, task: str, data: Path, asking: "Asking", as_json: bool) -> None:
    from cerebras_gpt.tasks.scoring import score

    scores, findings = score(run, task, data, asking)
    for line in findings.lines():
        print(line, file=sys.stderr)
    print(json.dumps(dict(scores.figures)) if as_json else scores)


def _evaluate_text(run: Path, text: Path, stride: int, as_json: bool) -> None:
    from cerebras_gpt.evaluate.perplexity import perplexity
    from cerebras_gpt.generate.lm import LM

    found = perplexity(LM.load(run), text, stride)
    if as_json:
        print(json.dumps(found._asdict()))
    else:
        print(
            f"{found.bits_per_byte:.4f} bits per byte, {found.loss:.4f} nats per token, perplexity "
            f"{found.perplexity:.2f} over {found.n_tokens:,} tokens, {found.n_bytes:,} bytes"
        )


@app.command(epilog="Example: cerebras-gpt report runs/a runs/b --out comparison.html")
def report(
    paths: Annotated[list[Path], typer.Argument(help="Folders of runs, ladders, checks or scores, and law files.")],
    out: Out = Path("report.html"),
) -> None:
    """Write one self-contained HTML page with pictures of runs, ladders, checks and laws."""
    from cerebras_gpt.report.page import write_report

    print(write_report(paths, out))
