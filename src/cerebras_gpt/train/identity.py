"""What identifies a run: its plan, data and tokenizer, in the run folder and again in every checkpoint."""

import json
import logging
from pathlib import Path

from cerebras_gpt import checkpoint
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.files import read_json, replace_text
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.train import calibrate

log = logging.getLogger("cerebras_gpt")

LOCK = ".lock"
PLAN, DATA, TOKENIZER = "plan.json", "data.json", "tokenizer.json"


def check_identity(plan: Plan, train: Shards, run: Path) -> None:
    """Refuses a folder that holds another run; where its own file is damaged, a checkpoint's copy tells."""
    kept = sound(run, PLAN)
    if kept is not None and Plan.load(kept) != plan:
        raise ValueError(f"{run} holds a run of another plan; give another --out, or the plan in {kept}")
    data = sound(run, DATA)
    if data is not None and read_json(data).get("fingerprint") != train.fingerprint:
        raise ValueError(f"{run} was started on other data; give another --out, or the data it began with")


def sound(run: Path, name: str) -> Path | None:
    """The readable one of a run's file and its newest checkpoint's copy, in this order; None if there is neither."""
    if is_readable(run / name):
        return run / name
    newest = checkpoint.newest(run)
    return newest / name if newest is not None and is_readable(newest / name) else None


def is_readable(file: Path) -> bool:
    """Whether it is there and holds a JSON object."""
    try:
        read_json(file)
    except (ValueError, FileNotFoundError):
        return False
    return True


def identify(plan: Plan, train: Shards, run: Path) -> None:
    """Writes what identifies the run, before its first step and over what has been damaged since."""
    run.mkdir(parents=True, exist_ok=True)
    replace_text(run / DATA, json.dumps({"fingerprint": train.fingerprint}) + "\n")
    replace_text(run / TOKENIZER, train.tokenizer.to_json())
    replace_text(run / PLAN, plan.to_json())


def heal_calibration(run: Path) -> None:
    """Puts a checkpoint's copy in the place of a damaged calibration, without which no run goes on to the same bits."""
    file = run / calibrate.FILE
    if not file.exists() or is_readable(file):
        return
    copy = sound(run, calibrate.FILE)
    if copy is None:
        file.unlink()
        log.warning("%s is damaged; this machine is measured again", file)
    else:
        replace_text(file, copy.read_text("utf-8"))
        log.warning("%s was damaged; it is now as in %s", file, copy)


def copies(train: Shards, run: Path) -> dict[str, str]:
    """What every checkpoint holds beside its plan, so that it stands on its own."""
    return {
        TOKENIZER: train.tokenizer.to_json(),
        DATA: json.dumps({"fingerprint": train.fingerprint}) + "\n",
        calibrate.FILE: (run / calibrate.FILE).read_text("utf-8"),
    }
