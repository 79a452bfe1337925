"""Uses of an adapted model beside honest baselines: one command for each use, which goes on where it was stopped.

    python benchmarks/uses.py wiki-topics --run runs/quickstart --out work/uses
    python benchmarks/uses.py sst2 --run runs/quickstart --data sst2/ --out work/uses --lora 8 --minutes 20

The result of each (use, way of tuning, seed) is one entry of uses.json in the folder. Needs scikit-learn; the data of
wiki-topics comes with the package's extra `quickstart`, the others are folders or archives as their authors give them.
"""

import argparse
import gzip
import hashlib
import json
import platform
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.data.corpora import CORPORA, EXTRA
from cerebras_gpt.data.examples import Example
from cerebras_gpt.files import replace_text
from cerebras_gpt.generate.beam import Beam
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.model.lora import add_low_rank
from cerebras_gpt.record import read_metrics
from cerebras_gpt.tasks.adapt import Adaptation
from cerebras_gpt.tasks.metrics import exact_match, standard_error
from cerebras_gpt.tasks.table import load_task, read_examples
from cerebras_gpt.tasks.translation import Translation, of_translations
from cerebras_gpt.tasks.tuning_data import read_tuning_data
from cerebras_gpt.tasks.tuning_plan import Tuning
from cerebras_gpt.text.installed import installed_file

Row = dict[str, object]
Parts = dict[str, list[Row]]
"""train, test, and perhaps held_out."""


def wiki_topics(_: Path | None) -> Parts:
    """Wikipedia's vital articles and their eleven topics, split by the SHA-1 of the title."""
    corpus = CORPORA["wiki"]
    articles = json.loads(installed_file(corpus.package, corpus.version, EXTRA, corpus.file).read_bytes())
    parts: Parts = {"train": [], "test": []}
    for title, article in articles.items():
        if article["topic"] not in (None, "", "Uncategorized"):
            is_test = int(hashlib.sha1(title.encode()).hexdigest(), 16) % 10 < 2
            row = {"text": f"{title}\n\n{article['extract']}", "label": article["topic"]}
            parts["test" if is_test else "train"].append(row)
    return parts


def sst2(data: Path | None) -> Parts:
    """Sentences of film reviews, good or bad: train.tsv, dev.tsv, test.tsv without a head line."""
    assert data is not None
    words = {"0": "bad", "1": "good"}
    parts: Parts = {}
    for part, file in {"train": "train.tsv", "held_out": "dev.tsv", "test": "test.tsv"}.items():
        lines = [line.rsplit("\t", 1) for line in (data / file).read_text("utf-8").splitlines()]
        parts[part] = [{"text": text, "label": words[label]} for text, label in lines]
    return parts


def babi_questions(text: str, name: str) -> Iterator[Row]:
    """The questions of one of bAbI's files, each with its story so far."""
    story: list[str] = []
    for line in text.splitlines():
        number, _, rest = line.partition(" ")
        story = [] if number == "1" else story
        question, *answer = rest.split("\t")
        if answer:
            yield {"context": " ".join(story), "question": question.strip(), "answer": answer[0], "part": name}
        else:
            story.append(rest.strip())


def babi(data: Path | None) -> Parts:
    """Nineteen kinds of questions about little stories (Weston et al. 2015); those without training data left out."""
    assert data is not None
    parts: Parts = {"train": [], "test": []}
    with tarfile.open(data) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            found = re.search(r"(qa\d+)_.*_(train|test)\.txt$", member.name)
            stream = archive.extractfile(member)
            if found and stream:
                parts[found[2]] += babi_questions(stream.read().decode(), found[1])
    known = {row["part"] for row in parts["train"]}
    parts["test"] = [row for row in parts["test"] if row["part"] in known]
    return parts


