"""How a run can end before its last step."""

from cerebras_gpt.errors import DIVERGED, STOPPED


class DivergedError(ValueError):
    """The loss or the gradient is no longer a finite number."""

    exit_code = DIVERGED


class StoppedError(RuntimeError):
    """Somebody asked the run to stop; it has saved itself."""

    exit_code = STOPPED


class StopAskedError(RuntimeError):
    """Somebody asked to stop in the middle of something that can be done again."""
