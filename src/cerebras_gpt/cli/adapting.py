"""Verbs that make a model do a task and have it done: adapt, ask."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerebras_gpt.cli.app import AsJson, Out, RunPath, app, prepare_process

if TYPE_CHECKING:
    from cerebras_gpt.tasks.ask import Interview
    from cerebras_gpt.tasks.rows import Findings, Row


@app.command(epilog="Example: cerebras-gpt adapt runs/quickstart --task classification --data a.csv --out runs/a")
def adapt(
    run: RunPath,
    task: Annotated[str, typer.Option(help="classification, translation, question-answering, dialogue, instruction.")],
    data: Annotated[Path, typer.Option(help="Examples: jsonl, json, csv, tsv or parquet.")],
    out: Out = Path("runs/adapted"),
    held_out: Annotated[
        Path | None, typer.Option(help="Examples to decide on, never learned; a tenth of the data if not given.")
    ] = None,
    lora: Annotated[int, typer.Option(help="Learn low-rank updates of this rank only; 0 tunes every weight.")] = 0,
    epochs: Annotated[float, typer.Option(help="Times each example is seen, at most.")] = 5.0,
    minutes: Annotated[float, typer.Option(help="Most minutes of updates on this machine; 0 is no limit.")] = 0.0,
    batch_size: Annotated[int, typer.Option(help="Examples in one step.")] = 16,
    rate: Annotated[float, typer.Option(help="Peak learning rate; 0 derives it from pretraining.")] = 0.0,
    patience: Annotated[int, typer.Option(help="Evaluations without a better one before it stops.")] = 5,
    seed: Annotated[int, typer.Option(help="Same seed, same model.")] = 0,
    template: Annotated[str, typer.Option(help="How an example is put, with the field in braces.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Only say what is in the file and what is wrong.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tune a model on examples of a task; run it again after any interruption and it goes on."""
    prepare_process()
    from cerebras_gpt import checkpoint, distributed
    from cerebras_gpt.generate.lm import LM
    from cerebras_gpt.report.confusion import FILE, write_confusion
    from cerebras_gpt.tasks.adapt import Adaptation
    from cerebras_gpt.tasks.classification import Classification
    from cerebras_gpt.tasks.tuning_data import read_tuning_data
    from cerebras_gpt.tasks.tuning_plan import Tuning

    tuning = Tuning(lora, epochs, batch_size, patience, minutes=minutes, rate=rate, seed=seed)
    folder = checkpoint.resolve(run)
    lm = LM.load(folder)
    found = read_tuning_data(task, data, held_out, lm.tokenizer, lm.model.architecture.seq_len, template)
    for line in found.lines():
        print(line, file=sys.stdout if check else sys.stderr)
    if check:
        return
    world = distributed.join()
    scores = Adaptation(folder, out, found, tuning, world).run()
    if world.is_main:
        if isinstance(found.task, Classification):
            write_confusion(found.task.table(found.examples, scores.answers), out / FILE)
        print(json.dumps(dict(scores.figures)) if as_json else f"{out}: {scores}, held out")


@app.command(epilog='Example: cerebras-gpt ask runs/topics "The viola is a bowed string instrument."')
def ask(
    run: RunPath,
    texts: Annotated[list[str] | None, typer.Argument(help="What to ask; else --data, or each line of stdin.")] = None,
    data: Annotated[Path | None, typer.Option(help="Rows to ask: jsonl, json, csv, tsv or parquet.")] = None,
    documents: Annotated[
        Path | None, typer.Option(help="File or folder that questions are answered from, with their source.")
    ] = None,
    pair: Annotated[str, typer.Option(help="Languages of a translation, such as en-de, if several were learned.")] = "",
    as_json: AsJson = False,
) -> None:
    """Have an adapted model do its task: label, translate, answer or reply, a line for each text."""
    if texts and data is not None:
        raise ValueError("ask takes texts or --data FILE; give one of the two")
    prepare_process()
    from cerebras_gpt.tasks.ask import Interview
    from cerebras_gpt.tasks.rows import Findings

    findings, interview = Findings(), Interview.with_run(run, documents, pair)
    for told in interview.ask(_asked(interview, texts, data, findings), findings):
        line = json.dumps({"line": told.line, **told.values}, ensure_ascii=False) if as_json else str(told)
        print(line, flush=True)
    for line in findings.lines():
        print(line, file=sys.stderr)


def _asked(interview: "Interview", texts: list[str] | None, data: Path | None, findings: "Findings") -> "list[Row]":
    from cerebras_gpt.tasks.rows import read_rows

    if data is not None:
        return read_rows(data, findings)
    return interview.rows_of(texts or [line.rstrip("\n") for line in sys.stdin if line.strip()])
