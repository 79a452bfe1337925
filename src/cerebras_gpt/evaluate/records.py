"""Files of benchmark records, each record with the place where it stands."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

Fields: TypeAlias = dict[str, object]


class Record(NamedTuple):
    """One record, or why there is none."""

    name: str
    """File and line, such as dev.jsonl:12."""
    fields: Fields
    fault: str = ""


class Source(NamedTuple):
    """The bytes of one file, packed ones unpacked."""

    name: str
    content: bytes


UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}


def sources(path: Path) -> list[Source]:
    """The files behind a path: itself, or in order of name those of a folder or a zip."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the file of the benchmark")
    if path.is_dir():
        found = [(inner.name, inner.read_bytes()) for inner in sorted(path.rglob("*")) if inner.suffix in READERS]
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as packed:
            names = sorted(name for name in packed.namelist() if Path(name).suffix in READERS)
            found = [(Path(name).name, packed.read(name)) for name in names if not name.startswith("__MACOSX")]
    else:
        found = [(path.name, path.read_bytes())]
    if not found:
        raise ValueError(f"{path} holds no file that ends in {', '.join(READERS)}")
    return [_unpacked(*pair) for pair in found]


def _unpacked(name: str, content: bytes) -> Source:
    unpack = UNPACK.get(Path(name).suffix)
    if unpack is None:
        return Source(name, content)
    try:
        return Source(Path(name).stem, unpack(content))
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(f"{name} cannot be unpacked ({error}); get it again") from None


def records(source: Source) -> Iterator[Record]:
    """The records of one file, damaged ones with their fault."""
    suffix = Path(source.name).suffix
    if suffix not in READERS:
        raise ValueError(f"{source.name} is of no known kind; allowed: {', '.join([*READERS, *UNPACK, '.zip'])}")
    return READERS[suffix](source)


def _lines(source: Source) -> Iterator[tuple[str, str, str]]:
    """Name, text and fault of each line."""
    for number, line in enumerate(source.content.split(b"\n"), 1):
        name = f"{source.name}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            yield name, "", f"not UTF-8 (byte {error.start})"
        else:
            yield name, text, ""


def _json_lines(source: Source) -> Iterator[Record]:
    for name, text, fault in _lines(source):
        if text.strip() or fault:
            fields, fault = ({}, fault) if fault else _parsed(text)
            yield Record(name, fields, fault)


def _parsed(text: str) -> tuple[Fields, str]:
    try:
        found = json.loads(text)
    except ValueError as error:
        return {}, f"not JSON ({error})"
    return (found, "") if isinstance(found, dict) else ({}, "not a JSON object")


def _cells(delimiter: str) -> Callable[[Source], Iterator[Record]]:
    def read(source: Source) -> Iterator[Record]:
        try:
            text = source.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = source.content.count(b"\n", 0, error.start) + 1
            raise ValueError(f"{source.name} is not UTF-8 text (line {line}, byte {error.start})") from None
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        for row in rows:
            fault = "wrong number of cells" if None in row or None in row.values() else ""
            yield Record(f"{source.name}:{rows.line_num}", {str(key): cell for key, cell in row.items()}, fault)

    return read


def _six_lines(source: Source) -> Iterator[Record]:
    """Six lines a question, as llama.cpp reads HellaSwag: context, place of the right ending, four endings."""
    lines = list(_lines(source))
    while lines and not lines[-1][1].strip():
        lines.pop()
    for i in range(0, len(lines), 6):
        group = lines[i : i + 6]
        texts = [text for _, text, _ in group]
        fault = next((fault for _, _, fault in group if fault), "" if len(group) == 6 else "ends before its sixth line")
        digit = texts[1] if len(texts) > 1 else ""
        gold = int(digit) if digit.strip().isdecimal() else digit
        yield Record(group[0][0], {"query": texts[0], "gold": gold, "choices": texts[2:]}, fault)


def _parquet(source: Source) -> Iterator[Record]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{source.name} needs pyarrow; install it, or give the same data as .jsonl") from None
    for number, row in enumerate(parquet.read_table(io.BytesIO(source.content)).to_pylist(), 1):
        yield Record(f"{source.name}:{number}", row)


READERS: dict[str, Callable[[Source], Iterator[Record]]] = {
    ".jsonl": _json_lines,
    ".csv": _cells(","),
    ".tsv": _cells("\t"),
    ".txt": _six_lines,
    ".parquet": _parquet,
}
