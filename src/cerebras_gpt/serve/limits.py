"""What the server allows, so that no one can take more than a share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one server."""

    queue: int = 64
    """Answers of a model that may wait for a slot; more are refused with 429."""
    deadline_seconds: float = 300.0
    """A request that takes longer is ended."""
    body_bytes: int = 1 << 20
    header_bytes: int = 16 << 10
    read_seconds: float = 10.0
    """For the headers, and again for the body, of a request."""
    write_seconds: float = 30.0
    """A reader that takes nothing for so long is cut off."""
    connections: int = 512
    drain_seconds: float = 20.0
    """How long answers under way may go on after SIGTERM."""
    oversize_seconds: float = 0.1
    """Whoever sends more than is allowed waits so long for the answer, and takes no time from others meanwhile."""
    stalled_seconds: float = 1.75
    """An engine that has not moved for so long makes /health red, which is asked for within 2 seconds."""
    exit_seconds: float = 5.0
    """And after so long ends the process, for whoever watches it to start another."""
