"""Verbs that make something: quickstart, tokenizer, pack, plan, pretrain.

Nothing heavy is imported up here: `cerebras-gpt --help` must answer at once, so each verb imports what it needs.
"""

import json
import math
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerebras_gpt.cli.app import Out, app, prepare_process

if TYPE_CHECKING:
    from cerebras_gpt.plan.plan import Plan
    from cerebras_gpt.plan.sizes import Family
    from cerebras_gpt.plan.tuned import Recipe

Sources = Annotated[list[str], typer.Argument(help="Text files, folders, or - for standard input.")]


PUBLISHED_FAMILIES: "dict[bool, tuple[Family, Family]]" = {False: ("sp", "sp-yaml"), True: ("mup", "mup-yaml")}
"""By whether muP was asked for: the family of the paper, and that of the released configurations."""


def _time(minutes: float | None) -> float | None:
    """The minutes that an option gives, refused unless a run can take so long."""
    if minutes is not None and not 0 < minutes < math.inf:
        raise ValueError(f"--minutes {minutes:g} is not a time to train; give a positive number such as 5")
    return minutes


@app.command(epilog="Example: cerebras-gpt quickstart --minutes 5 --data my_texts/ --out runs/mine")
def quickstart(
    minutes: Annotated[float, typer.Option(help="Training time; set-up comes on top.", callback=_time)] = 5.0,
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
    epilog="Example: cerebras-gpt plan 111M --mup    or: cerebras-gpt plan --minutes 5 --data data/ --out plan.json"
)
def plan(
    size: Annotated[str | None, typer.Argument(help="A published size: 111M to 13B.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Training time on this machine, which is measured.", callback=_time)
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A pack: the planner must know how much text there is.")] = None,
    mup: Annotated[bool, typer.Option("--mup", help="The published muP recipe of the size.")] = False,
    tuned: Annotated[
        Path | None, typer.Option(help="What `tune` found: its values, carried over to this shape.")
    ] = None,
    yaml: Annotated[bool, typer.Option("--yaml", help="As the released files say where the paper differs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON instead of tables.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the plan to this file.")] = None,
) -> None:
    """Plan a run from a published size, or from minutes on this machine."""
    from cerebras_gpt.files import replace_text
    from cerebras_gpt.plan.plan import published_plan

    if (size is None) == (minutes is None):
        raise ValueError("give a size (111M to 13B) or --minutes, one of the two")
    if yaml and size is None:
        raise ValueError("--yaml is about a published size; give one (111M to 13B)")
    recipe = _recipe(tuned)
    if size is not None:
        paper, released = PUBLISHED_FAMILIES[mup]
        made = recipe(published_plan(size, released if yaml else paper))
    else:
        assert minutes is not None
        made = _plan_here(minutes, data, recipe)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(out, made.to_json())
    print(made.to_json() if as_json else _plan_text(made), end="")


def _plan_text(plan: "Plan") -> str:
    """The plan and its table of roles as aligned lines."""
    from cerebras_gpt.plan.plan import describe, role_table

    lines = [f"{label:<22} {value}" for label, value in describe(plan)]
    lines += ["", f"{'role':<13} {'init std':>10} {'lr scale':>9} {'peak lr':>10} {'decay':>7} {'eps':>8}"]
    lines += [
        f"{row.role:<13} {row.init_std:>10.5g} {row.lr_scale:>9.4g} {row.peak_lr:>10.4g}"
        f" {row.weight_decay:>7.3g} {row.adam_eps:>8.3g}"
        for row in role_table(plan)
    ]
    return "\n".join([*lines, "", *(f"- {reason}" for reason in plan.reasons)]) + "\n"


def _recipe(tuned: Path | None) -> "Recipe":
    """What gives a plan the values of a search; the published ones stay if there was none."""
    from cerebras_gpt.plan.tuned import Tuned, as_published, tuned_plan

    return as_published if tuned is None else partial(tuned_plan, tuned=Tuned.load(tuned))


def _plan_here(minutes: float, data: Path | None, recipe: "Recipe") -> "Plan":
    if data is None:
        raise ValueError("--minutes needs --data, a folder made by `cerebras-gpt pack`: its size limits the plan")
    prepare_process()
    from cerebras_gpt.train.pilot import plan_here

    with tempfile.TemporaryDirectory() as folder:
        return plan_here(minutes, data, Path(folder) / "pilot", recipe).plan


@app.command(epilog="Example: cerebras-gpt pretrain plan.json --data data/ --out runs/mine peak_lr=0.004 seed=1")
def pretrain(
    plan: Annotated[str, typer.Argument(help="A plan.json, or a published size.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Plan settings as key=value.")] = None,
    data: Annotated[Path, typer.Option(help="A pack.")] = Path("data"),
    out: Out = Path("runs/run"),
) -> None:
    """Train a plan on a pack; run it again after any interruption and it goes on, bit by bit the same."""
    prepare_process()
    from cerebras_gpt import distributed
    from cerebras_gpt.train.pretrain import pretrain as train

    made = with_settings(named_plan(plan), overrides or [])
    world = distributed.join()
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
