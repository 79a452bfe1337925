"""The tokenizer that a model folder brings: tokenizer.json, or vocab.json with merges.txt."""

from pathlib import Path

from cerebras_gpt.interop.folder import inside, read_object
from cerebras_gpt.text.tokenizer import Tokenizer, tokenizer_from_merges

TOKENIZER, VOCABULARY, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
REMEDY = "give another with --tokenizer FILE, or --tokenizer gpt2"


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The folder's own tokenizer; None if it has none, ValueError if it has one that we cannot use."""
    try:
        if (folder / TOKENIZER).exists():
            return Tokenizer.load(inside(folder, TOKENIZER))
        if (folder / VOCABULARY).exists() and (folder / MERGES).exists():
            return _from_merges(folder)
    except ValueError as error:
        raise ValueError(f"{error}; {REMEDY}") from None
    return None


def _from_merges(folder: Path) -> Tokenizer:
    vocabulary, merges = inside(folder, VOCABULARY), inside(folder, MERGES)
    lines = merges.read_bytes().decode("utf-8").splitlines()
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    try:
        return tokenizer_from_merges(read_object(vocabulary), [tuple(pair) for pair in pairs])
    except ValueError as error:
        raise ValueError(f"cannot use the tokenizer {vocabulary} with {MERGES}: {error}") from None
