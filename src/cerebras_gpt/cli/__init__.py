"""The command line: one verb a function, one line for a mistake, results on standard output and all else on stderr."""

from cerebras_gpt.cli import check, make, use, verify  # noqa: F401  (each verb registers itself)
from cerebras_gpt.cli.app import main

__all__ = ["main"]
