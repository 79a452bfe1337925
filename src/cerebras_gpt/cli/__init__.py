"""The command line: one verb a function, one line for a mistake, results on standard output and all else on stderr."""

from cerebras_gpt.cli import make, tune, use, verify  # noqa: F401  (each verb registers itself)
from cerebras_gpt.cli.app import main

# isort: split
from cerebras_gpt.cli import importing  # noqa: F401  (after the walk, as help lists the verbs in this order)

__all__ = ["main"]
