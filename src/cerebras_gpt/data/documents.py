"""Documents from text files, JSON lines, folders and standard input, with an account of every record."""

import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import zstandard

from cerebras_gpt.data.accounting import Accounting, Reject

BOM = b"\xef\xbb\xbf"
STDIN = "-"
DAMAGE = (EOFError, OSError, zlib.error, zstandard.ZstdError)


class Document(NamedTuple):
    """A text with an id that does not depend on where its corpus lies."""

    id: str
    text: str


Reader = Callable[[BinaryIO, str], Iterator[Document | Reject]]
"""Takes an open file and its name; gives a document or a reject for each record."""


class ZstdStream(io.RawIOBase):
    """The content of a Zstandard file of one or more frames; a file that ends inside a frame is an error."""

    BLOCK = 1 << 13  # small, because one block of a hostile file can grow many thousand times

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._rest, self._ready = file, b"", memoryview(b"")
        self._frame: zstandard.ZstdDecompressionObj | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills the buffer with the next bytes and gives their number, 0 at the end."""
        while not self._ready and self._advance():
            pass
        n = min(len(buffer), len(self._ready))
        buffer[:n], self._ready = self._ready[:n], self._ready[n:]
        return n

    def close(self) -> None:
        """Closes the file below."""
        self._file.close()
        super().close()

    def _advance(self) -> bool:
        block = self._rest or self._file.read(self.BLOCK)
        if not block:
            if self._frame is not None:
                raise zstandard.ZstdError("ends inside a frame")
            return False
        self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        self._ready = memoryview(self._frame.decompress(block))
        self._rest = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None
        return True


def _decode(data: bytes, file: str) -> Document | Reject:
    """The document of a file that is one record."""
    if (offset := data.find(b"\0")) >= 0:
        return Reject("binary: it holds NUL bytes", file, f"byte {offset}")
    try:
        text = data.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        return Reject("not UTF-8", file, f"byte {error.start + len(data) - len(error.object)}")
    return Document(file, text) if text.strip() else Reject("empty", file, "byte 0")


def read_whole(stream: BinaryIO, file: str) -> Iterator[Document | Reject]:
    """The whole file as one document."""
    try:
        yield _decode(stream.read(), file)
    except DAMAGE:
        yield Reject("damaged or unreadable", file, "byte 0")


def _parse_line(line: bytes, file: str, number: int) -> Document | Reject:
    place = f"line {number}"
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError:
        return Reject("not UTF-8", file, place)
    except (ValueError, RecursionError):
        return Reject("bad JSON", file, place)
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        return Reject("no text", file, place)
    if not text.strip():
        return Reject("empty", file, place)
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can write half a surrogate pair, UTF-8 cannot
        return Reject("not UTF-8", file, place)
    own_id = record.get("id")
    return Document(str(own_id) if isinstance(own_id, str | int) else f"{file}:{number}", text)


def read_lines(stream: BinaryIO, file: str) -> Iterator[Document | Reject]:
    """A document from the key "text" of each JSON line; "id" names it if it is there. Blank lines are no records."""
    number = 0
    try:
        for number, line in enumerate(stream, 1):
            content = line.removeprefix(BOM) if number == 1 else line
            if content.strip():
                yield _parse_line(content, file, number)
    except DAMAGE:
        yield Reject("damaged or unreadable", file, f"line {number + 1}")


def _open_gz(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path))


def _open_zst(path: Path) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(ZstdStream(path.open("rb")), 1 << 16))


READERS: dict[str, Reader] = {".txt": read_whole, ".md": read_whole, ".jsonl": read_lines, ".ndjson": read_lines}
OPENERS: dict[str, Callable[[Path], BinaryIO]] = {
    "": lambda path: path.open("rb"),
    ".gz": _open_gz,
    ".zst": _open_zst,
}


def _suffixes(name: str) -> tuple[str, str]:
    """The suffix of the format and of the compression, '' if there is none."""
    stem, last = os.path.splitext(name.lower())
    return (os.path.splitext(stem)[1], last) if last in OPENERS else (last, "")


def _read_file(path: Path, file: str) -> Iterator[Document | Reject]:
    form, compression = _suffixes(path.name)
    try:
        stream = OPENERS[compression](path)
    except OSError:
        yield Reject("damaged or unreadable", file, "byte 0")
        return
    with stream:
        yield from READERS[form](stream, file)


def _read_folder(folder: Path, accounting: Accounting) -> Iterator[Document | Reject]:
    paths: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(root, name) for name in names if not name.startswith(".")]
    by_file = {path.relative_to(folder).as_posix(): path for path in paths}
    for file, path in sorted(by_file.items()):
        if _suffixes(path.name)[0] in READERS and path.is_file():
            yield from _read_file(path, file)
        else:
            accounting.n_skipped_files += 1


def _read_source(source: str, accounting: Accounting) -> Iterator[Document | Reject]:
    path = Path(source)
    if source == STDIN:
        return read_whole(sys.stdin.buffer, "stdin")
    if path.is_dir():
        return _read_folder(path, accounting)
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {source!r}; give {', '.join(READERS)} (.gz, .zst), a folder or -")
    if _suffixes(path.name)[0] not in READERS:
        raise ValueError(
            f"cannot read {source!r}: its suffix is not one of {', '.join(READERS)}, each also .gz or .zst"
        )
    return _read_file(path, path.name)


def _why_nothing(rejects: list[Reject], n_rejects: int, n_skipped: int) -> str:
    if rejects:
        return str(rejects[0]) if n_rejects == 1 else f"all {n_rejects} records are rejected, the first: {rejects[0]}"
    return f"no file in it can be read, {n_skipped} are of other formats" if n_skipped else "it is empty"


def read_documents(sources: Sequence[str], accounting: Accounting) -> Iterator[Document]:
    """The documents of all sources in a fixed order; what gives none is rejected and counted.

    A source is a file, a folder (its files sorted, hidden ones left out) or `-` for standard input.
    One that gives no document at all is the caller's mistake and raises ValueError with the reason.
    """
    for source in sources:
        n_documents, n_rejects, n_skipped = accounting.n_documents, accounting.n_rejects, accounting.n_skipped_files
        first: list[Reject] = []
        for record in _read_source(source, accounting):
            if isinstance(record, Document):
                accounting.n_documents += 1
                yield record
            else:
                accounting.reject(record)
                first = first or [record]
        if accounting.n_documents == n_documents:
            why = _why_nothing(first, accounting.n_rejects - n_rejects, accounting.n_skipped_files - n_skipped)
            raise ValueError(f"{source} gives no document: {why}")
