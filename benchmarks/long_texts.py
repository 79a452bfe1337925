"""What segments buy: labels and scores of texts longer than the window, read whole or without their middle.

    python benchmarks/long_texts.py --run runs/topics --untuned runs/quickstart --data test.jsonl \\
        --out benchmarks/results/DATE-long-texts.json --picture docs/long-texts.png

RUN was adapted to classification (benchmarks/uses.py, wiki-topics). Long texts are made by joining texts of one label,
so that their label stays right and their length is known. Beside it: the untuned run by likelihood on the texts as
they are, plain and calibrated, with no or a few solved examples.
"""

import argparse
import json
import platform
import random
from collections import defaultdict
from pathlib import Path

import matplotlib
import torch

from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.report.figures import STYLE, blank, colour_of
from cerebras_gpt.tasks.classification import Classification
from cerebras_gpt.tasks.few_shot import draw as draw_shots
from cerebras_gpt.tasks.few_shot import majority, score_by_likelihood
from cerebras_gpt.tasks.metrics import standard_error
from cerebras_gpt.tasks.segments import score_labels
from cerebras_gpt.tasks.table import load_task

JOINED = (1, 2, 4, 8)
WAYS = {"without the middle": Classification.score, "in segments": lambda task, lm, long: score_labels(lm, task, long)}


def joined(task: Classification, rows: list[dict], n_joined: int, n_texts: int) -> list[Example]:
    """Texts of one label, n at a time, labels in the proportion of the data."""
    by_label, stream = defaultdict(list), random.Random(0)
    for row in rows:
        by_label[row["label"]].append(row["text"])
    found = []
    for _ in range(n_texts):
        label = stream.choice(rows)["label"]
        text = "\n\n".join(stream.choice(by_label[label]) for _ in range(n_joined))
        choices = tuple(f" {name}" for name in task.labels)
        gold = task.labels.index(label)
        found.append(Example(task.prompt(text), choices[gold], choices, gold))
    return found


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Accuracy against length in both ways, then the untuned run."""
    rows = [json.loads(line) for line in arguments.data.read_text("utf-8").splitlines()]
    task, lm = load_task(arguments.run), LM.load(arguments.run)
    assert isinstance(task, Classification)
    lengths = []
    for n in JOINED:
        examples = joined(task, rows, n, arguments.texts)
        tokens = sum(len(lm.tokenizer.encode(example.prompt)) for example in examples) / len(examples)
        scores = {name: dict(way(task, lm, examples).figures) for name, way in WAYS.items()}
        lengths.append({"joined": n, "mean_tokens": round(tokens, 1), **scores, **majority(task, examples)})
        print(lengths[-1], flush=True)
    untuned, short, by_shots = LM.load(arguments.untuned), joined(task, rows, 1, arguments.texts), {}
    for n_shots in (0, 4):
        drawn = draw_shots(short, n_shots)
        by_shots[n_shots] = dict(score_by_likelihood(untuned, task, drawn.asked, drawn.shown).figures)
        print(n_shots, by_shots[n_shots], flush=True)
    return {
        "texts": arguments.texts,
        "window": lm.model.architecture.seq_len,
        "standard_error_at_half": standard_error(0.5, arguments.texts),
        "lengths": lengths,
        "untuned_by_shots": by_shots,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }


def draw(found: dict, path: Path, figure_of: str = "accuracy", words: str = "accuracy") -> None:
    """A score against length."""
    with matplotlib.rc_context(STYLE):
        figure, ax = blank(8.0, 4.0, "mean length of a text, in windows of the network", words)
        x = [entry["mean_tokens"] / found["window"] for entry in found["lengths"]]
        for i, name in enumerate(WAYS):
            y = [entry[name][figure_of] for entry in found["lengths"]]
            bars = [standard_error(value, found["texts"]) for value in y]
            ax.errorbar(x, y, yerr=bars, color=colour_of(i), marker="o", markersize=4, capsize=3, label=name)
        ax.legend(frameon=False)
        figure.savefig(path, dpi=90, facecolor="white")


def main() -> None:
    """Measures, writes, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--untuned", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="jsonl with text and label, not learned from")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    arguments = parser.parse_args()
    found = measure(arguments)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    draw(found, arguments.picture)


if __name__ == "__main__":
    main()
