"""Verbs that make something: quickstart, tokenizer, pack, plan, pretrain.

Nothing heavy is imported up here: `cerebras-gpt --help` must answer at once, so each verb imports what it needs.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerebras_gpt.cli.app import Out, app, prepare_process
from cerebras_gpt.cli.planning import check_minutes

if TYPE_CHECKING:
    from cerebras_gpt.plan.plan import Plan

Sources = Annotated[list[str], typer.Argument(help="Text files, folders, or - for standard input.")]


@app.command(epilog="Example: cerebras-gpt quickstart --minutes 5 --data my_texts/ --out runs/mine")
def quickstart(
    minutes: Annotated[float, typer.Option(help="Training time; set-up comes on top.", callback=check_minutes)] = 5.0,
    out: Out = Path("runs/quickstart"),
    corpus: Annotated[str, typer.Option(help="Built-in text: sotu, wiki, or both as sotu+wiki.")] = "sotu",
    data: Annotated[list[str] | None, typer.Option(help="Your own text instead: files or folders.")] = None,
) -> None:
    """From raw text to a model that speaks: tokenizer, shards, plan, training, samples, report."""
    prepare_process()
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
    out.parent.mkdir(parents=True, exist_ok=True)
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
    epilog="Example: cerebras-gpt plan 111M --mup    or: cerebras-gpt plan --flops 1e18 --data data/ --out plan.json"
)
def plan(
    size: Annotated[str | None, typer.Argument(help="A published size: 111M to 13B.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Training time on this machine, which is measured.", callback=check_minutes)
    ] = None,
    flops: Annotated[float | None, typer.Option(help="Training compute.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Tokens to train on.")] = None,
    cost: Annotated[float | None, typer.Option(help="Money to spend, in the unit of --price.")] = None,
    price: Annotated[float | None, typer.Option(help="Price of one device for an hour.")] = None,
    device_flops: Annotated[
        float | None, typer.Option(help="FLOP/s that a device reaches in training; measured here if not given.")
    ] = None,
    formula: Annotated[
        str, typer.Option(help="How FLOPs are counted: cerebras, cerebras-readme, standard or 6nd.")
    ] = "cerebras",
    inference_tokens: Annotated[
        float | None, typer.Option(help="Tokens of later use: a smaller model, trained longer, may cost less in all.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A pack: the planner must know how much text there is.")] = None,
    mup: Annotated[bool, typer.Option("--mup", help="The published muP recipe of the size.")] = False,
    tuned: Annotated[
        Path | None, typer.Option(help="What `tune` found: its values, carried over to this shape.")
    ] = None,
    noise_from: Annotated[
        Path | None, typer.Option(help="A run: its measured gradient noise scale decides the batch.")
    ] = None,
    yaml: Annotated[bool, typer.Option("--yaml", help="As the released files say where the paper differs.")] = False,
    memory: Annotated[
        float | None, typer.Option(help="Gigabytes of the device that will train; refused if the plan does not fit.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure this machine: how long it will take.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON instead of tables.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the plan to this file.")] = None,
) -> None:
    """Plan a run from a published size, time on this machine, compute, tokens or money."""
    from cerebras_gpt.cli import planning
    from cerebras_gpt.files import replace_text

    budgets = {"a size": size, "--minutes": minutes, "--flops": flops, "--tokens": tokens, "--cost": cost}
    beside = {
        "--price": (("--cost",), price),
        "--device-flops": (("--cost",), device_flops),
        "--inference-tokens": (("--flops", "--tokens", "--cost"), inference_tokens),
        "--yaml": (("a size",), yaml),
    }
    planning.one_budget(budgets, beside)
    recipe = planning.recipe_of(tuned)
    calibration = None
    if minutes is not None:
        made, calibration = planning.of_minutes(minutes, data, recipe)
    elif size is not None:
        made = recipe(planning.of_size(size, planning.PUBLISHED_FAMILIES[mup][yaml], data))
    else:
        if flops is not None:
            made = planning.of_compute(flops, formula, data)
        elif tokens is not None:
            made = planning.of_tokens(tokens, data)
        elif cost is not None:
            made = planning.of_money(planning.Money(cost, price, device_flops), formula, data)
        made = recipe(planning.used(made, inference_tokens, data))
    made = planning.with_batch(made, noise_from)
    if measure and calibration is None:
        calibration = planning.measured(made)
    before = planning.before_the_run(made, memory, calibration)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(out, made.to_json())
    print(made.to_json() if as_json else planning.text_of_plan(made, before), end="")


@app.command(epilog="Example: cerebras-gpt pretrain plan.json --data data/ --out runs/mine peak_lr=0.004 seed=1")
def pretrain(
    plan: Annotated[str, typer.Argument(help="A plan.json, or a published size.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Plan settings as key=value.")] = None,
    data: Annotated[Path, typer.Option(help="A pack.")] = Path("data"),
    out: Out = Path("runs/run"),
    patience: Annotated[
        float, typer.Option(help="Seconds that a process of many waits for another before it gives up.")
    ] = 600.0,
) -> None:
    """Train a plan on a pack; run it again after any interruption and it goes on, bit by bit the same."""
    prepare_process()
    from cerebras_gpt import distributed
    from cerebras_gpt.train.pretrain import pretrain as train

    made = with_settings(named_plan(plan), overrides or [])
    with distributed.joined(patience) as world:
        train(made, data, out, world)
    if world.is_main:
        print(out)


def named_plan(name: str) -> "Plan":
    """The plan in a file or run folder of that name, or of the published size of that name."""
    from cerebras_gpt.plan.plan import Plan, published_plan

    if Path(name).exists():
        return Plan.load(Path(name))
    if Path(name).suffix == ".json" or os.sep in name:
        raise FileNotFoundError(f"no plan at {name}; make one with: cerebras-gpt plan 111M --out {name}")
    return published_plan(name)


def with_settings(plan: "Plan", overrides: list[str]) -> "Plan":
    """The plan with the key=value settings of a command line."""
    from cerebras_gpt.plan.plan import overridden

    for text in overrides:
        if not text.partition("=")[0] or "=" not in text:
            raise ValueError(f"{text!r} is not key=value; write a setting of the plan such as peak_lr=0.004")
    return overridden(plan, dict(text.split("=", 1) for text in overrides))
