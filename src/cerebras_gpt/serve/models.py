"""The models to be served, by the names that clients ask for them."""

from collections.abc import Sequence
from pathlib import Path

from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.precision import Precision


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Each run by the name of its folder; raises ValueError if two are the same."""
    found = {path.resolve().name: path for path in paths}
    if len(found) < len(paths):
        raise ValueError("two runs have the same folder name; models are told apart by it: rename one")
    return found


def load(paths: Sequence[Path], weights: Precision = "auto", draft: Path | None = None) -> dict[str, LM]:
    """The models of these runs; one draft may guess ahead for them all."""
    models = {name: LM.load(path, weights, draft) for name, path in named(paths).items()}
    for lm in models.values():
        lm.engine(n_slots=1)  # its weights are packed here, beside what else starts
    return models
