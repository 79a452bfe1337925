"""The answers of one model to one benchmark as a file that grows, so that an interrupted evaluation goes on."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from cerebras_gpt import checkpoint
from cerebras_gpt.evaluate.records import sources
from cerebras_gpt.files import replace_text
from cerebras_gpt.generate.likelihood import Likelihood
from cerebras_gpt.record import read_metrics

FOLDER = "evaluations"
VERSION = 1
"""Of how questions are asked; another one asks again."""


def data_hash(paths: Iterable[Path]) -> str:
    """SHA-256 over the unpacked contents of all files behind the paths."""
    digest = hashlib.sha256()
    for path in paths:
        for source in sources(path):
            digest.update(hashlib.sha256(source.content).digest())
    return digest.hexdigest()


def folder_of(path: Path) -> Path:
    """Where the evaluations of a run folder, or of a checkpoint folder inside it, lie."""
    inside = path.resolve().parent.name == checkpoint.FOLDER
    return (path.resolve().parents[1] if inside else path) / FOLDER


class Answers:
    """A file of one line an example: its place, and the log-probability and greediness of each choice."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.found: dict[int, list[Likelihood]] = {}
        rows = read_metrics(path)
        if rows and rows[0].get("key") == key:
            for row in rows[1:]:
                likely = zip(row["logprobs"], row["greedy"], strict=True)  # type: ignore[call-overload]
                self.found[int(str(row["place"]))] = [Likelihood(float(p), bool(g)) for p, g in likely]
            replace_text(path, "".join(json.dumps(row) + "\n" for row in rows))  # without a line torn by a kill
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"key": key}) + "\n", "utf-8")

    def add(self, found: dict[int, tuple[str, list[Likelihood]]]) -> None:
        """Appends the answers of one batch: name and likelihoods by place."""
        with self.path.open("a", encoding="utf-8") as file:
            for place, (name, likely) in found.items():
                line = {"place": place, "name": name}
                values = {"logprobs": [one.logprob for one in likely], "greedy": [one.is_greedy for one in likely]}
                file.write(json.dumps({**line, **values}) + "\n")
        self.found |= {place: likely for place, (_, likely) in found.items()}
