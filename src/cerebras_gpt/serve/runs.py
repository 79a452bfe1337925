"""Training runs as their pages show them, read from their records while they grow."""

import json
from pathlib import Path

from cerebras_gpt.record import read_metrics

MOST_POINTS = 600
MOST_RUNS = 200


def found_runs(folder: Path | None) -> dict[str, Path]:
    """The run folders in a folder, or the folder itself if it is one, by name."""
    if folder is None:
        return {}
    files = [path for depth in ("metrics.jsonl", "*/metrics.jsonl", "*/*/metrics.jsonl") for path in folder.glob(depth)]
    return {run_name(path.parent, folder): path.parent for path in files[:MOST_RUNS]}


def run_name(run: Path, folder: Path) -> str:
    """A run's path below the folder."""
    return folder.resolve().name if run == folder else run.relative_to(folder).as_posix()


def run_told(run: Path) -> dict[str, object]:
    """Curves of at most MOST_POINTS points, samples, and what was predicted."""
    rows = read_metrics(run / "metrics.jsonl")
    train = [row for row in rows if row.get("kind") == "train"]
    every = max(1, len(train) // MOST_POINTS)
    kept = train[::every] + (train[-1:] if every > 1 else [])
    return {
        "train": [[row.get("tokens"), row.get("loss")] for row in kept],
        "held_out": [
            [r.get("tokens"), r.get("loss"), r.get("bits_per_byte")] for r in rows if r.get("kind") == "held_out"
        ],
        "samples": [r for r in rows if r.get("kind") == "sample"][-5:],
        "latest": train[-1] if train else None,
        "predicted": predicted(run),
    }


def predicted(run: Path) -> dict[str, object] | None:
    """What the plan expects at the end, in bits per byte, if it says so."""
    path = run / "plan.json"
    if not path.is_file():
        return None
    try:
        plan = json.loads(path.read_text("utf-8"))
    except ValueError:
        return None
    return plan.get("prediction") if isinstance(plan, dict) else None
