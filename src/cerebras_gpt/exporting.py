"""A run becomes files that other programs open, and what is written is read back and compared before it is kept."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cerebras_gpt import __version__, checkpoint
from cerebras_gpt.config import unknown
from cerebras_gpt.files import new_file, new_folder, read_json, replace_text, write_synced
from cerebras_gpt.generate.engine import generate_ids
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.interop import gguf, hf_folder, readers
from cerebras_gpt.interop.card import Origin, model_card
from cerebras_gpt.interop.fold import fold_changes, folded
from cerebras_gpt.interop.proof import Comparison, Expected, ProofError, compare, expected, require_equal
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import rows_of

TARGETS = ("hf", "gguf")
PROVE_TOKENS = 64
PROMPT = "The people of the United States"
PROBE = "Hello  it's!\n\n\t \u0001 caf\u00e9 \u4f60\u597d \U0001f680\U0001f468\u200d\U0001f469 <|endoftext|> 1234  \n"
"""A text that tokenizers like to differ on."""


@dataclass(frozen=True)
class Export:
    """What was written, and what was found when it was read back."""

    path: Path
    n_bytes: int
    fold: Mapping[str, str]
    """What the fold did to which weights; empty if it was plain GPT-2 before."""
    comparisons: Sequence[Comparison]
    notes: Sequence[str]
    """What else was compared, and what the proof could not cover."""

    def lines(self) -> list[str]:
        """The whole in words."""
        changes = ", ".join(f"{part} {change}" for part, change in self.fold.items())
        return [
            f"{self.path}: {self.n_bytes / 1e6:,.1f} MB",
            f"folded: {changes or 'nothing, it is plain GPT-2'}",
            *map(str, self.comparisons),
            *self.notes,
        ]

    def to_mapping(self) -> dict[str, object]:
        """Plain JSON values; no path, as files travel."""
        comparisons = [asdict(comparison) for comparison in self.comparisons]
        return {"cerebras_gpt": __version__, "fold": dict(self.fold), "readers": comparisons, "notes": [*self.notes]}


class Ours:
    """This package as a reader."""

    def __init__(self, model: GPT, end_of_text: int, name: str) -> None:
        self.model, self.end_of_text, self.name = model, end_of_text, name

    def logits(self, ids: Tensor) -> Tensor:
        """Next-token logits at every position: (1, T) -> (1, T, V)."""
        with torch.no_grad():
            return self.model(ids)

    def greedy(self, prompt: Sequence[int], n_tokens: int) -> list[int]:
        """The likeliest next tokens, one after the other, up to n_tokens or the end of the text."""
        steps = generate_ids(self.model, [prompt], Sampling(temperature=0.0), n_tokens, [self.end_of_text])
        return [token for (token,) in steps if token is not None]


def export_model(
    run: Path,
    to: str,
    out: Path,
    type: str | None = None,
    prove_tokens: int = PROVE_TOKENS,
    licence: str | None = None,
) -> Export:
    """Writes a run as a Hugging Face folder ("hf") or a GGUF file ("gguf"), proven or not at all.

    `type` is how a GGUF file keeps its matrices, one of `interop.gguf.KINDS`, float32 if not given.
    """
    check(to, out, type, prove_tokens, licence)
    folder = checkpoint.resolve(run)
    lm = LM.load(folder)
    plain = folded(lm.model)
    reference = Ours(lm.model, lm.tokenizer.end_of_text, "the model")
    architecture = plain.architecture
    prompt = lm.tokenizer.encode(PROMPT)
    model = expected(reference, prompt, prove_tokens, architecture.vocab_size, architecture.seq_len)
    if to == "gguf":
        return export_gguf(lm, plain, model, out, type or "f32")
    return export_hf(lm, plain, model, out, origin(folder, lm.model, out.name), licence)


def check(to: str, out: Path, type: str | None, prove_tokens: int, licence: str | None) -> None:
    """Refuses at the door what cannot be written."""
    if to not in TARGETS:
        raise ValueError(unknown("format", to, TARGETS))
    if prove_tokens < 1:
        raise ValueError(f"{prove_tokens} tokens prove nothing; give 1 or more")
    if licence is not None and not re.fullmatch(r"[\w.-]+", licence):
        raise ValueError(f"{licence!r} is no licence identifier; give one such as apache-2.0")
    if to == "gguf":
        gguf.package()
        gguf.kind_named(type or "f32")
        if out.suffix != ".gguf":
            raise ValueError(f"{out} is no name of a GGUF file; give one that ends in .gguf")
        if out.exists():
            raise ValueError(f"{out} exists already; choose another name, or delete it")
        return
    if type is not None:
        raise ValueError(f"type {type!r} is for GGUF files; a Hugging Face folder holds float32, so leave it out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder; choose another name, or empty it")


def origin(folder: Path, model: GPT, name: str) -> Origin:
    """What a checkpoint folder and the run around it say of the model."""
    facts: dict[str, str] = {}
    if (folder / "plan.json").exists() and (folder / "trainer.json").exists():
        plan, step = Plan.load(folder / "plan.json"), int(str(read_json(folder / "trainer.json")["step"]))
        facts["tokens"] = f"{step * plan.tokens_per_step:,}, in {step:,} steps of {plan.tokens_per_step:,}"
        scores = rows_of(folder.parents[1] / "metrics.jsonl", "held_out")
        for row in [row for row in scores if row["step"] == step][-1:]:
            facts["held-out text"] = f"{row['bits_per_byte']:.4f} bits per byte, {row['loss']:.4f} nats per token"
    return Origin(name, facts, fold_changes(model))


def export_hf(lm: LM, plain: GPT, model: Expected, out: Path, source: Origin, licence: str | None) -> Export:
    """A Hugging Face folder, with its card and proof."""
    with new_folder(out) as fresh:
        hf_folder.write_hf_folder(fresh, plain, lm.tokenizer)
        back = hf_folder.read_hf_weights(fresh, plain.architecture)
        require_same_bits(plain, back)
        ours = Ours(carrying(plain, back), lm.tokenizer.end_of_text, f"cerebras-gpt {__version__} as plain GPT-2")
        notes = [f"{len(back)} tensors read back bit for bit"]
        comparisons = [compare(model, ours)]
        if readers.has_transformers():
            theirs = readers.Transformers(fresh)
            comparisons.append(compare(model, theirs))
            require_same_ids(lm, theirs)
            notes.append(f"{theirs.name}: the same token ids")
        else:
            notes.append("transformers is not installed, so no program but ours has read the folder")
        for comparison in comparisons:
            require_equal(comparison)
        made = Export(out, 0, source.fold, comparisons, notes)
        proof = [*map(str, comparisons), *notes]
        card = model_card(source, plain.architecture, proof, licence, __version__)
        write_synced(fresh / "README.md", [card.encode("utf-8")])
        write_synced(fresh / "proof.json", [hf_folder.as_json(made.to_mapping()).encode("utf-8")])
        n_bytes = sum(file.stat().st_size for file in fresh.iterdir())
    return replace(made, n_bytes=n_bytes)


def export_gguf(lm: LM, plain: GPT, model: Expected, out: Path, type: str) -> Export:
    """A GGUF file, with its proof beside it."""
    kind, end_of_text = gguf.kind_named(type), lm.tokenizer.end_of_text
    if plain.architecture.activation == "relu":
        raise ValueError("llama.cpp's GPT-2 has no ReLU, so this model cannot be a GGUF file; use --to hf")
    with new_file(out) as fresh:
        gguf.write_gguf(fresh, plain, lm.tokenizer, kind, out.stem)
        weights = dict(plain.named_parameters())
        back = gguf.read_gguf_weights(fresh, weights)
        require_near(weights, back, kind.error)
        as_trained = compare(model, Ours(carrying(plain, back), end_of_text, f"cerebras-gpt {__version__}, as trained"))
        if kind.error == 0:
            require_same_bits(plain, back)
            require_equal(as_trained)
        shape = replace(plain.architecture, activation="gelu_new")
        as_llama = GPT(shape, plain.parametrization).eval()
        as_llama.load_state_dict(back)
        as_run = compare(model, Ours(as_llama, end_of_text, "with the tanh GELU, as llama.cpp computes"))
        made = Export(out, fresh.stat().st_size, fold_changes(lm.model), [as_trained, as_run], gguf_notes(plain, kind))
    replace_text(out.with_suffix(".proof.json"), hf_folder.as_json(made.to_mapping()))
    return made


def gguf_notes(plain: GPT, kind: gguf.Kind) -> list[str]:
    """What is not as asked for, and what was not run."""
    notes = ["llama.cpp itself is not run here; docs/exchange.md says how near it comes"]
    if narrow := gguf.fallbacks(plain, kind):
        notes.append(f"{len(narrow)} matrices are float16: their rows are no whole number of blocks of {kind.type}")
    return notes


def carrying(plain: GPT, weights: Mapping[str, Tensor]) -> GPT:
    """A network of the same shape with other weights."""
    model = GPT(plain.architecture, plain.parametrization)
    model.load_state_dict(weights)
    return model.eval()


def require_same_bits(plain: GPT, back: Mapping[str, Tensor]) -> None:
    """Raises ProofError naming a tensor that does not read back as it was written."""
    for name, parameter in plain.named_parameters():
        if name not in back or not torch.equal(back[name], parameter):
            raise ProofError(f"tensor {name!r} does not read back as it was written; nothing was kept")


def require_near(weights: Mapping[str, Tensor], back: Mapping[str, Tensor], error: float) -> None:
    """Raises ProofError naming a tensor that is further off than its rounding explains."""
    for name, tensor in weights.items():
        largest = tensor.abs().max().item()
        if not (back[name] - tensor).abs().max().item() <= error * largest:
            raise ProofError(f"tensor {name!r} does not fit in this type (its largest number is {largest:.3g})")


def require_same_ids(lm: LM, reader: readers.Transformers) -> None:
    """Raises ProofError unless the reader cuts a difficult text into the same tokens."""
    ids = lm.tokenizer.encode(PROBE)
    if reader.encode(PROBE) != ids or reader.decode(ids) != PROBE:
        raise ProofError(f"{reader.name} reads the tokenizer otherwise; nothing was written")
