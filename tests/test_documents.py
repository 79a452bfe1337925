"""Every record is accounted for: documents out plus rejects by reason, each with its file and place."""

import gzip
import io
import json
import os
import sys
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebras_gpt.data.accounting import MAX_EXAMPLES, Accounting
from cerebras_gpt.data.documents import read_documents


def read(*sources):
    accounting = Accounting()
    return list(read_documents([str(source) for source in sources], accounting)), accounting


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


COMPRESSIONS = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:]),
    ".zst": lambda data: zstandard.compress(data[:5]) + zstandard.compress(data[5:]),
}
COMPRESSED = pytest.mark.parametrize("compression", COMPRESSIONS)


@COMPRESSED
@pytest.mark.parametrize("suffix", [".txt", ".md", ".TXT"])
def test_a_text_file_is_one_document(tmp_path, suffix, compression):
    path = tmp_path / f"a{suffix}{compression}"
    path.write_bytes(COMPRESSIONS[compression]("Zwei\r\nZeilen, naïve 日本".encode()))
    documents, accounting = read(path)
    assert documents == [(path.name, "Zwei\r\nZeilen, naïve 日本")]
    assert (accounting.n_records, accounting.n_documents) == (1, 1)


@COMPRESSED
@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson"])
def test_each_json_line_is_a_document(tmp_path, suffix, compression):
    path = tmp_path / f"a{suffix}{compression}"
    path.write_bytes(
        COMPRESSIONS[compression](lines({"text": "one"}, {"text": "two", "id": "b"}, {"text": "3", "id": 7}))
    )
    assert read(path)[0] == [(f"{path.name}:1", "one"), ("b", "two"), ("7", "3")]


def test_a_byte_order_mark_is_dropped(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone")
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + lines({"text": "two"}))
    assert [document.text for document in read(tmp_path)[0]] == ["one", "two"]


def test_a_folder_is_read_in_order_without_hidden_and_unknown_files(tmp_path):
    for name in ["b.txt", "a/z.txt", "a.txt", ".hidden.txt", ".git/x.txt", "picture.png", "a/deep/er.md"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    os.mkfifo(tmp_path / "pipe.txt")
    documents, accounting = read(tmp_path)
    assert [document.id for document in documents] == ["a.txt", "a/deep/er.md", "a/z.txt", "b.txt"]
    assert accounting.n_skipped_files == 2
    assert accounting.n_records == 4


def test_ids_do_not_depend_on_where_the_corpus_lies(tmp_path):
    for folder in ["one", "two/deeper"]:
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub/a.jsonl").write_bytes(lines({"text": "x"}))
    assert read(tmp_path / "one")[0] == read(tmp_path / "two/deeper")[0] == [("sub/a.jsonl:1", "x")]


def test_standard_input_is_one_document(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"hello")))
    assert read("-")[0] == [("stdin", "hello")]


HOSTILE_LINES = {
    b'{"text": "cut of': "bad JSON",
    b"[" * 100_000: "bad JSON",
    b'{"text": "a", "n": ' + b"1" * 4301 + b"}": "bad JSON",
    b'{"text": "raw \0 byte"}': "bad JSON",
    b'{"text": "\xff"}': "not UTF-8",
    '{"text": "sechzehn"}'.encode("utf-16-be"): "bad JSON",
    b'{"text": "\\ud800"}': "not UTF-8",
    b'{"texts": "a"}': "no text",
    b'{"text": null}': "no text",
    b'{"text": ["a"]}': "no text",
    b'["text"]': "no text",
    b"3": "no text",
    b'{"text": ""}': "empty",
    b'{"text": " \\n"}': "empty",
}
GOOD_LINES = [b'{"text": "good"}', b'{"text": "good", "x": NaN, "y": 1e400}', b'{"text": "bad", "text": "good"}']


