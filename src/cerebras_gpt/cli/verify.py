"""Verbs that look whether all is well: verify, doctor."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cerebras_gpt.cli.app import AsJson, app


@app.command(epilog="Example: cerebras-gpt verify runs/quickstart")
def verify(path: Annotated[Path, typer.Argument(help="A pack, a checkpoint or a run folder.")]) -> None:
    """Check every file of a pack or of a run against its recorded hash."""
    from cerebras_gpt import checkpoint
    from cerebras_gpt.data import shards

    networks = [folder for folder in (*checkpoint.checkpoints(path), path) if (folder / "model.json").exists()]
    packs = [folder for folder in (path / "data", path) if (folder / "train-offsets.bin").exists()]
    if not networks and not packs:
        raise FileNotFoundError(f"{path} holds nothing to verify; give a pack, a checkpoint or a run folder")
    damages = [
        *(damage for folder in networks if (damage := _damage(checkpoint.verify, folder))),
        *(damage for folder in packs if (damage := _damage(shards.verify, folder))),
    ]
    if damages:
        raise ValueError("; ".join(damages))


def _damage(check: Callable[[Path], object], folder: Path) -> str:
    """What a check finds wrong with a folder; says that it is good and gives nothing otherwise."""
    try:
        check(folder)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    print(f"{folder}: good")
    return ""


@app.command(epilog="Example: cerebras-gpt doctor --json")
def doctor(as_json: AsJson = False) -> None:
    """Describe this environment, to paste in a bug report; it holds no names and no paths."""
    from cerebras_gpt.doctor import environment

    found = environment()
    print(json.dumps(found, indent=2) if as_json else "\n".join(f"{key:<24} {found[key]}" for key in found))
