"""Packs: documents turned into token files with a manifest, written whole or not at all, and read back exactly."""

import os
import shutil
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np

from cerebras_gpt.data.accounting import Accounting
from cerebras_gpt.data.documents import Document
from cerebras_gpt.data.encoding import Encoded, Source, as_they_are, encoded
from cerebras_gpt.data.held_out import split_documents
from cerebras_gpt.data.manifest import FORMAT, MANIFEST, SPLITS, TOKENIZER, VERSION, Manifest, read_manifest, verify
from cerebras_gpt.data.token_documents import TokenDocument, split_token_documents
from cerebras_gpt.data.token_files import SplitWriter, token_dtype, write_file
from cerebras_gpt.files import sync_folder
from cerebras_gpt.text.tokenizer import Tokenizer

__all__ = ["Manifest", "Shards", "pack", "pack_ids", "read_manifest", "verify"]

DECODED_TOKENS = 1 << 18  # decoded at once


def _write_batches(
    batches: Iterable[list[Encoded]],
    tokenizer: Tokenizer,
    writers: dict[str, SplitWriter],
    progress: Callable[[int], None],
) -> None:
    for batch in batches:
        for piece in batch:
            writer = writers[piece.split]
            if piece.is_first:
                _end_document(writer, tokenizer)
                writer.start_document()
            writer.write(piece.ids, piece.n_bytes)
        progress(sum(writer.n_bytes for writer in writers.values()))
    for writer in writers.values():
        _end_document(writer, tokenizer)


def _end_document(writer: SplitWriter, tokenizer: Tokenizer) -> None:
    if writer.n_documents:
        writer.write([tokenizer.end_of_text], 0)