@given(st.lists(st.sampled_from([*HOSTILE_LINES, *GOOD_LINES, b"", b"  \r"]), max_size=30))
@settings(max_examples=60, deadline=None)
def test_every_line_becomes_a_document_or_a_counted_reject(tmp_path_factory, chosen):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "a.jsonl").write_bytes(b"\n".join([b'{"text": "good"}', *chosen]))
    documents, accounting = read(folder)
    expected = [HOSTILE_LINES[line] for line in chosen if line in HOSTILE_LINES]
    assert {document.text for document in documents} == {"good"}
    assert len(documents) == 1 + sum(line in GOOD_LINES for line in chosen)
    assert sorted(accounting.rejects.elements()) == sorted(expected)
    assert accounting.n_records == len(documents) + len(expected)


def test_a_reject_names_its_file_and_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n\n{"text": 3}\n')
    (tmp_path / "b.txt").write_bytes(b"ab\xff")
    _, accounting = read(tmp_path)
    assert accounting.examples == [("no text", "a.jsonl", "line 3"), ("not UTF-8", "b.txt", "byte 2")]
    assert json.loads(json.dumps(accounting.to_mapping()))["rejects"] == {"no text": 1, "not UTF-8": 1}


def test_examples_are_few_and_counts_exact(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n' + b"bad\n" * 100)
    _, accounting = read(tmp_path)
    assert (len(accounting.examples), accounting.rejects["bad JSON"]) == (MAX_EXAMPLES, 100)


@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_a_cut_compressed_file_is_never_silent(tmp_path, compression):
    data = lines(*({"text": f"number {n} {n * 7919 % 1000}"} for n in range(50)))
    whole = gzip.compress(data) if compression == ".gz" else zstandard.compress(data)
    path = tmp_path / f"a.jsonl{compression}"
    (tmp_path / "b.txt").write_text("good")
    for cut in range(1, len(whole), 7):
        path.write_bytes(whole[:cut])
        documents, accounting = read(tmp_path)
        assert accounting.rejects == {"damaged or unreadable": 1}
        assert documents[-1].text == "good"
        assert [document.text.split()[1] for document in documents[:-1]] == [str(n) for n in range(len(documents) - 1)]


@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_a_damaged_compressed_text_is_refused(tmp_path, compression):
    path = tmp_path / f"a.txt{compression}"
    path.write_bytes(COMPRESSIONS[compression](b"some text")[:-3])
    with pytest.raises(ValueError, match="damaged or unreadable"):
        read(path)
    path.write_bytes(b"not compressed at all")
    with pytest.raises(ValueError, match="damaged or unreadable"):
        read(path)


def test_a_large_zstandard_file_is_read_whole(tmp_path):
    text = "abc\n" * 1_000_000
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(text.encode()))
    assert read(tmp_path)[0][0].text == text


WRONG = {
    "empty.txt": (b"", "empty"),
    "blank.md": (b" \n", "empty"),
    "empty.jsonl": (b"", "it is empty"),
    "binary.txt": (b"ab\0cd", r"binary: it holds NUL bytes \(binary.txt, byte 2\)"),
    "latin.txt": ("naïve".encode("latin-1"), r"not UTF-8 \(latin.txt, byte 2\)"),
    "utf16.txt": ("hello".encode("utf-16"), "binary"),
    "bad.jsonl": (b"x\ny\n", r"all 2 records are rejected, the first: bad JSON \(bad.jsonl, line 1\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_source_without_any_document_is_refused_in_one_line(tmp_path, name):
    data, why = WRONG[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=why) as error:
        read(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name} gives no document: ") and "\n" not in str(error.value)


def test_a_missing_source_and_a_foreign_suffix_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        read(tmp_path / "nothing")
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(ValueError, match=r"its suffix is not one of \.txt"):
        read(tmp_path / "a.docx")
    with pytest.raises(ValueError, match="1 are of other formats"):
        read(tmp_path)
    (tmp_path / "void").mkdir()
    with pytest.raises(ValueError, match="void gives no document: it is empty"):
        read(tmp_path / "void")
