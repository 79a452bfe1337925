"""Megatron's token data becomes a pack with the same ids; every lie of its index is refused in one line."""

import struct
import sys
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebras_gpt import cli
from cerebras_gpt.data.batches import PackedBatches
from cerebras_gpt.data.megatron import DTYPES, read_megatron
from cerebras_gpt.data.shards import Shards, verify
from cerebras_gpt.data.token_documents import token_documents
from cerebras_gpt.importing import import_tokens
from cerebras_gpt.text.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(["one two three one two three"], 262)
END = TOKENIZER.end_of_text


def write(prefix, documents, code=4):
    """Writes documents, each a list of sequences of ids, byte by byte as the format says."""
    sequences = [sequence for document in documents for sequence in document]
    dtype = np.dtype(DTYPES[code])
    pointers = np.cumsum([0, *(len(sequence) * dtype.itemsize for sequence in sequences)])[:-1]
    bounds = np.cumsum([0, *(len(document) for document in documents)])
    with open(f"{prefix}.bin", "wb") as file:
        for sequence in sequences:
            file.write(np.array(sequence, dtype).tobytes())
    with open(f"{prefix}.idx", "wb") as file:
        file.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(sequences), len(bounds)))
        file.write(struct.pack(f"<{len(sequences)}i", *map(len, sequences)))
        file.write(struct.pack(f"<{len(sequences)}q", *pointers.tolist()))
        file.write(struct.pack(f"<{len(bounds)}q", *bounds.tolist()))


def corpus(n=40):
    """Documents of one sequence with an end of text, as preprocess_data --append-eod writes them."""
    return [[[*TOKENIZER.encode(f"one two three {n}" * (n % 5 + 1)), END]] for n in range(n)]


ids = st.lists(st.integers(0, 100), max_size=9)


@settings(max_examples=60, deadline=None)
@given(documents=st.lists(st.lists(ids, max_size=3), max_size=6), code=st.sampled_from(list(DTYPES)))
def test_documents_come_back_in_every_type(tmp_path_factory, documents, code):
    prefix = tmp_path_factory.mktemp("megatron") / "some.text_document"
    write(prefix, documents, code)
    for name in (prefix, prefix.with_name(f"{prefix.name}.idx"), prefix.with_name(f"{prefix.name}.bin")):
        assert [d.tolist() for d in read_megatron(name)] == [[*chain(*document)] for document in documents]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from([1, 2, END]), max_size=8), max_size=5))
def test_documents_divided_at_ends_of_text_are_again_the_sequences(sequences):
    arrays = [np.array(sequence, np.int64) for sequence in sequences]
    again = [token for document in token_documents(arrays, "x", TOKENIZER) for token in [*document.ids.tolist(), END]]
    assert again == [t for sequence in sequences for t in (sequence if sequence[-1:] == [END] else [*sequence, END])]


@pytest.mark.parametrize("has_ends", [True, False])
def test_a_pack_holds_the_same_ids_with_one_end_of_text_after_each_document(tmp_path, has_ends):
    documents = corpus()
    write(tmp_path / "corpus", documents if has_ends else [[document[0][:-1]] for document in documents])
    manifest = import_tokens(tmp_path / "corpus", tmp_path / "data", TOKENIZER, val_fraction=0.2)
    verify(tmp_path / "data")
    assert manifest.train.n_documents + manifest.val.n_documents == 40
    found = []
    for name in ("train", "val"):
        shards = Shards.open(tmp_path / "data", name)
        starts = [*shards.document_starts.tolist(), shards.n_tokens]
        found += [shards.tokens(a, b - a).tolist() for a, b in pairwise(starts)]
        assert shards.n_bytes == len(shards.text())
    assert sorted(found) == sorted(document[0] for document in documents)
    shards = Shards.open(tmp_path / "data", "train")
    assert PackedBatches(shards, 8, 2, seed=0)[0].ids.shape == (2, 8)


