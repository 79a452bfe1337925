"""The account of every record that was read: records in = documents out + rejects by reason."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_EXAMPLES = 20


class Reject(NamedTuple):
    """A record that gave no document, and where it is."""

    reason: str
    file: str
    place: str
    """The line, or the byte offset in a file that is one record."""

    def __str__(self) -> str:
        return f"{self.reason} ({self.file}, {self.place})"


@dataclass
class Accounting:
    """Exact counts of what became of each record, with the first few rejects as examples."""

    n_documents: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    """How many records were rejected, by reason."""
    n_skipped_files: int = 0
    """Files in folders that were not opened: their suffix is not known or they are no regular files."""
    examples: list[Reject] = field(default_factory=list)

    @property
    def n_rejects(self) -> int:
        """Records that gave no document."""
        return self.rejects.total()

    @property
    def n_records(self) -> int:
        """Records seen."""
        return self.n_documents + self.n_rejects

    def reject(self, reject: Reject) -> None:
        """Counts a reject and keeps it if it is one of the first."""
        self.rejects[reject.reason] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(reject)

    def to_mapping(self) -> dict[str, object]:
        """The account as plain JSON values."""
        return {
            "n_records": self.n_records,
            "n_documents": self.n_documents,
            "n_rejects": self.n_rejects,
            "rejects": dict(sorted(self.rejects.items())),
            "n_skipped_files": self.n_skipped_files,
            "examples": [reject._asdict() for reject in self.examples],
        }
