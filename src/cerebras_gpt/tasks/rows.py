"""Rows of a data file in the formats people have: jsonl, json, csv, tsv, parquet; what is wrong keeps its line."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

BOM = "\ufeff"
SHOWN_LINES = 5
"""Lines named for each kind of trouble; the count is always whole."""

Columns = Mapping[str, tuple[str, ...]]
"""Field of a task -> names under which a file may have it."""


class Row(NamedTuple):
    """One record of a file."""

    line: int
    """Line on which it ends, or place in a parquet file, from 1."""
    values: dict[str, object]


class Findings:
    """What there is to say about the rows of a file: each is used, used with a remark, or refused with its reason."""

    def __init__(self) -> None:
        self.n_rows = 0
        self.n_refused = 0
        self._refused: dict[str, list[int]] = defaultdict(list)
        self._remarks: dict[str, list[int]] = defaultdict(list)

    def refuse(self, line: int, why: str) -> None:
        """Counts a row that cannot be used."""
        self.n_refused += 1
        self._refused[why].append(line)

    def remark(self, line: int, what: str) -> None:
        """Counts something to know about a row that is used."""
        self._remarks[what].append(line)

    def include(self, file: str, other: "Findings") -> None:
        """Counts what was found in another file as well, under its name."""
        self.n_rows, self.n_refused = self.n_rows + other.n_rows, self.n_refused + other.n_refused
        for mine, theirs in ((self._refused, other._refused), (self._remarks, other._remarks)):
            mine.update({f"{file}: {why}": lines for why, lines in theirs.items()})

    def lines(self) -> list[str]:
        """One line for each kind of trouble: how many rows, and which."""
        kinds = (("refused", self._refused), ("note", self._remarks))
        return [f"{kind}: {_places(why, at)}" for kind, found in kinds for why, at in found.items()]

    def to_mapping(self) -> dict[str, object]:
        """Plain JSON values."""
        counts = {"refused": self._refused, "remarks": self._remarks}
        return {"rows": self.n_rows} | {kind: {why: len(at) for why, at in of.items()} for kind, of in counts.items()}


def _places(why: str, lines: list[int]) -> str:
    named = ", ".join(map(str, lines[:SHOWN_LINES])) + (", ..." if len(lines) > SHOWN_LINES else "")
    return f"{len(lines):,} x {why} (line{'s' * (len(lines) > 1)} {named})"


def is_text(value: object) -> bool:
    """Whether a value is a text that UTF-8 can hold: bytes that were none are lone surrogates here."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _jsonl(text: str, findings: Findings) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        findings.n_rows += 1
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            findings.refuse(number, "no JSON")
            continue
        if isinstance(record, dict):
            yield Row(number, record)
        else:
            findings.refuse(number, "no JSON object")


def _json(text: str, findings: Findings) -> Iterator[Row]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error}); if each line is an object of its own, name it .jsonl") from None
    records = found.get("data") if isinstance(found, dict) else found
    if not isinstance(records, list):
        raise ValueError('it is neither a list of objects nor an object with a list "data"')
    for number, record in enumerate(records, 1):
        findings.n_rows += 1
        if isinstance(record, dict):
            yield Row(number, record)
        else:
            findings.refuse(number, "no JSON object")


def _table(text: str, findings: Findings, dialect: str) -> Iterator[Row]:
    lines = csv.reader(io.StringIO(text, newline=""), dialect)
    head = next(lines, [])
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        findings.n_rows += 1
        if len(cells) == len(head):
            yield Row(lines.line_num, dict(zip(head, cells, strict=True)))
        else:
            findings.refuse(lines.line_num, f"not the {len(head)} columns of the first line")


class Tabs(csv.excel_tab):
    """Tab-separated as it is usually written: quotation marks are letters."""

    quoting = csv.QUOTE_NONE


csv.register_dialect("tabs", Tabs)

READERS: dict[str, Callable[[str, Findings], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": lambda text, findings: _table(text, findings, "excel"),
    ".tsv": lambda text, findings: _table(text, findings, "tabs"),
}
FORMATS = (*READERS, ".parquet")


def _parquet(path: Path, findings: Findings) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise ValueError('parquet needs pyarrow; install it: pip install "cerebras-gpt[tasks]"') from None
    try:
        records = read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path} is no readable parquet file: {str(error).splitlines()[0]}") from None
    for number, record in enumerate(records, 1):
        findings.n_rows += 1
        yield Row(number, record)


def read_rows(path: Path, findings: Findings) -> list[Row]:
    """The rows of a file by its suffix; what is no row is refused and counted.

    Bytes that are not UTF-8 become lone surrogates, so that the row that holds them can be named (`is_text`).
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"cannot read {path}: its suffix is not one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give one of {', '.join(FORMATS)}")
    if path.suffix.lower() == ".parquet":
        return list(_parquet(path, findings))
    text = path.read_bytes().decode("utf-8", errors="surrogateescape").removeprefix(BOM)
    try:
        return list(READERS[path.suffix.lower()](text, findings))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def named_columns(rows: Iterable[Row], columns: Columns) -> dict[str, str]:
    """Which column of the file holds each field; raises ValueError naming what is missing and what is there."""
    there = dict.fromkeys(key for row in rows for key in row.values)
    by_lower = {key.lower(): key for key in reversed(there)}
    found = {}
    for field, names in columns.items():
        name = next((name for name in names if name in by_lower), None)
        if name is None:
            raise ValueError(
                f"no column for the {field}: there are {', '.join(there) or 'none'}; "
                f"call one of them {' or '.join(names)}"
            )
        found[field] = by_lower[name]
    return found


def fields(rows: Iterable[Row], columns: Columns, findings: Findings) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and text of every field of each row; a row without one of them is refused."""
    rows = list(rows)
    name_of = named_columns(rows, columns)
    for line, values in rows:
        found = {field: values.get(name) for field, name in name_of.items()}
        texts = {field: str(v) if isinstance(v, int | float) else v for field, v in found.items()}
        why = next((why for field, v in texts.items() if (why := _wrong(field, v))), None)
        if why:
            findings.refuse(line, why)
        else:
            yield line, {field: str(value).strip() for field, value in texts.items()}


def _wrong(field: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return f"empty {field}"
    if not isinstance(value, str):
        return f"{field} is no text"
    return None if is_text(value) else f"{field} is not UTF-8"
