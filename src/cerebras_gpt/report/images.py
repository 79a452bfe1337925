"""Figures as SVG inside a page, in the page's colours and font, or as PNG files."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from cerebras_gpt.report.figures import COLOURS, FIGURES, STYLE
from cerebras_gpt.report.run import read_run


def figure_svg(draw: Callable[[float], Figure], prefix: str, width: float, words: str) -> str:
    """A figure as an inline SVG element that takes its colours and its font from the page.

    Its inner names begin with the prefix, and equal figures give equal elements.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": prefix}):  # the salt makes equal runs give equal pages
        draw(width).savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r"\s*<defs>\s*<style.*?</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r'<svg width="[^"]*" height="[^"]*"', f'<svg role="img" aria-label="{words}"', svg, count=1)


def write_figures(run: Path, folder: Path) -> list[Path]:
    """The pictures of a run as PNG files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = [read_run(run)]
    paths = [folder / f"{name}.png" for name in FIGURES]
    with matplotlib.rc_context(STYLE):
        for path, draw in zip(paths, FIGURES.values(), strict=True):
            draw(runs).savefig(path, dpi=160, facecolor="white")
    return paths
