"""A pack is exact, appears whole or not at all, and shows any damage."""

import errno
import itertools
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebras_gpt.data import token_files
from cerebras_gpt.data.accounting import Accounting
from cerebras_gpt.data.documents import Document
from cerebras_gpt.data.held_out import FEWEST_DOCUMENTS, is_held_out
from cerebras_gpt.data.shards import Shards, pack, read_manifest, verify
from cerebras_gpt.text.tokenizer import Tokenizer, train_tokenizer

TOKENIZER = train_tokenizer(["some words and other words, some more words, and more of the other\n"] * 3, 270)
DOCUMENTS = [Document(f"d{n}", f"document {n}\nwith words, naïve 日本\n" * (n % 5 + 1)) for n in range(60)]


def texts_of(shards: Shards) -> list[str]:
    starts = [*shards.document_starts.tolist(), shards.n_tokens]
    ids = [shards.tokens(a, b - a).tolist() for a, b in itertools.pairwise(starts)]
    assert all(document.count(TOKENIZER.end_of_text) == 1 for document in ids)
    assert all(document[-1] == TOKENIZER.end_of_text for document in ids)
    return [TOKENIZER.decode(document) for document in ids]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def packed(tmp_path):
    pack(DOCUMENTS, TOKENIZER, tmp_path / "pack", 0.2)
    return tmp_path / "pack"


def test_a_pack_gives_back_every_document(packed):
    train, val = Shards.open(packed, "train"), Shards.open(packed, "val")
    assert sorted(texts_of(train) + texts_of(val)) == sorted(document.text for document in DOCUMENTS)
    assert sorted(texts_of(val)) == sorted(document.text for document in DOCUMENTS if is_held_out(document.id, 0.2))
    assert train.n_documents + val.n_documents == len(DOCUMENTS)
    assert train.n_bytes + val.n_bytes == sum(len(document.text.encode()) for document in DOCUMENTS)
    for shards in (train, val):
        assert len(shards.text()) == shards.n_bytes
        assert shards.text() == "".join(texts_of(shards)).encode()
        assert shards.text(100) == shards.text()[:100]


def test_a_pack_carries_its_tokenizer(packed):
    shards = Shards.open(packed, "train")
    assert shards.tokenizer.hash == TOKENIZER.hash == shards.manifest.tokenizer_hash
    assert shards.vocab_size == TOKENIZER.vocab_size
    assert Tokenizer.load(packed / "tokenizer.json").hash == TOKENIZER.hash


def test_packing_again_gives_the_same_bytes(packed, tmp_path):
    pack(iter(DOCUMENTS), TOKENIZER, tmp_path / "again", 0.2)
    assert content(packed) == content(tmp_path / "again")
    assert Shards.open(packed, "train").fingerprint == Shards.open(tmp_path / "again", "val").fingerprint


def test_another_text_has_another_fingerprint(packed, tmp_path):
    other = pack([*DOCUMENTS, Document("one more", "text")], TOKENIZER, tmp_path / "other", 0.2)
    assert other.fingerprint != read_manifest(packed).fingerprint


@given(
    texts=st.lists(st.text(max_size=40), min_size=2, max_size=30),
    per_file=st.integers(1, 40),
    fraction=st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=40, deadline=None)
