"""What comes in can be used like a run of our own: generated from, evaluated, verified; and the verb tells of it."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from cerebras_gpt import checkpoint
from cerebras_gpt.evaluate.perplexity import perplexity
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.importing import import_model
from cerebras_gpt.interop.gpt2 import gpt2_tensors
from cerebras_gpt.text.tokenizer import gpt2_tokenizer, tokenizer_from_merges, train_tokenizer

TEXT = "A model that comes from elsewhere speaks as it spoke there. "
TOKENIZER = train_tokenizer([TEXT * 20], 290)


def folder_of(path, rows=TOKENIZER.vocab_size, tokenizer=TOKENIZER):
    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=rows,
        n_positions=32,
        n_embd=16,
        n_layer=2,
        n_head=2,
        activation_function="gelu",
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(shape).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    model.save_pretrained(path)
    if tokenizer is not None:
        tokenizer.save(path / "tokenizer.json")
    return model


def test_every_verb_that_uses_a_model_takes_it(tmp_path, call):
    folder_of(tmp_path / "hf")
    (tmp_path / "text.txt").write_text(TEXT)
    run = tmp_path / "runs" / "in"
    code, out, err = call("import", tmp_path / "hf", "--out", run)
    assert (code, err) == (0, "")
    for words in ("11,744", "28 of float32 in model.safetensors", "gelu", "tied", "290 tokens", str(run)):
        assert words in out
    assert call("verify", run)[0] == 0
    assert call("generate", run, "--prompt", "A model", "--max-tokens", 9)[0] == 0
    assert call("evaluate", run, "--text", tmp_path / "text.txt")[0] == 0


def test_greedy_text_and_the_score_are_those_of_transformers(tmp_path):
    model = folder_of(tmp_path / "hf")
    import_model(tmp_path / "hf", tmp_path / "run")
    lm = LM.load(tmp_path / "run")
    ids = torch.tensor([TOKENIZER.encode("A model")])
    with torch.no_grad():
        expected = model.generate(
            ids, max_length=30, do_sample=False, eos_token_id=TOKENIZER.end_of_text, pad_token_id=0
        )
        spoken = TOKENIZER.decode(expected[0, ids.shape[1] :].tolist())
        scored = torch.tensor([[TOKENIZER.end_of_text, *TOKENIZER.encode(TEXT)[:31]]])
        loss = model(scored, labels=scored).loss.item()
    assert lm.generate("A model", 30 - ids.shape[1], Sampling(temperature=0)) == spoken
    text = TOKENIZER.decode(scored[0, 1:].tolist())
    (tmp_path / "text.txt").write_text(text)
    assert perplexity(lm, tmp_path / "text.txt").loss == pytest.approx(loss, abs=1e-5)


def test_weights_go_through_bit_by_bit(tmp_path):
    model = folder_of(tmp_path / "hf")
    path = import_model(tmp_path / "hf", tmp_path / "run").path
    back = gpt2_tensors(dict(checkpoint.load_model(path).named_parameters()))
    stored = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    assert back.keys() == stored.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in stored.items())


def test_without_a_tokenizer_the_model_comes_in_and_says_what_is_missing(tmp_path, call):
    folder_of(tmp_path / "hf", tokenizer=None)
    code, out, _ = call("import", tmp_path / "hf", "--out", tmp_path / "run")
    assert code == 0
    assert "no tokenizer" in out
    assert (
        checkpoint.load_model(checkpoint.resolve(tmp_path / "run"))(torch.zeros(1, 3, dtype=torch.long)).shape[2] == 290
    )
    code, _, err = call("generate", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "--tokenizer" in err
    TOKENIZER.save(tmp_path / "mine.json")
    assert call("import", tmp_path / "hf", "--out", tmp_path / "two", "--tokenizer", tmp_path / "mine.json")[0] == 0
    assert LM.load(tmp_path / "two").generate("A", 3, Sampling(temperature=0)) is not None


def test_a_vocabulary_of_the_size_of_gpt2s_takes_its_tokenizer_and_says_so(tmp_path, call, caplog):
    folder_of(tmp_path / "hf", rows=50257, tokenizer=None)
    assert call("import", tmp_path / "hf", "--out", tmp_path / "run")[0] == 0
    assert "size of GPT-2's" in caplog.text
    assert LM.load(tmp_path / "run").tokenizer.hash == gpt2_tokenizer().hash


@pytest.mark.parametrize("rows", [50258, 50304])
def test_a_padded_vocabulary_never_yields_an_id_without_text(tmp_path, call, rows):
    folder_of(tmp_path / "hf", rows=rows, tokenizer=None)
    code, out, err = call("import", tmp_path / "hf", "--out", tmp_path / "run", "--tokenizer", "gpt2")
    assert (code, err) == (0, "")
    assert f"{rows - 50257} rows without a token cut" in out
    lm = LM.load(tmp_path / "run")
    assert lm.model.architecture.vocab_size == lm.tokenizer.vocab_size == 50257


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(tmp_path, call):
    folder_of(tmp_path / "hf", rows=280)
    code, _, err = call("import", tmp_path / "hf", "--out", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "290 tokens" in err
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_transformers_saved(tmp_path):
    folder_of(tmp_path / "hf", tokenizer=None)
    TOKENIZER.save(tmp_path / "mine.json")
    wrapped = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "mine.json"), eos_token="<|endoftext|>")
    wrapped.save_pretrained(tmp_path / "hf")
    lm = LM(*import_model(tmp_path / "hf", tmp_path / "run").reading[:2])
    assert lm.tokenizer.encode(TEXT) == TOKENIZER.encode(TEXT)


def test_the_two_older_tokenizer_files(tmp_path, call):
    folder_of(tmp_path / "hf", tokenizer=None)
    model = json.loads(TOKENIZER.to_json())
    vocabulary = model["model"]["vocab"] | {"<|endoftext|>": TOKENIZER.end_of_text}
    merges = [tuple(pair) for pair in model["model"]["merges"]]
    (tmp_path / "hf" / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (tmp_path / "hf" / "merges.txt").write_text("\n".join(lines), "utf-8")
    found = import_model(tmp_path / "hf", tmp_path / "run").reading.tokenizer
    assert found.vocab_size == 290
    assert found.encode(TEXT) == TOKENIZER.encode(TEXT)
    assert tokenizer_from_merges(vocabulary, merges).hash == found.hash
    assert call("import", tmp_path / "hf", "--out", tmp_path / "two", "--tokenizer", tmp_path / "hf")[0] == 0
    code, _, err = call("import", tmp_path / "hf", "--out", tmp_path / "three", "--tokenizer", tmp_path)
    assert (code, err.count("\n")) == (2, 1)


def test_an_existing_folder_is_left_alone(tmp_path, call):
    folder_of(tmp_path / "hf")
    run = tmp_path / "run"
    run.mkdir()
    assert call("import", tmp_path / "hf", "--out", run)[0] == 0  # an empty one is taken
    before = sorted(run.rglob("*"))
    code, _, err = call("import", tmp_path / "hf", "--out", run)
    assert (code, err.count("\n")) == (2, 1)
    assert sorted(run.rglob("*")) == before


def test_a_folder_that_is_not_there(tmp_path, call):
    code, _, err = call("import", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "nowhere is no folder" in err


def test_the_python_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "import.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    exec(compile(code, "import.md", "exec"), {"__name__": "page"})
    assert "parameters" in capsys.readouterr().out