def _write_pack(
    source: Source,
    tokenizer: Tokenizer,
    folder: Path,
    val_fraction: float,
    progress: Callable[[int], None],
) -> Manifest:
    """Everything but the manifest, which is given back."""
    dtype = token_dtype(tokenizer.vocab_size)
    writers = {name: SplitWriter(folder, name, dtype) for name in SPLITS}
    try:
        _write_batches(source.batches, tokenizer, writers, progress)
        splits = {name: writer.finish() for name, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.close()
    if not splits["train"].n_documents:
        raise ValueError(
            f"a val fraction of {val_fraction:g} leaves nothing to train on; give more text or a smaller one"
        )
    if val_fraction and not splits["val"].n_documents:
        raise ValueError(
            f"the text is too short to hold out {val_fraction:g} of it; give more text or a val fraction of 0"
        )
    return Manifest(
        format=FORMAT,
        version=VERSION,
        dtype=dtype,
        vocab_size=tokenizer.vocab_size,
        tokenizer_hash=tokenizer.hash,
        tokenizer=write_file(folder / TOKENIZER, tokenizer.to_json()),
        held_out_rule=source.held_out_rule,
        train=splits["train"],
        val=splits["val"],
        accounting=None,
    )


def _check_replaceable(out: Path) -> None:
    """Raises ValueError unless `out` is free, empty, or a pack with nothing else in it."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        own = {MANIFEST, *(file.name for file in read_manifest(out).files)}
    except (OSError, ValueError):
        raise ValueError(f"{out} exists and is no whole pack; choose another folder or remove it") from None
    if others := {path.name for path in out.iterdir()} - own:
        raise ValueError(f"{out} holds a pack and also {sorted(others)[0]!r}; choose another folder or remove that")


def _take_place(partial: Path, out: Path) -> None:
    """Puts a finished folder in the place of `out`; what was there goes only when the new one stands."""
    old = partial.with_suffix(".old")
    if out.exists():
        os.rename(out, old)
    try:
        os.rename(partial, out)
    except BaseException:
        if old.exists():
            os.rename(old, out)
        raise
    try:
        sync_folder(out.parent)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def pack(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    out: Path,
    val_fraction: float = 0.05,
    accounting: Accounting | None = None,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Writes the documents as tokens, each followed by one end of text, into the folder `out`.

    `out` appears only when it is complete and durable, in place of an older pack if there was one; a failure leaves
    nothing behind. `progress` is told the bytes of text packed so far.
    """
    _check_replaceable(out)
    splitting = split_documents(documents, val_fraction)
    source = Source(splitting.rule, encoded(splitting.parts, tokenizer))
    return _pack(source, tokenizer, out, val_fraction, accounting, progress)


def pack_ids(
    documents: Iterable[TokenDocument],
    tokenizer: Tokenizer,
    out: Path,
    val_fraction: float = 0.05,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """The same from documents that are ids of the tokenizer already; they are written as they are."""
    _check_replaceable(out)
    division = split_token_documents(documents, val_fraction)
    source = Source(division.rule, as_they_are(division, tokenizer))
    return _pack(source, tokenizer, out, val_fraction, None, progress)


def _pack(
    source: Source,
    tokenizer: Tokenizer,
    out: Path,
    val_fraction: float,
    accounting: Accounting | None,
    progress: Callable[[int], None] | None,
) -> Manifest:
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        manifest = _write_pack(source, tokenizer, partial, val_fraction, progress or (lambda n_bytes: None))
        manifest = replace(manifest, accounting=accounting.to_mapping() if accounting else None)
        write_file(partial / MANIFEST, manifest.to_json())
        sync_folder(partial)
        _take_place(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


class Shards:
    """One split of a pack, memory-mapped: its tokens as one long sequence."""

    def __init__(self, folder: Path, split: str, manifest: Manifest) -> None:
        self.folder, self.split, self.manifest = folder, split, manifest
        record = manifest.split(split)
        self.n_tokens, self.n_documents = record.n_tokens, record.n_documents
        self.n_bytes = record.n_bytes
        self._offsets = folder / record.offsets.name
        self._arrays = [
            np.memmap(folder / file.name, np.dtype(manifest.dtype), mode="r").view(np.ndarray) for file in record.files
        ]
        self._starts = [0, *accumulate(len(array) for array in self._arrays)]

    @classmethod
    def open(cls, path: Path, split: str, verify: bool = True) -> "Shards":
        """The split of a pack, its files read and compared with their hashes first, or only their sizes."""
        manifest = read_manifest(path)
        record = manifest.split(split)
        for file in (manifest.tokenizer, *record.files, record.offsets):
            if verify:
                file.check(path)
            else:
                file.check_size(path)
        if not record.n_tokens:
            raise ValueError(f"the {split} split of {path} is empty; pack again with a val fraction above 0")
        return cls(path, split, manifest)

    @property
    def vocab_size(self) -> int:
        """How many ids the tokenizer of the pack has."""
        return self.manifest.vocab_size

    @property
    def fingerprint(self) -> str:
        """SHA-256 that is equal only for equal packs."""
        return self.manifest.fingerprint

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens."""
        return Tokenizer.load(self.folder / TOKENIZER)

    @cached_property
    def document_starts(self) -> np.ndarray:
        """Index of the first token of each document: (n_documents,) uint64."""
        return np.memmap(self._offsets, np.dtype("<u8"), mode="r").view(np.ndarray)

    def tokens(self, start: int, count: int) -> np.ndarray:
        """Consecutive ids, across files if need be: (count,)."""
        assert 0 <= start <= start + count <= self.n_tokens
        index = bisect_right(self._starts, start) - 1
        ids = self._arrays[index][start - self._starts[index] :][:count]
        while len(ids) < count:
            index += 1
            ids = np.concatenate([ids, self._arrays[index][: count - len(ids)]])
        return ids

    def text(self, max_bytes: int | None = None) -> bytes:
        """The exact bytes of the documents, one after the other, or the first of them."""
        wanted = self.n_bytes if max_bytes is None else min(max_bytes, self.n_bytes)
        text = bytearray()
        for start in range(0, self.n_tokens, DECODED_TOKENS):
            if len(text) >= wanted:
                break
            ids = self.tokens(start, min(DECODED_TOKENS, self.n_tokens - start))
            text += self.tokenizer.decode_bytes(ids.tolist())
        return bytes(text[:wanted])
