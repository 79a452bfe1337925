"""The report: one self-contained HTML page about one run, or about several beside each other."""

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from cerebras_gpt.files import replace_text
from cerebras_gpt.report import sections
from cerebras_gpt.report.figures import NARROW, WIDE
from cerebras_gpt.report.kinds import Drawn, pictures_of
from cerebras_gpt.report.run import Run, read_run

OVERVIEW = ("loss", "bits_per_byte")
DETAIL = ("learning_rate", "gradient_norm", "throughput", "noise")


def _package_text(name: str) -> str:
    return resources.files("cerebras_gpt.report").joinpath(name).read_text("utf-8")


def titled(run: Run, content: str, alone: bool) -> str:
    """Content of one run, under its name where the page is about several."""
    return content if alone else f"<h3>{sections.clean(run.name)}</h3>{content}"


def framed(kicker: str, heading: str, lead: str, content: str) -> str:
    """A whole page around ready HTML."""
    return Template(_package_text("page.html")).substitute(
        style=_package_text("style.css"),
        title=f"{heading}: {kicker.lower()}",
        kicker=kicker,
        heading=heading,
        lead=lead,
        content=content,
    )


def render(runs: Sequence[Run], parts: Sequence[str] = ()) -> str:
    """The page about runs, and ready parts after them, as HTML."""
    alone = len(runs) == 1

    def each(part: Callable[[Run], str]) -> str:
        return "".join(titled(run, part(run), alone) for run in runs)

    lead = sections.headline(runs[0]) if alone else "The same pictures for every run, so that they can be compared."
    summary = sections.tiles(runs[0]) if alone else sections.comparison_table(runs)
    content = Template(_package_text("run.html")).substitute(
        overview=sections.pictures(runs, OVERVIEW),
        samples=each(sections.samples),
        detail=sections.pictures(runs, [name for name in DETAIL if sections.is_measured(name, runs)]),
        plan=each(sections.plan_table),
        parametrization=each(sections.parametrization_table),
        environment=each(sections.environment),
        commands=each(sections.next_commands),
    )
    heading = sections.clean(runs[0].name if alone else f"{len(runs)} runs")
    return framed("Training report", heading, f'<p class="lead">{lead}</p>\n{summary}', content + "".join(parts))


def science(name: str, drawn: Sequence[Drawn], at: int) -> str:
    """The pictures of a ladder, a check, a search, a law or scores, under the name of their path."""
    figures = "".join(
        sections.figure(f"{one.name}-{at}", one.draw, {"wide": WIDE, "narrow": NARROW}, one.words) for one in drawn
    )
    nothing = '<p class="quiet">Nothing was measured here that a picture could show.</p>'
    return f"<section><h2>{sections.clean(name)}</h2>{figures or nothing}</section>"


def write_report(paths: Sequence[Path], out: Path) -> Path:
    """Writes the page about these runs, ladders, checks, searches, laws and scores, and gives its path back."""
    if not paths:
        raise ValueError("no run was given; give at least one run folder, ladder, check or law")
    found = [(path, pictures_of(path)) for path in paths]
    runs = [read_run(path) for path, drawn in found if drawn is None]
    parts = [science(name_of(path), drawn, at) for at, (path, drawn) in enumerate(found) if drawn is not None]
    page = render(runs, parts) if runs else framed("Scaling report", "Laws and ladders", "", "".join(parts))
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, page)
    return out


def name_of(path: Path) -> str:
    """What a part of the page is called: the folder, or the file without its ending."""
    return path.resolve().name if path.is_dir() else path.stem
