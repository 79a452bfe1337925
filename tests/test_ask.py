import json
import subprocess
import sys

import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.generate.beam import Beam
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import mup
from cerebras_gpt.tasks.ask import WAYS, Interview
from cerebras_gpt.tasks.classification import Classification
from cerebras_gpt.tasks.dialogue import Dialogue
from cerebras_gpt.tasks.instruction import Instruction
from cerebras_gpt.tasks.question_answering import NOT_THERE, QuestionAnswering
from cerebras_gpt.tasks.rows import Findings, Row
from cerebras_gpt.tasks.table import TASKS, task_json
from cerebras_gpt.tasks.translation import Translation
from cerebras_gpt.text.chat import Message
from cerebras_gpt.text.tokenizer import train_tokenizer

TOPICS = Classification(("cold", "warm"))
LEARNED = [TOPICS, Translation(("en-de", "en-fr")), QuestionAnswering(), Dialogue(), Instruction()]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """Gives a checkpoint of a model that knows nothing but what task it is for."""
    shape = Architecture(d_model=16, n_layers=1, n_heads=2, vocab_size=257, seq_len=64)
    model = initialize(GPT(shape, mup(shape)), torch.Generator().manual_seed(0))
    tokenizer = train_tokenizer(["plain words"], 257).to_json()

    def of(task):
        texts = {"model.json": checkpoint.model_json(model), "tokenizer.json": tokenizer}
        texts |= {"task.json": task_json(task)} if task else {}
        tensors = {"model.safetensors": dict(model.named_parameters())}
        return checkpoint.save(tmp_path_factory.mktemp("run"), 0, texts, tensors)

    return of


def told(interview, values):
    findings = Findings()
    rows = [Row(line, row) for line, row in enumerate(values, 1)]
    return list(interview.ask(rows, findings)), findings


def test_every_task_can_be_asked(adapted):
    assert set(WAYS) == set(TASKS.values())
    for task in LEARNED:
        interview = Interview.with_run(adapted(task), pair="en-fr" if isinstance(task, Translation) else "")
        answers = list(interview.ask(interview.rows_of(["one text", "another"]), Findings()))
        assert [answer.line for answer in answers] == [1, 2]
        assert all(isinstance(next(iter(answer.values.values())), str) for answer in answers)
        json.dumps([answer.values for answer in answers])


def test_a_label_comes_with_its_probability(adapted):
    interview = Interview.with_run(adapted(TOPICS))
    (short, long), _ = told(interview, [{"sentence": "ice"}, {"sentence": "ice " * 100}])
    assert short.values["label"] == TOPICS.classify(interview.lm, ["ice"])[0].label
    for answer in (short, long):
        by_label = answer.values["probabilities"]
        assert sum(by_label.values()) == pytest.approx(1) and set(by_label) == set(TOPICS.labels)
        assert answer.values["probability"] == max(by_label.values())
        assert str(answer) == f"{answer.values['label']}\t{answer.values['probability']:.3f}"


def test_a_translation_is_what_the_search_finds_for_its_languages(adapted):
    task = Translation(("en-de", "en-fr"))
    interview = Interview.with_run(adapted(task), pair="en-de")
    (usual,), _ = told(interview, [{"source": "one"}])
    (named,), _ = told(interview, [{"source": "one", "Direction": "en-fr"}])
    assert usual.values["translation"] == task.translate(interview.lm, ["one"], "en-de", Beam())[0]
    assert named.values["translation"] == task.translate(interview.lm, ["one"], "en-fr", Beam())[0]
    with pytest.raises(ValueError, match="choose one of en-de, en-fr"):
        told(Interview.with_run(adapted(task)), [{"source": "one"}])


def test_questions_are_answered_from_the_documents_or_the_context(adapted, tmp_path):
    (tmp_path / "hats.txt").write_text("The red hat hangs in the hall.\n\nBees make honey.")
    run = adapted(QuestionAnswering())
    (found, unknown), _ = told(
        Interview.with_run(run, documents=tmp_path),
        [{"question": "Where is the red hat?"}, {"question": "Who wrote Faust?"}],
    )
    assert found.values["source"].endswith("hats.txt, paragraph 1")
    assert unknown.values == {"answer": NOT_THERE, "source": ""}
    (plain, long), _ = told(Interview.with_run(run), [{"question": "a"}, {"question": "a", "story": "b c " * 90}])
    assert plain.values.keys() == long.values.keys() == {"answer"}


def test_a_conversation_is_answered_as_dialogue_answers_it(adapted):
    interview = Interview.with_run(adapted(Dialogue()))
    (answer,), findings = told(interview, [{"messages": ["hi"]}, {"messages": []}])
    assert answer.values["reply"] == Dialogue().reply(interview.lm, [Message("user", "hi")], 32)
    assert findings.n_refused == 1


def test_rows_that_cannot_be_asked_are_named(adapted):
    answers, findings = told(Interview.with_run(adapted(TOPICS)), [{"text": "ice"}, {"text": " "}, {"text": 7}])
    assert [answer.line for answer in answers] == [1, 3]
    assert findings.lines() == ["refused: 1 x empty text (line 2)"]


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        (None, {}, "was not adapted to a task"),
        (TOPICS, {"pair": "en-de"}, "--pair is for translation"),
        (TOPICS, {"documents": "."}, "--documents is for question-answering"),
    ],
)
def test_what_does_not_fit_the_run_is_refused(adapted, task, options, said):
    with pytest.raises(ValueError, match=said):
        Interview.with_run(adapted(task), **options)


def test_the_verb_reads_lines_and_writes_lines(adapted):
    command = [sys.executable, "-m", "cerebras_gpt", "ask", str(adapted(TOPICS))]
    lines = subprocess.run([*command], input="ice\n\nfire\n", capture_output=True, text=True, check=True).stdout
    assert [line.split("\t")[0] in TOPICS.labels for line in lines.splitlines()] == [True, True]
    answers = subprocess.run([*command, "ice", "--json"], capture_output=True, text=True, check=True).stdout
    assert json.loads(answers)["label"] == lines.split("\t")[0]
