"""Token files in the making: the documents of one split, hashed as they are written, durable when finished."""

import contextlib
import hashlib
import os
from pathlib import Path

import numpy as np

from cerebras_gpt.data.manifest import File, Split

TOKENS_PER_FILE = 1 << 28


def token_dtype(vocab_size: int) -> str:
    """The smallest little-endian type that holds every id."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


class FileWriter:
    """One file of a pack in the making: hashed as it is written, durable when finished."""

    def __init__(self, path: Path) -> None:
        self.path, self.n_bytes, self._hash = path, 0, hashlib.sha256()
        self._stream = path.open("wb")

    def write(self, data: bytes) -> None:
        """Appends bytes."""
        self._stream.write(data)
        self._hash.update(data)
        self.n_bytes += len(data)

    def finish(self) -> File:
        """Makes the file durable and gives its record."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        return File(self.path.name, self.n_bytes, self._hash.hexdigest())

    def close(self) -> None:
        """Lets go of the file, finished or not."""
        with contextlib.suppress(OSError):  # a full disk has been reported already, and the file is about to go
            self._stream.close()


class SplitWriter:
    """The token files and document starts of one split."""

    def __init__(self, folder: Path, name: str, dtype: str) -> None:
        self._folder, self._name, self._dtype = folder, name, np.dtype(dtype)
        self._done: list[File] = []
        self._room = TOKENS_PER_FILE
        self._tokens = FileWriter(folder / f"{name}-00000.bin")
        self._offsets = FileWriter(folder / f"{name}-offsets.bin")
        self.n_documents = self.n_tokens = self.n_bytes = 0

    def start_document(self) -> None:
        """Notes that the next token starts a document."""
        self._offsets.write(self.n_tokens.to_bytes(8, "little"))
        self.n_documents += 1

    def write(self, ids: list[int], n_bytes: int) -> None:
        """Appends ids that stand for n_bytes of text, in as many files as it takes."""
        self.n_bytes += n_bytes
        self.n_tokens += len(ids)
        rest = np.array(ids, self._dtype)
        while len(rest):
            if self._room == 0:
                self._done.append(self._tokens.finish())
                self._tokens = FileWriter(self._folder / f"{self._name}-{len(self._done):05d}.bin")
                self._room = TOKENS_PER_FILE
            now, rest = rest[: self._room], rest[self._room :]
            self._tokens.write(now.tobytes())
            self._room -= len(now)

    def finish(self) -> Split:
        """Makes the files durable and gives their record."""
        files = (*self._done, self._tokens.finish())
        return Split(self.n_documents, self.n_tokens, self.n_bytes, files, self._offsets.finish())

    def close(self) -> None:
        """Lets go of the files, finished or not."""
        self._tokens.close()
        self._offsets.close()


def write_file(path: Path, text: str) -> File:
    """A whole file, durable."""
    writer = FileWriter(path)
    try:
        writer.write(text.encode())
        return writer.finish()
    finally:
        writer.close()
