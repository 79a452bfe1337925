"""The report: one self-contained HTML page about one run, or about several beside each other."""

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from cerebras_gpt.files import replace_text
from cerebras_gpt.report import sections
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


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Writes the page about these run folders and gives its path back."""
    if not runs:
        raise ValueError("no run was given; give at least one run folder")
    page = render([read_run(path) for path in runs])
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, page)
    return out
