"""The form of the tables: figures, rows, and where published ones are read."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARITY, NANO_SORT = "2026-11-23-parity.json", "2026-11-23-nano-sort.json"
PAGES = ("paper.md", "paper-results.md")


def read(*parts):
    return json.loads(ROOT.joinpath(*parts).read_text("utf-8"))


PUBLISHED, RESULTS, PILE = (read("tests", "golden", f"{name}.json") for name in ("published", "results", "pile"))
COMMON, PROXY, STATED = PUBLISHED["common"], PUBLISHED["proxy"], PUBLISHED["transfer"]


def said(value):
    """A figure as the tables print it."""
    if isinstance(value, float) and (value > 1e15 or not value.is_integer()):
        return f"{value:.6g}"
    return f"{value:,.0f}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def apart(pairs):
    """The largest relative difference of pairs of figures; words must be equal."""
    words = [(a, b) for a, b in pairs if isinstance(a, str | bool)]
    if any(a != b for a, b in words):
        return "differs"
    largest = max((abs(b / a - 1) if a else abs(b) for a, b in pairs if (a, b) not in words), default=0.0)
    return "0" if largest < 1e-12 else f"{100 * largest:.2g} %"


def row(name, pairs, test, difference=None):
    """One line of a table: what it is about, their figures, ours, how far apart, and the test."""
    theirs, ours = (" · ".join(map(said, figures)) for figures in zip(*pairs, strict=True))
    return f"| {name} | {theirs} | {ours} | {difference or apart(pairs)} | `{test}` |"


def table(about, rows):
    """A table whose first column says what the figures of each row are."""
    return "\n".join([f"| {about} | published | ours | difference | test |", "| --- " * 5 + "|", *rows])


def of_fields(published, ours, *fields):
    return [(published[field], getattr(ours, field)) for field in fields]


def percent(name, pair, test):
    published, ours = pair
    words = (f"{published} %", f"{ours:.2f} %")
    return row(name, [words], test, f"{abs(ours - published):.2f} points")
