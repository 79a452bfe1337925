"""From models and token data of others to ours: a run folder, or a pack."""

import json
import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt import checkpoint
from cerebras_gpt.data.megatron import read_megatron
from cerebras_gpt.data.shards import Manifest, pack_ids
from cerebras_gpt.data.token_documents import token_documents
from cerebras_gpt.files import sync_folder
from cerebras_gpt.interop.adapter import read_adapter
from cerebras_gpt.interop.hugging_face import Reading, read_folder
from cerebras_gpt.model.lora import merged
from cerebras_gpt.text.tokenizer import Tokenizer, gpt2_tokenizer

log = logging.getLogger("cerebras_gpt")

GPT2_VOCABULARY = 50257
KEPT = ("tokenizer.json", "plan.json")
"""What a run keeps when an adapter is merged into it."""


class Imported(NamedTuple):
    """A model that came in."""

    path: Path
    """Its checkpoint folder."""
    reading: Reading

    def table(self) -> list[tuple[str, str]]:
        """What was read, as lines of a table."""
        reading = self.reading
        shape, scales = reading.model.architecture, reading.model.parametrization
        rows = [
            ("parameters", f"{shape.n_parameters:,}"),
            ("tensors", f"{reading.n_tensors} of {', '.join(reading.dtypes)} in {', '.join(reading.files)}"),
            ("ignored", f"{len(reading.ignored)} mask buffers"),
            ("shape", f"{shape.n_layers} layers, width {shape.d_model}, {shape.n_heads} heads, inner {shape.d_ffn}"),
            ("context", f"{shape.seq_len:,} tokens"),
            ("activation", f"{shape.activation} ({reading.settings.activation_function} in config.json)"),
            ("head", "the token table (tied)" if shape.tied else "a table of its own (untied)"),
            ("scales", f"embedding {scales.embedding_scale:g}, logits {scales.logit_scale:g}")
            if reading.settings.model_type == "btlm"
            else ("scales", "those of GPT-2" if scales.attention_power == 0.5 else "attention not scaled"),
            ("vocabulary", _vocabulary(reading)),
        ]
        return [*rows, ("written", str(self.path))]


def _vocabulary(reading: Reading) -> str:
    n_tokens = reading.model.architecture.vocab_size
    if reading.tokenizer is None:
        return f"{n_tokens:,} ids, no tokenizer: give one with --tokenizer to speak text"
    cut = f"; {reading.n_rows_cut:,} rows without a token cut" if reading.n_rows_cut else ""
    return f"{n_tokens:,} tokens, sha256 {reading.tokenizer.hash[:12]}{cut}"


def import_model(folder: Path, out: Path, tokenizer: Tokenizer | None = None) -> Imported:
    """Writes the model of a Hugging Face folder as a run folder, whole or not at all; no code of it is executed.

    The tokenizer is the given one, else the folder's; a vocabulary of 50,257 without any takes GPT-2's, with a note.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists already; choose another folder for the model, or remove it")
    reading = _with_gpt2_tokenizer(read_folder(folder, tokenizer))
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        saved = _save(reading, partial)
        os.rename(partial, out)
        sync_folder(out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Imported(out / saved.relative_to(partial), reading)


def import_adapter(folder: Path, onto: Path, out: Path) -> Path:
    """Writes a run with the LoRA adapter of a PEFT folder merged into it; gives its checkpoint folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists already; choose another folder for the model, or remove it")
    source = checkpoint.resolve(onto)
    model = read_adapter(folder, checkpoint.load_model(source))
    texts = {"model.json": checkpoint.model_json(model)}
    texts |= {name: (source / name).read_text("utf-8") for name in KEPT if (source / name).exists()}
    return checkpoint.save(out, 0, texts, {"model.safetensors": merged(model)})


def _with_gpt2_tokenizer(reading: Reading) -> Reading:
    """GPT-2's tokenizer for a model of just its vocabulary that brings none, as Cerebras-GPT's first releases did."""
    if reading.tokenizer is not None or reading.model.architecture.vocab_size != GPT2_VOCABULARY:
        return reading
    try:
        found = gpt2_tokenizer()
    except FileNotFoundError as error:
        log.warning("the folder has no tokenizer; its vocabulary is the size of GPT-2's, but %s", error)
        return reading
    log.warning("the folder has no tokenizer; its vocabulary is the size of GPT-2's, so that one is taken")
    return reading._replace(tokenizer=found)


def _save(reading: Reading, run: Path) -> Path:
    texts = {"model.json": checkpoint.model_json(reading.model)}
    if reading.tokenizer is not None:
        texts["tokenizer.json"] = reading.tokenizer.to_json()
    origin = {
        "model_type": reading.settings.model_type,
        "activation_function": reading.settings.activation_function,
        "files": reading.files,
        "dtypes": reading.dtypes,
        "ignored": reading.ignored,
        "rows_cut": reading.n_rows_cut,
    }
    texts["import.json"] = json.dumps(origin, indent=2) + "\n"
    tensors = {"model.safetensors": dict(reading.model.named_parameters())}
    saved = checkpoint.save(run, 0, texts, tensors)
    if reading.tokenizer is not None:
        reading.tokenizer.save(run / "tokenizer.json")
    return saved


def import_tokens(prefix: Path, out: Path, tokenizer: Tokenizer, val_fraction: float = 0.05) -> Manifest:
    """Writes Megatron-style token data (prefix.bin, prefix.idx) as a verified pack; documents keep their ids.

    Each document ends with one end of text, which is added only where it is not there already.
    """
    documents = token_documents(read_megatron(prefix), prefix.name, tokenizer)
    return pack_ids(documents, tokenizer, out, val_fraction)
