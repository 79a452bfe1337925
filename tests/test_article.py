"""The pages on the article: what they show works, and both languages show the same."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PARTS = ("article", "article-2")


def read(name):
    return (DOCS / name).read_text("utf-8")


def snippets(name):
    return re.findall(r"^```python\n(.*?)^```$", read(name), re.DOTALL | re.MULTILINE)


def test_the_snippets_run_in_order():
    namespace = {"__name__": "article"}
    for part in PARTS:
        code = snippets(f"{part}.md")
        assert code, f"{part}.md has no snippet"
        for number, snippet in enumerate(code):
            exec(compile(snippet, f"{part}.md, snippet {number}", "exec"), namespace)


@pytest.mark.parametrize("part", PARTS)
def test_both_languages_show_the_same_code(part):
    assert snippets(f"{part}.md") == snippets(f"{part}.zh.md")


@pytest.mark.parametrize("page", [f"{part}{language}.md" for part in PARTS for language in ("", ".zh")])
def test_every_piece_of_the_article_is_shown_at_work(page):
    pieces = re.split(r"^## ", read(page), flags=re.MULTILINE)[1:]
    assert pieces
    for piece in pieces:
        assert "```python\n" in piece, f"{page}: nothing runs under {piece.splitlines()[0]!r}"
        assert "assert " in piece


@pytest.mark.parametrize("part", PARTS)
def test_both_languages_have_the_same_sections_in_the_same_order(part):
    numbers = [re.findall(r"^## ([\d.]+)", read(name), re.MULTILINE) for name in (f"{part}.md", f"{part}.zh.md")]
    assert numbers[0] == numbers[1] == sorted(numbers[0], key=lambda number: [int(n) for n in number.split(".") if n])
