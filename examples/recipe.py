"""What the recipes share: files of installed packages in, a run that does a task out."""

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from cerebras_gpt import checkpoint
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.adapt import Adaptation
from cerebras_gpt.tasks.tuning_data import read_tuning_data
from cerebras_gpt.tasks.tuning_plan import Tuning

USUAL = Tuning()


def package_file(package: str, tail: str) -> Path:
    """The file of an installed package whose path ends so; the error says what to install."""
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError:
        raise SystemExit(f"this recipe reads the package {package}; pip install {package}") from None
    return next(Path(str(file.locate())) for file in files if file.as_posix().endswith(tail))


def arguments(words: str, out: str) -> argparse.Namespace:
    """What every recipe is asked: RUN, --out, --minutes, --limit."""
    parser = argparse.ArgumentParser(description=words)
    parser.add_argument("run", type=Path, help="the run to start from, such as runs/quickstart")
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, at most")
    parser.add_argument("--limit", type=int, help="only so many rows, for a quick look")
    return parser.parse_args()


def adapted(
    given: argparse.Namespace,
    task: str,
    rows: Iterable[dict[str, object]],
    template: str = "",
    tuning: Tuning = USUAL,
) -> LM:
    """Writes the rows beside the run, tunes on them, prints the held-out scores; gives the model."""
    file = given.out.parent / f"{given.out.name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows][: given.limit]
    file.write_text("".join(lines), "utf-8")
    folder = checkpoint.resolve(given.run)
    lm = LM.load(folder)
    data = read_tuning_data(task, file, None, lm.tokenizer, lm.model.architecture.seq_len, template)
    print(*data.lines(), sep="\n")
    print(Adaptation(folder, given.out, data, replace(tuning, minutes=given.minutes)).run())
    return LM.load(given.out)