def test_of_few_documents_the_tails_are_held_out(tmp_path):
    write(tmp_path / "corpus", [[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]], [[11, 12, END]]])
    import_tokens(tmp_path / "corpus", tmp_path / "data", TOKENIZER, val_fraction=0.3)
    train, val = (Shards.open(tmp_path / "data", name) for name in ("train", "val"))
    assert train.tokens(0, train.n_tokens).tolist() == [1, 2, 3, 4, 5, 6, 7, END, 11, END]
    assert val.tokens(0, val.n_tokens).tolist() == [8, 9, 10, END, 12, END]


def patched(prefix, place, content):
    path = prefix.with_name(f"{prefix.name}.idx")
    data = bytearray(path.read_bytes())
    data[place : place + len(content)] = content
    path.write_bytes(data)


SIZES, POINTERS, BOUNDS = 34, 34 + 4 * 40, 34 + 12 * 40


@pytest.mark.parametrize(
    ("place", "content", "named"),
    [
        (0, b"TNTIDX\0\0\0", "MMIDIDX"),
        (9, struct.pack("<Q", 2), "version 2"),
        (17, b"\x06", "type 6"),
        (17, b"\x00", "type 0"),
        (18, struct.pack("<Q", 1 << 62), "bytes, its header says"),
        (26, struct.pack("<Q", 1 << 62), "bytes, its header says"),
        (26, struct.pack("<Q", 0), "bytes, its header says"),
        (SIZES, struct.pack("<i", -1), "sequence 0 of -1 tokens"),
        (SIZES, struct.pack("<i", 1 << 30), "sequence 0 of 1,073,741,824 tokens"),
        (POINTERS + 8, struct.pack("<q", 1 << 62), "sequence 1 "),
        (POINTERS + 8, struct.pack("<q", -4), "sequence 1 "),
        (POINTERS + 8, struct.pack("<q", 3), "sequence 1 "),
        (POINTERS + 8, struct.pack("<q", -(1 << 63)), "sequence 1 "),
        (BOUNDS, struct.pack("<q", 1), "bounds"),
        (BOUNDS + 8, struct.pack("<q", 99), "bounds"),
        (BOUNDS + 8 * 40, struct.pack("<q", 41), "bounds"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, place, content, named):
    prefix = tmp_path / "corpus"
    write(prefix, corpus())
    patched(prefix, place, content)
    with pytest.raises(ValueError, match=named) as refused:
        read_megatron(prefix)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("suffix", "n_bytes"), [("idx", 0), ("idx", 20), ("idx", 34), ("idx", 300), ("bin", 0), ("bin", 99)]
)
def test_files_that_are_cut_short_or_missing_are_refused(tmp_path, suffix, n_bytes):
    write(tmp_path / "corpus", corpus())
    path = tmp_path / f"corpus.{suffix}"
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ValueError, match=r"corpus\.idx"):
        read_megatron(tmp_path / "corpus")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"corpus\.{suffix} is missing"):
        read_megatron(tmp_path / "corpus")


@pytest.mark.parametrize("wrong", [262, 1 << 30, -1])
def test_an_id_that_the_tokenizer_does_not_have_is_refused_and_nothing_is_left(tmp_path, wrong):
    documents = corpus()
    documents[30][0][2] = wrong
    write(tmp_path / "corpus", documents)
    with pytest.raises(ValueError, match=rf"document 30 of corpus has the id {wrong:,}"):
        import_tokens(tmp_path / "corpus", tmp_path / "data", TOKENIZER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.bin", "corpus.idx"]


def test_the_verb_needs_a_tokenizer_and_tells_what_it_packed(tmp_path, monkeypatch, capsys):
    write(tmp_path / "corpus", corpus())
    TOKENIZER.save(tmp_path / "tokenizer.json")
    monkeypatch.setenv("OMP_PROC_BIND", "false")
    command = ["cerebras-gpt", "import", str(tmp_path / "corpus.idx"), "--out", str(tmp_path / "data")]
    for more, code in (([], 2), (["--tokenizer", str(tmp_path / "tokenizer.json")], 0)):
        monkeypatch.setattr(sys, "argv", [*command, *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == code
    told = capsys.readouterr()
    assert "--tokenizer" in told.err
    assert "train: 3" in told.out
