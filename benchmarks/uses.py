"""Uses of an adapted model beside honest baselines: one command for each use, which goes on where it was stopped.

    python benchmarks/uses.py wiki-topics --run runs/quickstart --out work/uses
    python benchmarks/uses.py sst2 --pretrain 10 --data sst2/ --out work/uses --lora 8 --minutes 20

It begins with a run, or trains one from nothing on the text of the training part alone, read so many times
(--pretrain; 0 begins with random weights). The result of each (use, beginning, way of tuning, seed) is one entry of
uses.json in the folder. Needs scikit-learn; the data of wiki-topics comes with the package's extra `quickstart`, the
others are folders or archives as their authors give them.
"""

import argparse
import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch
from use_data import USES, Parts, Row, Shape, Use

from cerebras_gpt import checkpoint
from cerebras_gpt.data.documents import Document
from cerebras_gpt.data.examples import Example
from cerebras_gpt.data.shards import Shards, pack
from cerebras_gpt.distributed import World
from cerebras_gpt.files import replace_text
from cerebras_gpt.generate.beam import Beam
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.model.lora import add_low_rank
from cerebras_gpt.plan.budget import Text, small_plan
from cerebras_gpt.plan.families import mup
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.process import keep_memory
from cerebras_gpt.record import read_metrics
from cerebras_gpt.tasks.adapt import Adaptation
from cerebras_gpt.tasks.metrics import exact_match, standard_error
from cerebras_gpt.tasks.table import load_task, read_examples
from cerebras_gpt.tasks.translation import Translation
from cerebras_gpt.tasks.tuning_data import read_tuning_data
from cerebras_gpt.tasks.tuning_plan import Tuning
from cerebras_gpt.text.tokenizer import train_tokenizer
from cerebras_gpt.train.pretrain import pretrain


