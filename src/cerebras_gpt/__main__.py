"""`python -m cerebras_gpt`, the form that torchrun starts."""

from cerebras_gpt.cli import main

main()
