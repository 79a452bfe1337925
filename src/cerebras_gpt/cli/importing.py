"""The verb that brings in what others made: import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerebras_gpt.cli.app import Out, app, prepare_process

if TYPE_CHECKING:
    from cerebras_gpt.text.tokenizer import Tokenizer

TOKEN_DATA = (".idx", ".bin")


@app.command("import", epilog="Example: cerebras-gpt import Cerebras-GPT-111M/ --out runs/111M")
def import_(
    source: Annotated[Path, typer.Argument(help="A Hugging Face model folder, or token data: PREFIX.idx.")],
    out: Out,
    tokenizer: Annotated[
        str | None, typer.Option(help="A tokenizer.json, its folder, or gpt2; needed where the source brings none.")
    ] = None,
    onto: Annotated[Path | None, typer.Option(help="A run that a LoRA adapter folder (PEFT) is merged into.")] = None,
    val_fraction: Annotated[float, typer.Option(help="Token data only: part of the documents to hold out.")] = 0.05,
) -> None:
    """Bring in a model as a run, or Megatron's token data as a pack; no code that comes with them is executed."""
    prepare_process()
    from cerebras_gpt.importing import import_adapter, import_model, import_tokens

    if onto is not None:
        print(import_adapter(source, onto, out))
        return
    given = None if tokenizer is None else _tokenizer(tokenizer)
    if source.suffix not in TOKEN_DATA or source.is_dir():
        for label, value in import_model(source, out, given).table():
            print(f"{label:<12} {value}")
        return
    if given is None:
        raise ValueError(
            f"{source} holds ids without a tokenizer; give the one that made them: --tokenizer FILE or gpt2"
        )
    manifest = import_tokens(source.with_suffix(""), out, given, val_fraction)
    for name in ("train", "val"):
        split = manifest.split(name)
        print(f"{name}: {split.n_documents:,} documents, {split.n_bytes:,} bytes, {split.n_tokens:,} tokens")


def _tokenizer(name: str) -> "Tokenizer":
    """The tokenizer of a file or of a folder, or GPT-2's by its name."""
    from cerebras_gpt.interop.vocabulary import read_tokenizer
    from cerebras_gpt.text.tokenizer import Tokenizer, gpt2_tokenizer

    path = Path(name)
    if path.is_dir():
        found = read_tokenizer(path)
        if found is None:
            raise FileNotFoundError(f"{path} has no tokenizer.json, nor vocab.json and merges.txt; give what has them")
        return found
    return gpt2_tokenizer() if name == "gpt2" and not path.exists() else Tokenizer.load(path)
