"""The documents say what the code does: verbs, options, links, names of files and tests, and every example."""

import re
import shlex
from pathlib import Path

import pytest
import typer

import cerebras_gpt
from cerebras_gpt import errors
from cerebras_gpt.cli.app import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "examples").glob("*.md")])
WALK = ("text", "data", "model", "plan", "train", "checkpoint", "generate", "judgement")
PROGRAM = typer.main.get_command(app)
COMMANDS = PROGRAM.commands
EXIT_CODES = {"DONE": 0, "OURS": 1, "MISTAKE": 2, "STOPPED": 3, "DIVERGED": 4, "DOES_NOT_HOLD": 5, "READER_GONE": 141}


def each(names, key=lambda path: path.relative_to(ROOT).as_posix()):
    return pytest.mark.parametrize("page", names, ids=key)


def read(page):
    return page.read_text("utf-8")


def prose(text):
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def sections(text):
    """Text under each `## `verb`` heading, by verb."""
    return dict(re.findall(r"^## `([\w-]+)`\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))


def shown(default):
    """How a default is written in a table."""
    if default is False:
        return "off"
    if default in (None, ""):
        return "none"
    return f"{default:g}" if isinstance(default, float) else str(default)


def anchors(text):
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_every_verb_is_described_and_no_other():
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert list(sections(read(DOCS / "cli.md"))) == names


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_option_is_described_with_its_default(verb):
    section = sections(read(DOCS / "cli.md"))[verb]
    described = dict(re.findall(r"^\| `(--[\w-]+)[^|]*` \| ([^|]*?) \|", section, re.MULTILINE))
    options = [p for p in COMMANDS[verb].params if p.param_type_name == "option" and p.name != "help"]
    assert described == {p.opts[0]: "required" if p.required else f"`{shown(p.default)}`" for p in options}


def test_exit_codes_are_those_of_the_command_line():
    rows = re.findall(r"^\| (\d+) \| ", read(DOCS / "cli.md"), re.MULTILINE)
    assert [int(code) for code in rows] == [getattr(errors, name) for name in EXIT_CODES] == list(EXIT_CODES.values())


def test_options_before_the_verb_are_described():
    described = re.findall(r"`(--[\w-]+)`", read(DOCS / "cli.md").partition("\n## ")[0])
    assert sorted(described) == sorted(p.opts[0] for p in PROGRAM.params if p.name != "help")


def test_the_public_names_are_listed():
    section = read(DOCS / "index.md").partition("## As a library\n")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(\w+)`", section)) - {"cerebras_gpt"}
    assert listed == {name for name in cerebras_gpt.__all__ if not name.startswith("_")}


@each(PAGES)
def test_every_command_in_a_page_is_one_that_exists(page):
    for block in blocks(read(page), "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line, comments=True) or [""]
            if program == "cerebras-gpt" and words[0] not in ("--help", "-h"):
                COMMANDS[words[0]].make_context(words[0], [*words[1:]])


@each(PAGES)
def test_every_local_link_resolves(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(read(page))):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(read(linked)), f"{page.name} links to {target}"


@each(PAGES)
def test_every_file_in_backticks_exists(page):
    for name in re.findall(r"`(?:python )?([\w/.-]+\.py)`", prose(read(page))):
        assert (ROOT / name).exists() or (ROOT / "src" / "cerebras_gpt" / name).exists(), f"{page.name} names {name}"


@each(PAGES)
def test_every_test_in_backticks_exists(page):
    code = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("*.py"))
    for name in re.findall(r"`(test_\w+)`", prose(read(page))):
        assert f"def {name}(" in code, f"{page.name} names {name}"


@each(sorted(DOCS.glob("*.md")))
def test_a_page_fits_one_sitting_and_is_on_the_map(page):
    assert len(read(page).splitlines()) <= (460 if page.name == "cli.md" else 160)  # a table of each verb
    assert page.name == "index.md" or f"({page.name})" in read(DOCS / "index.md")


def test_the_python_of_the_pages_runs_in_the_order_of_the_walk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text(" ".join(map(str, range(9000))), "utf-8")
    for name in WALK:
        page = DOCS / f"{name}.md"
        code = blocks(read(page), "python")
        assert code, f"{page.name} has no example in Python"
        exec(compile("\n".join(code), page.name, "exec"), {"__name__": page.stem})
