"""Files of a folder that nobody vouches for: names that stay inside it, JSON objects of bounded size."""

import json
from collections.abc import Sequence
from pathlib import Path

LARGEST_JSON = 1 << 26
"""Bytes of the largest JSON file that is read; the index of a large model has about a tenth of a million."""
LONGEST_SHOWN = 80


def shown(value: object) -> str:
    """A value from a file as it stands in an error: one line of bounded length."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def inside(folder: Path, name: str) -> Path:
    """The path of a file that the folder names; raises ValueError if it would lie elsewhere.

    Links are followed: they may end in the folder, or in `blobs` of a Hugging Face cache, where its snapshots link to.
    """
    if not name or name in (".", "..") or set(name) & set("/\\\0:"):
        raise ValueError(f"{folder} names the file {shown(name)}; only plain names of files beside it are read")
    path, home = folder / name, folder.resolve()
    homes = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(path.resolve().is_relative_to(allowed) for allowed in homes):
        raise ValueError(f"{path} is a link that leads out of its folder; put the file itself there")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; the folder is not complete, fetch it again")
    if not path.is_file():
        raise ValueError(f"{path} is no file; the folder is not complete, fetch it again")
    return path


def read_object(path: Path) -> dict[str, object]:
    """The object in a JSON file; raises ValueError if it is too large, no JSON, no object, or says a key twice."""
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; {LARGEST_JSON:,} are the most that are read")
    return parsed_object(path.read_bytes(), str(path))


def parsed_object(text: bytes, source: str) -> dict[str, object]:
    """The object in a JSON text, each of its keys once."""
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except _TwiceError as error:
        raise ValueError(f"{source} says the key {error} twice; remove one") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{source} is no JSON; fetch it again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{source} holds {shown(found)}; it must be a JSON object")
    return found


class _TwiceError(Exception):
    """A key that an object says twice."""


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(shown(key))
        found[key] = value
    return found
