import math

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from cerebras_gpt import checkpoint
from cerebras_gpt.evaluate.asking import joined
from cerebras_gpt.evaluate.benchmarks import Question
from cerebras_gpt.evaluate.lm_eval import CerebrasGPT
from cerebras_gpt.generate.likelihood import likelihoods
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.text.tokenizer import train_tokenizer

TEXT = "The cat sat on the mat, and the dog ate all that was left of the rain.\n"
PAIRS = [("The cat", " sat"), ("The cat ", "sat on"), ("", " The dog"), (TEXT * 3, " left"), ("a\n\n", "b c")]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Our model as lm-eval finds it by its name."""
    tokenizer, folder = train_tokenizer([TEXT * 20], vocab_size=290), tmp_path_factory.mktemp("run")
    model = GPT(Architecture(32, 2, 2, 290, 24), Parametrization(2, 16, base_init_std=0.3))
    initialize(model, torch.Generator().manual_seed(0))
    tokenizer.save(folder / "tokenizer.json")
    texts = {
        "model.json": checkpoint.model_json(model),
        "tokenizer.json": (folder / "tokenizer.json").read_text("utf-8"),
    }
    checkpoint.save(folder, 1, texts, {"model.safetensors": dict(model.named_parameters())})
    assert get_model("cerebras-gpt") is CerebrasGPT
    return CerebrasGPT(str(folder))


def asked(kind, *arguments):
    return [Instance(request_type=kind, doc={}, arguments=one, idx=0) for one in arguments]


def test_lm_eval_joins_and_scores_as_we_do(theirs):
    ours = likelihoods(theirs.lm.model, [joined(theirs.lm.tokenizer, Question(*pair)) for pair in PAIRS])
    found = theirs.loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True)
    for (logprob, greedy), one in zip(found, ours, strict=True):
        assert logprob == pytest.approx(one.logprob, abs=1e-4) and greedy == one.is_greedy


def test_a_text_rolls_through_windows_that_do_not_overlap(theirs):
    short, long = theirs.loglikelihood_rolling(asked("loglikelihood_rolling", ("The cat",), (TEXT * 4,)), True)
    assert short == pytest.approx(-theirs.lm.score("The cat").nats, abs=1e-4)
    assert -math.inf < long < short


def test_texts_are_generated_until_a_stop(theirs):
    whole = theirs.lm.tokenizer.decode(theirs.lm.tokenizer.encode("The cat"))
    settings = {"until": [], "max_gen_toks": 8}
    (free,) = theirs.generate_until(asked("generate_until", (whole, settings)), disable_tqdm=True)
    (cut,) = theirs.generate_until(asked("generate_until", (whole, settings | {"until": [free[2]]})), disable_tqdm=True)
    assert cut == free[: free.index(free[2])]
    (late,) = theirs.generate_until(asked("generate_until", (TEXT * 5, settings)), disable_tqdm=True)
    assert late
