"""The command line: one verb a function, one line for a mistake, results on standard output and all else on stderr."""

# Each verb registers itself, so the order here is the order of the help.
from cerebras_gpt.cli import make, use  # noqa: F401

# isort: split
from cerebras_gpt.cli import exporting  # noqa: F401

# isort: split
from cerebras_gpt.cli import verify  # noqa: F401
from cerebras_gpt.cli.app import main

# isort: split
from cerebras_gpt.cli import importing  # noqa: F401  (after the walk, as help lists the verbs in this order)

__all__ = ["main"]