def test_tokens_are_exact_across_files(tmp_path_factory, texts, per_file, fraction):
    folder = tmp_path_factory.mktemp("pack")
    documents = [Document(str(n), f"{n}: {text}\n") for n, text in enumerate(texts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_files, "TOKENS_PER_FILE", per_file)
        pack(documents, TOKENIZER, folder / "many", fraction)
    pack(documents, TOKENIZER, folder / "one", fraction)
    many, one = Shards.open(folder / "many", "train"), Shards.open(folder / "one", "train")
    assert len(many.manifest.train.files) == -(-many.n_tokens // per_file)
    assert texts_of(many) == texts_of(one)
    for start in range(0, one.n_tokens, 3):
        for count in (0, 1, one.n_tokens - start):
            assert np.array_equal(many.tokens(start, count), one.tokens(start, count))


def test_a_long_document_is_encoded_in_pieces_with_the_same_ids(tmp_path):
    text = "some words and 日本 more\n\n  of the other " * 5000
    pack([Document("a", text)], TOKENIZER, tmp_path / "pack", 0)
    shards = Shards.open(tmp_path / "pack", "train")
    assert shards.tokens(0, shards.n_tokens).tolist() == [*TOKENIZER.encode(text), TOKENIZER.end_of_text]


def test_a_large_vocabulary_takes_four_bytes_a_token():
    assert [token_files.token_dtype(n) for n in (65536, 65537)] == ["<u2", "<u4"]


@given(st.lists(st.text(), unique=True, min_size=FEWEST_DOCUMENTS, max_size=80), st.sampled_from([0.001, 0.05, 0.5]))
@settings(max_examples=40, deadline=None)
def test_a_document_is_held_out_by_its_id_and_something_always_is(tmp_path_factory, ids, fraction):
    out = tmp_path_factory.mktemp("pack") / "pack"
    pack([Document(id, f"text of {id}") for id in ids], TOKENIZER, out, fraction)
    held_out = set(texts_of(Shards.open(out, "val")))
    chosen = {f"text of {id}" for id in ids if is_held_out(id, fraction)}
    assert held_out == chosen if chosen else len(held_out) == 1
    assert len(texts_of(Shards.open(out, "train"))) == len(ids) - len(held_out)


def test_about_the_fraction_is_held_out():
    assert 0.045 < sum(is_held_out(str(n), 0.05) for n in range(20_000)) / 20_000 < 0.055


def test_of_few_documents_the_tail_after_a_line_break_is_held_out(tmp_path):
    text = "".join(f"line {n} of this text\n" for n in range(200))
    manifest = pack([Document("a", text), Document("b", "no break " * 50)], TOKENIZER, tmp_path / "pack", 0.1)
    train, val = Shards.open(tmp_path / "pack", "train"), Shards.open(tmp_path / "pack", "val")
    heads, tails = texts_of(train), texts_of(val)
    assert heads[0] + tails[0] == text and heads[1] + tails[1] == "no break " * 50
    assert heads[0].endswith("\n") and 0.08 < len(tails[0]) / len(text) < 0.12
    assert manifest.held_out_rule == "the last 0.1 of each document, as there are fewer than 20"


def test_nothing_is_held_out_at_fraction_zero(tmp_path):
    manifest = pack(DOCUMENTS, TOKENIZER, tmp_path / "pack", 0)
    assert (manifest.train.n_documents, manifest.val.n_tokens) == (len(DOCUMENTS), 0)
    with pytest.raises(ValueError, match=r"the val split of .* is empty; pack again with a val fraction above 0"):
        Shards.open(tmp_path / "pack", "val")
    verify(tmp_path / "pack")


@pytest.mark.parametrize(
    ("documents", "fraction", "why"),
    [
        ([], 0.05, "leaves nothing to train on"),
        ([], 0.0, "leaves nothing to train on"),
        ([Document("a", "x")], 0.05, "too short to hold out"),
        (DOCUMENTS, 1.0, "must be at least 0 and less than 1, not 1.0"),
        (DOCUMENTS, -0.1, "must be at least 0"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused_and_leaves_nothing(tmp_path, documents, fraction, why):
    with pytest.raises(ValueError, match=why):
        pack(documents, TOKENIZER, tmp_path / "pack", fraction)
    assert list(tmp_path.iterdir()) == []


def test_the_account_of_the_source_is_kept(tmp_path):
    accounting = Accounting(n_documents=len(DOCUMENTS))
    accounting.rejects["bad JSON"] = 2
    pack(DOCUMENTS, TOKENIZER, tmp_path / "pack", 0.2, accounting)
    assert read_manifest(tmp_path / "pack").accounting == accounting.to_mapping()


def test_progress_tells_the_bytes_packed_so_far(tmp_path, monkeypatch):
    monkeypatch.setattr("cerebras_gpt.data.encoding.BATCH_CHARACTERS", 500)
    told = []
    pack(DOCUMENTS, TOKENIZER, tmp_path / "pack", 0.2, progress=told.append)
    assert len(told) > 3 and told == sorted(told)
    assert told[-1] == sum(len(document.text.encode()) for document in DOCUMENTS)


def failing_at(call, real):
    calls = itertools.count()

    def fail_once(*arguments):
        if next(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    return fail_once


@pytest.mark.parametrize(("name", "n_calls"), [("fsync", 8), ("rename", 2)])
def test_a_full_disk_at_any_moment_leaves_a_whole_pack_and_nothing_else(packed, monkeypatch, name, n_calls):
    old, real = read_manifest(packed), getattr(os, name)
    for call in range(n_calls):
        monkeypatch.setattr(os, name, failing_at(call, real))
        with pytest.raises(OSError, match="No space left"):
            pack(DOCUMENTS[:30], TOKENIZER, packed, 0.2)
        # Only the very last call, which makes the new name durable, comes after the change.
        assert (verify(packed) == old) == (name == "rename" or call < n_calls - 1)
        assert [path.name for path in packed.parent.iterdir()] == ["pack"]
    monkeypatch.setattr(os, name, failing_at(n_calls, real))
    pack(DOCUMENTS[:30], TOKENIZER, packed, 0.2)
    assert verify(packed) != old and [path.name for path in packed.parent.iterdir()] == ["pack"]


def test_an_interrupted_pack_leaves_the_old_one(packed):
    def documents():
        yield from DOCUMENTS[:40]
        raise KeyboardInterrupt

    before = content(packed)
    with pytest.raises(KeyboardInterrupt):
        pack(documents(), TOKENIZER, packed)
    assert content(packed) == before and [path.name for path in packed.parent.iterdir()] == ["pack"]


def test_a_folder_that_is_no_pack_is_never_replaced(packed, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="exists and is no whole pack"):
        pack(DOCUMENTS, TOKENIZER, tmp_path / "mine")
    (packed / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds a pack and also 'notes\.txt'"):
        pack(DOCUMENTS, TOKENIZER, packed)
    (tmp_path / "empty").mkdir()
    pack(DOCUMENTS, TOKENIZER, tmp_path / "empty")


def test_any_flipped_bit_and_any_cut_is_found(packed):
    for path in sorted(packed.iterdir()):
        whole = path.read_bytes()
        step = max(1, len(whole) // 40)
        for at in range(0, len(whole), step):
            for damaged in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at]):
                path.write_bytes(damaged)
                with pytest.raises(ValueError, match=path.name):
                    verify(packed)
        path.write_bytes(whole)
    verify(packed)


def test_damage_is_named_with_both_hashes(packed):
    path = packed / "train-00000.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 4]))
    with pytest.raises(
        ValueError, match=r"train-00000\.bin is damaged: its sha256 is \w{12}, .* \w{12}; pack again or res"
    ):
        Shards.open(packed, "train")
    Shards.open(packed, "train", verify=False)
    Shards.open(packed, "val")
    path.unlink()
    with pytest.raises(ValueError, match=r"train-00000\.bin is missing"):
        Shards.open(packed, "train", verify=False)


def test_a_missing_manifest_and_an_unknown_split_are_refused(packed):
    with pytest.raises(ValueError, match="unknown split 'validation'"):
        Shards.open(packed, "validation")
    (packed / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="is no pack"):
        Shards.open(packed, "train")
    shutil.rmtree(packed)
    with pytest.raises(FileNotFoundError, match="cerebras-gpt pack"):
        verify(packed)
