"""How a run can end before its last step."""

from cerebras_gpt.errors import DIVERGED, DOES_NOT_HOLD, STOPPED


class DivergedError(ValueError):
    """The loss or the gradient is no longer a finite number."""

    exit_code = DIVERGED


class CorruptedError(RuntimeError):
    """The machine computed two results from the same numbers."""

    exit_code = DOES_NOT_HOLD


class StoppedError(RuntimeError):
    """Somebody asked the run to stop; it has saved itself."""

    exit_code = STOPPED


class StopAskedError(RuntimeError):
    """Somebody asked to stop in the middle of something that can be done again."""
