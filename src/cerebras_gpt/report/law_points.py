"""Points for a law, from finished run folders, tables and the published runs."""

import math
from collections.abc import Sequence
from pathlib import Path

from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.points import BITS, NATS, Point, Points, read_table
from cerebras_gpt.plan.published import published_points
from cerebras_gpt.report.run import read_run


def run_point(path: Path, formula: str) -> Point:
    """What a finished run says: parameters, tokens, FLOPs by the formula, final held-out bits per byte."""
    run = read_run(path)
    if not run.is_finished or math.isnan(run.bits_per_byte):
        raise ValueError(f"{path} is not finished; go on with `cerebras-gpt pretrain`, or leave it out")
    shape, tokens = run.plan.architecture, run.plan.tokens
    flops = training_flops(shape, tokens, formula)
    return Point(shape.n_parameters, tokens, run.bits_per_byte, flops, path.name or run.name, run.name)


def gather(paths: Sequence[Path], families: Sequence[str], formula: str) -> Points:
    """All points of the folders, tables and published families; raises ValueError where their units differ."""
    groups = [Points(published_points(family), NATS) for family in families]
    if families and formula != "cerebras":
        raise ValueError(f"published runs are counted by the formula 'cerebras', not {formula!r}; leave --formula")
    for path in paths:
        groups.append(Points((run_point(path, formula),), BITS) if path.is_dir() else read_table(path))
    units = sorted({group.unit for group in groups})
    if not groups:
        raise ValueError("give finished run folders, tables of points, or --published FAMILY")
    if len(units) > 1:
        raise ValueError(f"the losses are in {' and in '.join(units)}; fit runs of one unit only")
    return Points(tuple(point for group in groups for point in group.points), units[0])
