"""The report: one self-contained HTML page about one run, or about several beside each other."""

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from string import Template

import matplotlib

from cerebras_gpt.files import replace_text
from cerebras_gpt.report import sections
from cerebras_gpt.report.figures import STYLE
from cerebras_gpt.report.images import figure_svg
from cerebras_gpt.report.kinds import Drawn, pictures_of
from cerebras_gpt.report.run import Run, read_run

OVERVIEW = ("loss", "bits_per_byte")
DETAIL = ("learning_rate", "gradient_norm", "throughput")


def _package_text(name: str) -> str:
    return resources.files("cerebras_gpt.report").joinpath(name).read_text("utf-8")


def titled(run: Run, content: str, alone: bool) -> str:
    """Content of one run, under its name where the page is about several."""
    return content if alone else f"<h3>{sections.clean(run.name)}</h3>{content}"


def render(runs: Sequence[Run]) -> str:
    """The page as HTML."""
    alone = len(runs) == 1
    title = sections.clean(runs[0].name if alone else f"{len(runs)} runs")

    def each(part: Callable[[Run], str]) -> str:
        return "".join(titled(run, part(run), alone) for run in runs)

    return Template(_package_text("page.html")).substitute(
        title=title,
        style=_package_text("style.css"),
        lead=sections.headline(runs[0]) if alone else "The same pictures for every run, so that they can be compared.",
        summary=sections.tiles(runs[0]) if alone else sections.comparison_table(runs),
        overview=sections.pictures(runs, OVERVIEW),
        samples=each(sections.samples),
        detail=sections.pictures(runs, DETAIL),
        plan=each(sections.plan_table),
        parametrization=each(sections.parametrization_table),
        environment=each(sections.environment),
        commands=each(sections.next_commands),
    )


def science(name: str, drawn: Sequence[Drawn], at: int) -> str:
    """The pictures of a ladder, a check, a law or scores, under the name of their path."""
    figures = "".join(
        f"<figure>{figure_svg(one.figure, f'{one.name}-{at}', one.words)}<figcaption>{one.words}</figcaption></figure>"
        for one in drawn
    )
    nothing = '<p class="quiet">Nothing was measured here that a picture could show.</p>'
    return f"<section><h2>{sections.clean(name)}</h2>{figures or nothing}</section>"


def render_science(parts: Sequence[str]) -> str:
    """A page of pictures alone, without any run."""
    return Template(_package_text("science.html")).substitute(style=_package_text("style.css"), parts="".join(parts))


def write_report(paths: Sequence[Path], out: Path) -> Path:
    """Writes the page about these runs, ladders, checks, laws and scores, and gives its path back."""
    if not paths:
        raise ValueError("no run was given; give at least one run folder, ladder, check or law")
    with matplotlib.rc_context(STYLE):
        found = [(path, pictures_of(path)) for path in paths]
        runs = [read_run(path) for path, drawn in found if drawn is None]
        parts = [science(path.name, drawn, at) for at, (path, drawn) in enumerate(found) if drawn is not None]
    page = render(runs).replace("<footer", "".join(parts) + "<footer", 1) if runs else render_science(parts)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, page)
    return out
