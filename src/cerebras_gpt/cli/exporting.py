"""The verb that takes a model to other programs: export."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cerebras_gpt.cli.app import AsJson, RunPath, app, prepare_process


@app.command(epilog="Example: cerebras-gpt export runs/quickstart --to hf --out exported/")
def export(
    run: RunPath,
    to: Annotated[str, typer.Option(help="hf: a Hugging Face folder; gguf: a file for llama.cpp.")],
    out: Annotated[Path, typer.Option(help="Folder to write, or a file that ends in .gguf.")],
    type: Annotated[
        str | None, typer.Option(help="How a GGUF file keeps its matrices: f32, f16, bf16, q8_0 or q4_0.")
    ] = None,
    prove_tokens: Annotated[int, typer.Option(help="Length of the greedy text that must be the same.")] = 64,
    licence: Annotated[str | None, typer.Option(help="Licence identifier for the card, such as apache-2.0.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model for other programs, with the proof that it is the same model."""
    prepare_process()
    from cerebras_gpt.exporting import export_model

    made = export_model(run, to, out, type, prove_tokens, licence)
    print(json.dumps(made.to_mapping()) if as_json else "\n".join(made.lines()))