def multi30k(data: Path | None) -> Parts:
    """Descriptions of pictures, English to German."""
    assert data is not None
    parts: Parts = {}
    for part, stem in {"train": "train", "held_out": "val", "test": "test_2016_flickr"}.items():
        english, german = (
            gzip.decompress((data / f"{stem}.{language}.gz").read_bytes()).decode().splitlines()
            for language in ("en", "de")
        )
        pairs = zip(english, german, strict=True)
        parts[part] = [{"source": en, "target": de, "pair": "en-de"} for en, de in pairs]
    return parts


def classification_baselines(parts: Parts) -> dict[str, float]:
    """Accuracy of the most frequent label, and of a linear SVM on TF-IDF of words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    texts, labels = ([str(row[key]) for row in parts["train"]] for key in ("text", "label"))
    asked, right = ([str(row[key]) for row in parts["test"]] for key in ("text", "label"))
    svm = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC(random_state=0))
    said = svm.fit(texts, labels).predict(asked)
    usual = Counter(labels).most_common(1)[0][0]
    return {
        "majority": sum(label == usual for label in right) / len(right),
        "tf-idf and linear SVM": sum(a == b for a, b in zip(said, right, strict=True)) / len(right),
    }


def babi_baselines(parts: Parts) -> dict[str, float]:
    """Mean over the kinds of the share of the most frequent answer."""
    shares = []
    for part in dict.fromkeys(row["part"] for row in parts["test"]):
        usual = Counter(row["answer"] for row in parts["train"] if row["part"] == part).most_common(1)
        likely = [answer for answer, _ in usual]  # none, if a quick look left no training rows of this kind
        right = [row["answer"] in likely for row in parts["test"] if row["part"] == part]
        shares.append(sum(right) / len(right))
    return {"majority": sum(shares) / len(shares)}


def copy_baseline(parts: Parts) -> dict[str, float]:
    """BLEU of leaving the text as it is."""
    examples = [Example("", f" {row['target']}") for row in parts["test"]]
    return {"copy": of_translations([str(row["source"]) for row in parts["test"]], examples).figures["bleu"]}


class Use(NamedTuple):
    """What is done with which data."""

    task: str
    read: Callable[[Path | None], Parts]
    baselines: Callable[[Parts], dict[str, float]]
    published: dict[str, float]
    template: str = ""


USES = {
    "wiki-topics": Use("classification", wiki_topics, classification_baselines, {}, "{text}\n\nTopic:"),
    "sst2": Use("classification", sst2, classification_baselines, {"CNN, random start": 0.835}, "{text}\nThe film is"),
    "babi": Use("question-answering", babi, babi_baselines, {}),
    "multi30k": Use("translation", multi30k, copy_baseline, {"Transformer-tiny, BLEU": 41.02}),
}


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
    tuning = Tuning(
        arguments.lora, arguments.epochs, minutes=arguments.minutes, rate=arguments.rate, seed=arguments.seed
    )
    folder = checkpoint.resolve(arguments.run)
    lm = LM.load(folder)
    seq_len = lm.model.architecture.seq_len
    data = read_tuning_data(use.task, files.train, files.held_out, lm.tokenizer, seq_len, use.template)
    out = arguments.out / f"{name}-{f'lora{arguments.lora}' if arguments.lora else 'full'}-seed{arguments.seed}"
    scores = Adaptation(folder, out, data, tuning).run()
    rows = read_metrics(out / "metrics.jsonl")
    return {
        "use": name,
        "tuning": asdict(tuning),
        "examples": {part: len(rows) for part, rows in parts.items()},
        "parameters": lm.model.architecture.n_parameters,
        "tuned_parameters": n_tuned(folder, tuning.rank),
        "training_seconds": max((float(str(row["seconds"])) for row in rows if row["kind"] == "train"), default=0.0),
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


def main() -> None:
    """One use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("use", choices=USES)
    parser.add_argument("--run", type=Path, required=True, help="the pretrained run to start from")
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
    kept = [old for old in entries if (old["use"], old["tuning"]) != (entry["use"], entry["tuning"])]
    replace_text(file, json.dumps([*kept, entry], indent=1) + "\n")
    print(json.dumps({key: entry[key] for key in ("use", "test", "baselines", "published")}, indent=1))


if __name__ == "__main__":
    main()
