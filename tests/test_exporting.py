"""An export is proven or leaves nothing; other programs then say what we say."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import ctranslate2
import pytest
import torch
from transformers import AutoModelForCausalLM

from cerebras_gpt import checkpoint, cli, exporting
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.errors import OURS, ending
from cerebras_gpt.exporting import Ours, export_model
from cerebras_gpt.interop import gguf, hf_folder
from cerebras_gpt.interop.proof import ProofError, compare, expected, require_equal
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.loss import summed_loss
from cerebras_gpt.plan.families import Base, mup
from cerebras_gpt.record import Metrics

SHAPE = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=288, seq_len=320)
BASE = Base(d_model=8, n_layers=1, init_std=0.08, embedding_scale=10.0, output_alpha=2.0)


def saved(run: Path, model: GPT, tokenizer, texts=None) -> Path:
    own = {"model.json": checkpoint.model_json(model), "tokenizer.json": tokenizer.to_json()}
    checkpoint.save(run, 0, {**own, **(texts or {})}, {"model.safetensors": dict(model.named_parameters())})
    return run


@pytest.fixture(scope="module")
def tokenizer(data):
    return Shards.open(data, "train").tokenizer


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tokenizer, documents) -> Path:
    """A muP model that has learned a few texts by heart, so that it knows what it wants to say."""
    model = initialize(GPT(SHAPE, mup(SHAPE, BASE)), torch.Generator().manual_seed(0))
    ids = torch.tensor(tokenizer.encode(" ".join(text.text for text in documents[:6]))[: 4 * 321]).view(4, 321)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = summed_loss(model.hidden(ids[:, :-1]), model.head_table, ids[:, 1:]) / ids[:, 1:].numel()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss < 2
    return saved(tmp_path_factory.mktemp("trained"), model.eval(), tokenizer)


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "hf"
    return out, export_model(trained, "hf", out, prove_tokens=256)


def test_the_proof_covers_transformers_and_our_own_reader(folder):
    out, made = folder
    assert [comparison.reader.split()[0] for comparison in made.comparisons] == ["cerebras-gpt", "transformers"]
    for comparison in made.comparisons:
        assert comparison.relative <= 1e-5
        assert (comparison.n_tokens, comparison.n_same, comparison.margin) == (256, 256, 0.0)
    written = json.loads((out / "proof.json").read_text())
    assert written == made.to_mapping()
    assert written["fold"] == {"embeddings": "x 10", "final norm": "x 0.05", "query": "x 0.25"}


def test_greedy_text_of_256_tokens_is_the_same_in_three_programs(folder, trained, tokenizer, tmp_path):
    out, _ = folder
    model = checkpoint.load_model(checkpoint.resolve(trained))
    prompt = tokenizer.encode("my aunt")
    ours = Ours(model, tokenizer.end_of_text, "ours").greedy(prompt, 256)
    theirs = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    ids = torch.tensor([prompt])
    found = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=256)
    assert len(ours) == 256 and len(set(ours)) > 10
    assert found[0, len(prompt) :].tolist() == ours
    ctranslate2.converters.TransformersConverter(str(out)).convert(str(tmp_path / "ct2"))
    generator = ctranslate2.Generator(str(tmp_path / "ct2"), compute_type="float32", intra_threads=1)
    words = [tokenizer_token(out, index) for index in prompt]
    (result,) = generator.generate_batch([words], max_length=256, sampling_topk=1, include_prompt_in_result=False)
    assert result.sequences_ids[0] == ours


def tokenizer_token(out: Path, index: int) -> str:
    vocabulary = json.loads((out / "vocab.json").read_text("utf-8"))
    return next(token for token, found in vocabulary.items() if found == index)


def test_the_card_says_only_what_is_known(folder, trained, tmp_path):
    card = (folder[0] / "README.md").read_text()
    assert card.startswith("---\nlicense: unknown\nlibrary_name: transformers\n")
    assert "says nothing about it" in card and "embeddings x 10" in card
    assert "256 of 256 greedy tokens the same" in card
    export_model(trained, "hf", tmp_path / "hf", licence="apache-2.0", prove_tokens=1)
    assert "license: apache-2.0\n" in (tmp_path / "hf" / "README.md").read_text()


def test_a_run_tells_the_card_its_tokens_and_its_score(tokenizer, tiny, tmp_path):
    model = initialize(GPT(tiny.architecture, tiny.parametrization), torch.Generator().manual_seed(0))
    texts = {"plan.json": tiny.to_json(), "trainer.json": json.dumps({"step": 30, "seconds": 1.0})}
    run = saved(tmp_path / "run", model, tokenizer, texts)
    for step, bits in ((20, 3.0), (30, 2.5)):
        Metrics(run / "metrics.jsonl").write("held_out", step=step, loss=2 * bits, bits_per_byte=bits)
    export_model(run, "hf", tmp_path / "hf")
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "| tokens | 1,920, in 30 steps of 64 |" in card
    assert "| held-out text | 2.5000 bits per byte, 5.0000 nats per token |" in card


@pytest.mark.parametrize("type", gguf.KINDS)
def test_a_gguf_file_comes_with_its_proof(type, trained, tmp_path):
    made = export_model(trained, "gguf", tmp_path / "new" / "model.gguf", type, prove_tokens=8)
    as_trained, as_llama = made.comparisons
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["model.gguf", "model.proof.json"]
    assert json.loads((tmp_path / "new" / "model.proof.json").read_text()) == made.to_mapping()
    assert made.n_bytes == made.path.stat().st_size
    assert as_trained.relative <= (1e-5 if type == "f32" else 0.3)
    assert as_llama.absolute > as_trained.absolute or type != "f32"


def test_without_transformers_the_proof_says_that_it_is_limited(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(exporting.readers.util, "find_spec", lambda name: None)
    made = export_model(trained, "hf", tmp_path / "hf", prove_tokens=1)
    assert len(made.comparisons) == 1
    assert "transformers is not installed" in made.lines()[-1]


def test_without_gguf_there_is_one_line(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r'pip install "cerebras-gpt\[gguf\]"'):
        export_model(trained, "gguf", tmp_path / "model.gguf")


@pytest.mark.parametrize(("to", "name"), [("hf", "hf"), ("gguf", "model.gguf")])
@pytest.mark.parametrize("fault", ["blocks.1.attention.qkv.weight", "norm.bias"])
def test_a_proof_that_fails_leaves_nothing(to, name, fault, trained, tmp_path, monkeypatch):
    module, reader = {"hf": (hf_folder, "read_hf_weights"), "gguf": (gguf, "read_gguf_weights")}[to]
    read = getattr(module, reader)

    def damaged(*arguments):
        weights = read(*arguments)
        weights[fault] = weights[fault] + 0.01
        return weights

    monkeypatch.setattr(module, reader, damaged)
    with pytest.raises(ProofError) as raised:
        export_model(trained, to, tmp_path / name)
    assert fault in str(raised.value)
    assert ending(raised.value).code == OURS and "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_fit_in_a_type_are_refused(tokenizer, tmp_path):
    model = initialize(GPT(SHAPE, mup(SHAPE, BASE)), torch.Generator().manual_seed(0))
    model.blocks[0].feed_forward.up.weight.data[0, 0] = 1e6
    saved(tmp_path / "run", model, tokenizer)
    with pytest.raises(ProofError, match=r"blocks.0.feed_forward.up.weight.*does not fit"):
        export_model(tmp_path / "run", "gguf", tmp_path / "out" / "model.gguf", "f16")
    assert list((tmp_path / "out").iterdir()) == []


def test_another_model_is_no_proof(trained, tokenizer):
    model = checkpoint.load_model(checkpoint.resolve(trained))
    reference = expected(Ours(model, 287, "it"), tokenizer.encode("a dog"), 8, 288, 320)
    require_equal(compare(reference, Ours(model, 287, "the same")))
    model.norm.bias.data[0] += 1e-3
    with pytest.raises(ProofError, match="other computes other logits"):
        require_equal(compare(reference, Ours(model, 287, "other")))
    model.norm.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        require_equal(compare(reference, Ours(model, 287, "none")))


def test_a_different_text_is_no_proof_unless_it_is_a_tie(trained, tokenizer):
    model = checkpoint.load_model(checkpoint.resolve(trained))
    ours = Ours(model, 287, "it")
    reference = expected(ours, tokenizer.encode("a dog"), 8, 288, 320)

    class Stubborn(Ours):
        def greedy(self, prompt, n_tokens):
            return [self.end_of_text]

    found = compare(reference, Stubborn(model, 287, "stubborn"))
    assert found.n_same == 0 and found.margin > 1e-3
    with pytest.raises(ProofError, match="another greedy text from token 1 on"):
        require_equal(found)
    require_equal(replace(found, margin=1e-6))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"to": "hff"}, "unknown format 'hff'; did you mean 'hf'"),
        ({"to": "hf", "type": "f16"}, "type 'f16' is for GGUF files"),
        ({"to": "gguf", "type": "q5"}, "unknown type 'q5'"),
        ({"to": "gguf", "out": "model.bin"}, "ends in .gguf"),
        ({"to": "gguf", "out": "there.gguf"}, "exists already"),
        ({"to": "hf", "out": "full"}, "not an empty folder"),
        ({"to": "hf", "out": "there.gguf"}, "not an empty folder"),
        ({"to": "hf", "prove_tokens": 0}, "prove nothing"),
        ({"to": "hf", "licence": "mine\nextra: 1"}, "no licence identifier"),
    ],
)
def test_mistakes_are_refused_in_one_line(settings, words, trained, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").touch()
    (tmp_path / "there.gguf").touch()
    out = tmp_path / settings.pop("out", "new.gguf" if settings["to"] == "gguf" else "new")
    with pytest.raises(ValueError, match=words) as raised:
        export_model(trained, out=out, **settings)
    assert "\n" not in str(raised.value).replace("\\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "there.gguf"]


def test_an_empty_folder_may_be_filled(trained, tmp_path):
    (tmp_path / "hf").mkdir()
    export_model(trained, "hf", tmp_path / "hf", prove_tokens=1)
    assert (tmp_path / "hf" / "config.json").exists()


def test_a_run_without_tokenizer_is_refused(tmp_path):
    model = initialize(GPT(SHAPE, mup(SHAPE, BASE)), torch.Generator().manual_seed(0))
    weights = {"model.safetensors": dict(model.named_parameters())}
    checkpoint.save(tmp_path / "run", 0, {"model.json": checkpoint.model_json(model)}, weights)
    with pytest.raises(FileNotFoundError, match="has a model but no tokenizer"):
        export_model(tmp_path / "run", "hf", tmp_path / "hf")


def test_relu_is_no_gguf(tokenizer, tmp_path):
    shape = replace(SHAPE, activation="relu")
    model = initialize(GPT(shape, mup(shape, BASE)), torch.Generator().manual_seed(0))
    saved(tmp_path / "run", model, tokenizer)
    with pytest.raises(ValueError, match="has no ReLU"):
        export_model(tmp_path / "run", "gguf", tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_the_verb_prints_the_proof(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_PROC_BIND", "false")  # the tests' process is not to be bound
    command = ["export", str(trained), "--to", "gguf", "--type", "q8_0", "--out", str(tmp_path / "it.gguf")]
    monkeypatch.setattr(sys, "argv", ["cerebras-gpt", *command])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert (ended.value.code, told.err) == (0, "")
    assert told.out.splitlines()[1] == "folded: embeddings x 10, final norm x 0.05, query x 0.25"
    assert "as trained: logits differ by" in told.out
