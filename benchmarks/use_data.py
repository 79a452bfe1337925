"""Public sets of the uses in `uses.py`, as rows that `adapt` takes, with the baselines that must be beaten."""

import gzip
import hashlib
import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt.data.corpora import CORPORA, EXTRA
from cerebras_gpt.data.examples import Example
from cerebras_gpt.tasks.rows import Findings
from cerebras_gpt.tasks.rows import Row as FileRow
from cerebras_gpt.tasks.table import task_named
from cerebras_gpt.tasks.translation import of_translations
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


def labelled_phrases(tree: str) -> Iterator[tuple[str, int]]:
    """Every phrase of a tree in brackets with its label, 0 to 4; the last is the whole sentence."""
    begun: list[list[str]] = []
    for mark in re.findall(r"[()]|[^\s()]+", tree):
        if mark == "(":
            begun.append([])
        elif mark != ")":
            begun[-1].append(mark)
        else:
            label, *words = begun.pop()
            yield " ".join(words), int(label)
            if begun:
                begun[-1] += words


def as_in_sst2(phrase: str) -> str:
    """A phrase in the spelling of train.tsv: lower case, without the marks that it leaves out."""
    return " ".join(re.sub(r"[^a-z0-9(),!?'`]", " ", phrase.lower()).split())


def sst2_phrases(data: Path | None) -> Parts:
    """The same sentences and, to learn from, the labelled phrases of the training sentences' trees too.

    trees/train.txt and trees/dev.txt are Stanford's (Socher et al. 2013); a copy of train.txt may hold dev.txt as well.
    A phrase that is a whole held-out or test sentence is left out.
    """
    assert data is not None
    parts, folder = sst2(data), data / "trees"
    trees, held_out = (set((folder / f"{part}.txt").read_text("utf-8").splitlines()) for part in ("train", "dev"))
    known = {row["text"] for rows in parts.values() for row in rows}
    found: dict[str, int] = {}
    for tree in sorted(trees - held_out):
        for phrase, label in labelled_phrases(tree):
            found.setdefault(as_in_sst2(phrase), label)
    rows = [{"text": text, "label": "good" if label > 2 else "bad"} for text, label in found.items() if label != 2]
    parts["train"] += [row for row in rows if row["text"] and row["text"] not in known]
    return parts


def subj(data: Path | None) -> Parts:
    """Sentences about films, of reviews or of plots (Pang and Lee 2004): subj.all, a tenth by SHA-1 to test on."""
    assert data is not None
    words = {"0": "opinion", "1": "plot"}
    parts: Parts = {"train": [], "test": []}
    for line in (data / "subj.all").read_text("latin1").split("\n"):
        label, _, text = line.strip().partition(" ")
        if text:
            is_test = int(hashlib.sha1(text.encode()).hexdigest(), 16) % 10 == 0
            parts["test" if is_test else "train"].append({"text": text, "label": words[label]})
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


class Shape(NamedTuple):
    """Of a model that is trained from nothing on the training part of a use."""

    d_model: int
    n_layers: int
    vocab_size: int
    seq_len: int


class Use(NamedTuple):
    """What is done with which data."""

    task: str
    read: Callable[[Path | None], Parts]
    baselines: Callable[[Parts], dict[str, float]]
    published: dict[str, float]
    shape: Shape
    template: str = ""

    def documents(self, parts: Parts) -> list[str]:
        """The training part as text: prompts with their answers, those that share a beginning as one document."""
        rows = [FileRow(line, row) for line, row in enumerate(parts["train"], 1)]
        task, findings = task_named(self.task).of(rows, self.template), Findings()
        texts: list[str] = []
        context = None
        for row, example in zip(rows, task.examples(rows, findings), strict=True):
            before, context = context, row.values.get("context")
            if before and str(context).startswith(str(before)):
                texts[-1] += "\n" + f"{example.prompt}{example.answer}".removeprefix(str(before)).lstrip()
            else:
                texts.append(f"{example.prompt}{example.answer}")
        return texts


USES = {
    "wiki-topics": Use(
        "classification", wiki_topics, classification_baselines, {}, Shape(128, 2, 4096, 256), "{text}\n\nTopic:"
    ),
    "sst2": Use(
        "classification",
        sst2,
        classification_baselines,
        {},
        Shape(128, 2, 4096, 64),
        "{text}\nThe film is",
    ),
    "sst2-phrases": Use(
        "classification",
        sst2_phrases,
        classification_baselines,
        {"CNN, random start": 0.835},
        Shape(128, 2, 4096, 64),
        "{text}\nThe film is",
    ),
    "subj": Use(
        "classification",
        subj,
        classification_baselines,
        {"CNN, random start, ten folds": 0.892},
        Shape(128, 2, 4096, 64),
        "{text}\nThis is",
    ),
    "babi": Use("question-answering", babi, babi_baselines, {}, Shape(128, 4, 512, 256)),
    "multi30k": Use(
        "translation", multi30k, copy_baseline, {"Transformer-tiny, BLEU": 41.02}, Shape(192, 3, 4096, 128)
    ),
}