def shaped(shape: Shape, text: Text, epochs: float, seed: int) -> Plan:
    """The recipe of small runs for a shape of its own, the text read so many times."""
    plan = small_plan(128, text, 2)
    architecture = replace(plan.architecture, **shape._asdict(), n_heads=shape.d_model // 32)
    tokens = plan.batch_size * plan.architecture.seq_len
    plan = replace(
        plan,
        name=f"{architecture.n_parameters / 1e6:.2g}M",
        architecture=architecture,
        parametrization=mup(architecture),
        batch_size=tokens // shape.seq_len,
        seed=seed,
    )
    steps = max(2, round(epochs * text.n_tokens / plan.tokens_per_step))
    return replace(plan, steps=steps, warmup_steps=max(1, steps // 20))


def pretrained(use: Use, parts: Parts, folder: Path, epochs: float, seed: int) -> Path:
    """A run that has read the training part as text so many times, and nothing else."""
    data, run = folder / "pack", folder / f"pretrained-{epochs:g}-seed{seed}"
    if not data.exists():
        texts = use.documents(parts)
        documents = [Document(hashlib.sha1(text.encode()).hexdigest(), text) for text in dict.fromkeys(texts)]
        pack(documents, train_tokenizer(texts, use.shape.vocab_size), data, val_fraction=0.02)
    train = Shards.open(data, "train", verify=False)
    text = Text(train.vocab_size, train.n_tokens, train.n_bytes)
    shape = use.shape._replace(vocab_size=train.vocab_size)
    pretrain(shaped(shape, text, epochs, seed), data, run, World())
    return run


class Files(NamedTuple):
    """The parts of a use as files that `adapt` and `evaluate` take."""

    train: Path
    test: Path
    held_out: Path | None


def write_parts(parts: Parts, folder: Path) -> Files:
    """One JSON line a row."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.jsonl" for name in parts}
    for name, rows in parts.items():
        replace_text(paths[name], "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return Files(paths["train"], paths["test"], paths.get("held_out"))


def test_figures(run: Path, use: Use, files: Files, width: int) -> dict[str, float]:
    """How well the adapted run does on the test part."""
    task = load_task(run)
    assert task is not None
    found, lm = read_examples(task, files.test), LM.load(run)
    scores = task.score(lm, found.examples)
    figures = dict(scores.figures)
    if isinstance(task, Translation):
        wide = task.score_beam(lm, found.examples, Beam(width))
        return figures | {f"{name}_beam_{width}": value for name, value in wide.figures.items()}
    if use.task == "question-answering":
        parts = [json.loads(line)["part"] for line in files.test.read_text("utf-8").splitlines()]
        return figures | by_part(parts, scores.answers, found.examples)
    return figures | {"standard_error": standard_error(figures["accuracy"], len(found.examples))}


def by_part(parts: Sequence[str], answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Share of right answers in each part, and the mean over the parts."""
    right = [exact_match(said, example.choices) for said, example in zip(answers, examples, strict=True)]
    shares = {}
    for part in dict.fromkeys(parts):
        here = [value for value, name in zip(right, parts, strict=True) if name == part]
        shares[part] = sum(here) / len(here)
    return {"mean_over_parts": sum(shares.values()) / len(shares)} | shares


def trained_seconds(run: Path) -> float:
    """How long a run was trained."""
    rows = read_metrics(run / "metrics.jsonl")
    return max((float(str(row["seconds"])) for row in rows if row["kind"] == "train"), default=0.0)


def n_tuned(folder: Path, rank: int) -> int:
    """Numbers that tuning may change."""
    model = checkpoint.load_model(folder)
    if rank:
        model = add_low_rank(model, rank, torch.Generator().manual_seed(0))
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def measure(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Tunes, scores, and puts it beside the baselines."""
    use, parts = USES[name], USES[name].read(arguments.data)
    if arguments.limit:
        parts = {part: shuffled(rows)[: arguments.limit] for part, rows in parts.items()}
    files = write_parts(parts, arguments.out / "data" / name)
    begun = f"pretrained-{arguments.pretrain:g}" if arguments.run is None else arguments.run.name
    run = arguments.run or pretrained(use, parts, arguments.out / "data" / name, arguments.pretrain, arguments.seed)
    tuning = Tuning(
        arguments.lora, arguments.epochs, minutes=arguments.minutes, rate=arguments.rate, seed=arguments.seed
    )
    folder = checkpoint.resolve(run)
    lm = LM.load(folder)
    seq_len = lm.model.architecture.seq_len
    data = read_tuning_data(use.task, files.train, files.held_out, lm.tokenizer, seq_len, use.template)
    way = f"lora{arguments.lora}" if arguments.lora else "full"
    out = arguments.out / f"{name}-{begun}-{way}-seed{arguments.seed}"
    scores = Adaptation(folder, out, data, tuning).run()
    return {
        "use": name,
        "begun": begun,
        "pretraining_seconds": trained_seconds(run),
        "tuning": asdict(tuning),
        "examples": {part: len(rows) for part, rows in parts.items()},
        "parameters": lm.model.architecture.n_parameters,
        "tuned_parameters": n_tuned(folder, tuning.rank),
        "training_seconds": trained_seconds(out),
        "held_out": dict(scores.figures),
        "test": test_figures(out, use, files, arguments.beam),
        "baselines": use.baselines(parts),
        "published": use.published,
        "findings": data.findings.to_mapping(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }


def shuffled(rows: list[Row]) -> list[Row]:
    """The rows in an order of their own that is always the same."""
    return sorted(rows, key=lambda row: hashlib.sha1(json.dumps(row).encode()).digest())


def identity(entry: dict[str, object]) -> tuple[object, ...]:
    """What must be another for an entry to stand beside another."""
    return entry["use"], entry["begun"], entry["tuning"]


def main() -> None:
    """One use."""
    keep_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("use", choices=USES)
    begin = parser.add_mutually_exclusive_group(required=True)
    begin.add_argument("--run", type=Path, help="the pretrained run to begin with")
    begin.add_argument("--pretrain", type=float, help="begin with a run that has read the training part so many times")
    parser.add_argument("--data", type=Path, help="folder or archive of the data; wiki-topics brings its own")
    parser.add_argument("--out", type=Path, default=Path("work/uses"))
    parser.add_argument("--lora", type=int, default=0, help="rank of low-rank updates; 0 tunes every weight")
    parser.add_argument("--epochs", type=float, default=5.0)
    parser.add_argument("--minutes", type=float, default=0.0, help="most minutes of updates; 0 is no limit")
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--beam", type=int, default=4, help="width of the search, for translation")
    parser.add_argument("--limit", type=int, default=0, help="rows of each part at most, for a quick look")
    arguments = parser.parse_args()
    entry = measure(arguments.use, arguments)
    file = arguments.out / "uses.json"
    entries = json.loads(file.read_text("utf-8")) if file.exists() else []
    kept = [old for old in entries if identity(old) != identity(entry)]
    replace_text(file, json.dumps([*kept, entry], indent=1) + "\n")
    print(json.dumps({key: entry[key] for key in ("use", "test", "baselines", "published")}, indent=1))


if __name__ == "__main__":
    main()
