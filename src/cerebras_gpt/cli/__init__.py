"""The command line: one verb a function, one line for a mistake, results on standard output and all else on stderr."""

from importlib import import_module

from cerebras_gpt.cli.app import main

# Each verb registers itself, so this is the order of the help, and of docs/cli.md.
for _room in (
    *("make", "tune", "check", "scaling", "ladder", "adapting", "use", "serving"),
    *("importing", "exporting", "verify", "bench"),
):
    import_module(f"{__name__}.{_room}")

__all__ = ["main"]
