"""The manifest of a pack: what it holds, the hash of every file, and a seal over itself."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cerebras_gpt import config

FORMAT = "cerebras-gpt shards"
VERSION = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
SPLITS = ("train", "val")
NO_SEAL = '"seal": ""'
REMEDY = "pack again or restore it"


@dataclass(frozen=True)
class File:
    """One file of a pack."""

    name: str
    n_bytes: int
    sha256: str

    def check_size(self, folder: Path) -> Path:
        """The path of the file; raises ValueError if it is missing or of another size."""
        path = folder / self.name
        if not path.is_file():
            raise ValueError(f"{path} is missing; {REMEDY}")
        if (found := path.stat().st_size) != self.n_bytes:
            raise ValueError(f"{path} is damaged: it has {found:,} bytes, its manifest says {self.n_bytes:,}; {REMEDY}")
        return path

    def check(self, folder: Path) -> Path:
        """The path of the file; raises ValueError if its content is not what was packed."""
        path = self.check_size(folder)
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"{path} is damaged: its sha256 is {found[:12]}, its manifest says {self.sha256[:12]}; {REMEDY}"
            )
        return path


@dataclass(frozen=True)
class Split:
    """What the train or val part of a pack holds."""

    n_documents: int
    n_tokens: int
    """The end of text after each document included."""
    n_bytes: int
    """UTF-8 bytes of the text."""
    files: tuple[File, ...]
    """Token ids, little endian, one after the other."""
    offsets: File
    """Where each document starts, in tokens: little-endian uint64."""


@dataclass(frozen=True)
class Manifest:
    """Everything that there is to know about a pack without reading its tokens."""

    format: str
    version: int
    dtype: str
    """numpy's name of the type of a token id."""
    vocab_size: int
    tokenizer_hash: str
    tokenizer: File
    held_out_rule: str
    train: Split
    val: Split
    accounting: dict[str, object] | None
    """What became of each source record, if the packer was told."""

    @property
    def files(self) -> tuple[File, ...]:
        """Every file of the pack but the manifest."""
        splits = (self.train, self.val)
        return (self.tokenizer, *(file for split in splits for file in (*split.files, split.offsets)))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names and hashes of all files: equal only for equal packs."""
        lines = "".join(f"{file.sha256}  {file.name}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()

    def split(self, name: str) -> Split:
        """The split of that name."""
        if name not in SPLITS:
            raise ValueError(config.unknown("split", name, SPLITS))
        return cast(Split, getattr(self, name))

    def to_json(self) -> str:
        """The text of manifest.json, sealed with its own SHA-256."""
        text = json.dumps({"seal": "", **config.to_mapping(self)}, indent=2) + "\n"
        return text.replace(NO_SEAL, f'"seal": "{hashlib.sha256(text.encode()).hexdigest()}"', 1)

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """A manifest from its text; raises ValueError if a single character differs from what was written."""
        seal = re.search(r'"seal": "([0-9a-f]{64})"', text)
        unsealed = text.replace(seal[0], NO_SEAL, 1) if seal else ""
        if seal is None or hashlib.sha256(unsealed.encode()).hexdigest() != seal[1]:
            raise ValueError("its seal does not fit")
        mapping = json.loads(text)
        del mapping["seal"]
        if mapping.get("format") != FORMAT or mapping.get("version") != VERSION:
            raise ValueError(f"it is not in the format {FORMAT!r} version {VERSION}")
        return config.from_mapping(cls, mapping)


def read_manifest(pack: Path) -> Manifest:
    """The manifest of a pack; a pack without one does not exist."""
    path = pack / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{pack} is no pack (no {MANIFEST}); make one with: cerebras-gpt pack SOURCE --out {pack}"
        )
    try:
        return Manifest.from_json(path.read_bytes().decode())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; {REMEDY}") from None


def verify(pack: Path) -> Manifest:
    """The manifest of a pack whose every file has been read and found to be as packed."""
    manifest = read_manifest(pack)
    for file in manifest.files:
        file.check(pack)
    return manifest
