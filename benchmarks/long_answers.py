"""What segments buy when a question's answer stands somewhere in a document longer than the window.

    python benchmarks/long_answers.py --run runs/quickstart --work work/long-answers \\
        --out benchmarks/results/DATE-long-answers.json --picture docs/long-answers.png

RUN is adapted to "What is X?" over the introduction of X in Wikipedia, to be answered by its short description, or by
"not in the documents" where the introduction is another's. Documents are made by joining introductions of unseen
articles, the one that is asked about at a random place. Needs the package's extra `quickstart`.
"""

import argparse
import hashlib
import json
import platform
import random
from pathlib import Path

import torch
from long_texts import draw
from uses import write_parts

from cerebras_gpt import checkpoint
from cerebras_gpt.data.corpora import CORPORA, EXTRA
from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.adapt import Adaptation
from cerebras_gpt.tasks.metrics import standard_error
from cerebras_gpt.tasks.question_answering import NOT_THERE, QuestionAnswering
from cerebras_gpt.tasks.segments import score_answers
from cerebras_gpt.tasks.table import load_task
from cerebras_gpt.tasks.tuning_data import read_tuning_data
from cerebras_gpt.tasks.tuning_plan import Tuning
from cerebras_gpt.text.installed import installed_file

JOINED = (1, 2, 4, 8)
WAYS = {
    "without the middle": QuestionAnswering.score,
    "in segments": lambda task, lm, examples: score_answers(lm, task, examples),
}
Row = dict[str, object]


def parts() -> dict[str, list[Row]]:
    """Questions to learn from and to ask, by the SHA-1 of the title; every second has another's introduction."""
    corpus, stream = CORPORA["wiki"], random.Random(0)
    articles = json.loads(installed_file(corpus.package, corpus.version, EXTRA, corpus.file).read_bytes())
    by_part: dict[str, list[Row]] = {"train": [], "test": []}
    for title, article in articles.items():
        if article.get("description"):
            is_test = int(hashlib.sha1(title.encode()).hexdigest(), 16) % 10 < 2
            row = {"question": f"What is {title}?", "context": article["extract"], "answer": article["description"]}
            by_part["test" if is_test else "train"].append(row)
    told = by_part["train"]
    others = [
        {**row, "context": stream.choice(told)["context"], "answer": NOT_THERE} for row in told if stream.random() < 0.5
    ]
    return {"train": told + others, "test": by_part["test"]}


def joined(task: QuestionAnswering, rows: list[Row], n_joined: int, n_texts: int) -> list[Example]:
    """Questions over so many introductions at a time, one of them the right one."""
    stream, found = random.Random(0), []
    for _ in range(n_texts):
        asked, *others = stream.sample(rows, n_joined)
        texts = [str(row["context"]) for row in others]
        texts.insert(stream.randint(0, len(texts)), str(asked["context"]))
        answer = str(asked["answer"])
        prompt = task.prompt(str(asked["question"]), "\n\n".join(texts))
        found.append(Example(prompt, f" {answer}", (answer,), 0))
    return found


def adapted(run: Path, work: Path, rows: dict[str, list[Row]], tuning: Tuning) -> Path:
    """The run after tuning on the questions; goes on where it was stopped."""
    files, folder = write_parts(rows, work / "data"), checkpoint.resolve(run)
    lm, out = LM.load(folder), work / "run"
    data = read_tuning_data("question-answering", files.train, None, lm.tokenizer, lm.model.architecture.seq_len)
    print(*data.lines(), sep="\n", flush=True)
    print(Adaptation(folder, out, data, tuning).run(), flush=True)
    return out


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Word overlap against length, in both ways."""
    rows = parts()
    tuning = Tuning(epochs=arguments.epochs, minutes=arguments.minutes)
    run = adapted(arguments.run, arguments.work, rows, tuning)
    task, lm = load_task(run), LM.load(run)
    assert isinstance(task, QuestionAnswering)
    lengths = []
    for n in JOINED:
        examples = joined(task, rows["test"], n, arguments.texts)
        tokens = sum(len(lm.tokenizer.encode(example.prompt)) for example in examples) / len(examples)
        scores = {name: dict(way(task, lm, examples).figures) for name, way in WAYS.items()}
        lengths.append({"joined": n, "mean_tokens": round(tokens, 1), **scores})
        print(lengths[-1], flush=True)
    return {
        "texts": arguments.texts,
        "window": lm.model.architecture.seq_len,
        "standard_error_at_half": standard_error(0.5, arguments.texts),
        "lengths": lengths,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }


def main() -> None:
    """Tunes, measures, writes, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("work/long-answers"))
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--minutes", type=float, default=15.0, help="of tuning, at most")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    arguments = parser.parse_args()
    found = measure(arguments)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    draw(found, arguments.picture, "f1", "word overlap (F1)")


if __name__ == "__main__":
    main()
