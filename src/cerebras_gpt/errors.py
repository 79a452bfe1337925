"""How the program ends: its exit codes, and one line for every error that is not a bug of ours."""

import difflib
import errno
import os
from typing import NamedTuple

DONE, OURS, MISTAKE, STOPPED, DIVERGED, DOES_NOT_HOLD = 0, 1, 2, 3, 4, 5
"""Exit codes: done, our bug, the user's mistake, interrupted and saved, loss no longer finite, what was checked does
not hold (docs/cli.md)."""
READER_GONE = 141
"""What a shell reports of a process whose output nobody reads any more: 128 + SIGPIPE."""

NO_SPACE = "no space left for {path}; free some and run the same command again"
REMEDIES = {
    errno.ENOSPC: NO_SPACE,
    errno.EDQUOT: NO_SPACE,
    errno.EFBIG: NO_SPACE,
    errno.EIO: "the disk of {path} fails (input/output error); check it, and run the same command again",
    errno.ENOENT: "{path} does not exist; check how it is written",
    errno.EACCES: "no permission for {path}; choose another place, or change its permissions",
    errno.EPERM: "no permission for {path}; choose another place, or change its permissions",
    errno.EROFS: "{path} is on a disk that cannot be written; choose another place",
    errno.EISDIR: "{path} is a folder; give a file",
    errno.ENOTDIR: "{path} is not a folder, or a part of it is a file; give a folder",
    errno.EEXIST: "{path} exists already and is not a folder; choose another name",
    errno.ENOTEMPTY: "{path} is not empty; choose another name",
    errno.ENAMETOOLONG: "the name {path} is too long; choose a shorter one",
}
"""What to tell of an error of the operating system, and what to do about it."""


class Ending(NamedTuple):
    """How a process ends."""

    code: int
    line: str
    """For the person, without the program's name; empty if there is nothing to say."""


def ending(error: BaseException) -> Ending | None:
    """How a process ends by this error; None if it is a bug of ours.

    An error with an `exit_code` decides for itself (also those of the command-line parser).
    """
    if hasattr(error, "format_message"):
        return Ending(MISTAKE, usage(error))
    if hasattr(error, "exit_code"):
        return Ending(error.exit_code, str(error) if error.exit_code else "")
    if isinstance(error, KeyboardInterrupt):
        return Ending(STOPPED, "interrupted")
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):  # the help tells it so
        return Ending(READER_GONE, "")
    if isinstance(error, OSError) and error.errno in REMEDIES:
        path = error.filename2 or error.filename
        return Ending(MISTAKE, REMEDIES[error.errno].format(path=os.fsdecode(path) if path else "the output"))
    if is_out_of_memory(error):
        return Ending(MISTAKE, "not enough memory; choose a smaller size, batch_size or architecture.seq_len")
    if isinstance(error, ValueError | FileNotFoundError):
        return Ending(MISTAKE, str(error))
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was asked for that is not there; torch has no class of its own for it on a CPU."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "to allocate" in str(error))


def usage(error: BaseException) -> str:
    """What the parser of the command line found, with the nearest allowed name and where to read on."""
    name, allowed = getattr(error, "option_name", ""), getattr(error, "possibilities", None)
    if allowed is not None:
        message = f"no such option {name}"
        near = difflib.get_close_matches(name, allowed, n=1, cutoff=0)
        message += f"; did you mean {near[0]}?" if near else ""
    else:
        message = error.format_message().strip().rstrip(".")  # type: ignore[attr-defined]
        message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "cerebras-gpt"
    return f"{message}{'' if message.endswith('?') else ';'} see: {command} --help"
