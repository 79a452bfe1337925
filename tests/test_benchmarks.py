import bz2
import json
import zipfile

import pytest

from cerebras_gpt.data.examples import Example
from cerebras_gpt.evaluate.benchmarks import BENCHMARKS, benchmark, drawn, questions, read_examples, whole
from cerebras_gpt.evaluate.layouts import clean

HELLASWAG = {
    "activity_label": "Baking bread",
    "ctx_a": "[header] How to bake [title] Mix the flour.",
    "ctx_b": "the baker",
    "endings": ["kneads  it [step] well.", "flies away.", "sings.", "sleeps."],
    "label": "0",
}
ARC = {
    "question": {
        "stem": "What is wet?",
        "choices": [{"text": "rain", "label": "A"}, {"text": "sand", "label": "B"}],
    },
    "answerKey": "A",
}
FLAT_ARC = {"question": "What is wet?", "choices": {"text": ["rain", "sand"], "label": ["1", "2"]}, "answerKey": "1"}
WORDS = {
    "question_stem": "Fish live in",
    "choices": {"text": ["water", "trees"], "label": ["A", "B"]},
    "answerKey": "B",
}
PLAIN = {"query": "Question: What is wet?\n", "choices": ["rain", "sand"], "gold": 0}
MINI = {  # by task: a record in a public format, and the questions it becomes
    "hellaswag": (HELLASWAG, "Baking bread: How to bake. Mix the flour. The baker", " kneads it well."),
    "piqa": (
        {"goal": "Dry a cup", "sol1": "Wipe it.", "sol2": "Drop it.", "label": 0},
        "Question: Dry a cup\nAnswer:",
        " Wipe it.",
    ),
    "winogrande": (
        {"sentence": "Ann fed Bo because _ was kind.", "option1": "Ann", "option2": "Bo", "answer": "1"},
        "Ann fed Bo because Ann",
        " was kind.",
    ),
    "lambada": ({"text": "She opened the old door"}, "She opened the old", " door"),
    "arc-easy": (ARC, "Question: What is wet?\nAnswer:", " rain"),
    "arc-challenge": (FLAT_ARC, "Question: What is wet?\nAnswer:", " rain"),
    "openbookqa": (WORDS, "Fish live in", " water"),
    "blimp": ({"sentence_good": "Cats sleep.", "sentence_bad": "Cats sleeps."}, "", " Cats sleep."),
    "crows-pairs": ({"sent_more": "They steal.", "sent_less": "We steal."}, "", "They steal."),
}


def put(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("task", BENCHMARKS)
def test_a_record_of_each_benchmark_becomes_its_questions(task, tmp_path):
    record, context, continuation = MINI[task]
    row = benchmark(task)
    (one,) = whole(read_examples(row, put(tmp_path / "x.jsonl", record)), tmp_path)
    assert questions(row, one, "")[0] == (context, continuation)
    assert one.name == "x.jsonl:1"


def test_hellaswag_is_cleaned_as_lm_eval_cleans_it():
    assert clean(" How to [title] mix [substeps] it.  ") == "How to. mix it."


def test_the_plain_layout_gives_the_same_example(tmp_path):
    row = benchmark("arc-easy")
    plain, original = (read_examples(row, put(tmp_path / "x.jsonl", r)).examples for r in (PLAIN, ARC))
    assert plain == original


def test_six_lines_a_question_and_packed_files(tmp_path):
    lines = "Bread: The baker\n2\na b.\nc d.\ne f.\ng h.\n" * 2
    (tmp_path / "h.txt.bz2").write_bytes(bz2.compress(lines.encode()))
    found = read_examples(benchmark("hellaswag"), tmp_path / "h.txt.bz2").examples
    assert [one.name for one in found] == ["h.txt:1", "h.txt:7"]
    assert found[0][:4] == ("Bread: The baker", "e f.", ("a b.", "c d.", "e f.", "g h."), 2)


def test_a_zip_is_read_file_by_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as packed:
        for name in ("two", "one"):
            packed.writestr(f"data/{name}.jsonl", json.dumps(MINI["blimp"][0]) + "\n")
    found = read_examples(benchmark("blimp"), tmp_path / "b.zip").examples
    assert [one.name for one in found] == ["one.jsonl:1", "two.jsonl:1"]


def test_bad_records_are_counted_and_named(tmp_path):
    good, bad = MINI["piqa"][0], {**MINI["piqa"][0], "label": 2}
    path = put(tmp_path / "p.jsonl", good, bad, {"goal": "x"})
    with path.open("ab") as file:
        file.write(b"{torn\n\xff\xfe\n")
    given = read_examples(benchmark("piqa"), path)
    assert len(given.examples) == 1 and len(given.faults) == 4
    with pytest.raises(
        ValueError, match=r"4 of 5 records are bad: p.jsonl:2: label is 2, not a number from 0 to 1; .*1 more"
    ):
        whole(given, path)


@pytest.mark.parametrize(
    ("task", "record", "reason"),
    [
        ("arc-easy", {**FLAT_ARC, "answerKey": "E"}, "answerKey is 'E'"),
        ("arc-easy", {**FLAT_ARC, "choices": 3}, "choices is 3"),
        ("winogrande", {**MINI["winogrande"][0], "sentence": "No blank."}, "no _"),
        ("winogrande", {**MINI["winogrande"][0], "answer": ""}, "answer is ''"),
        ("lambada", {"text": "word"}, "a word of its own"),
        ("hellaswag", {**HELLASWAG, "endings": ["one"]}, "endings"),
        ("blimp", {"sentence_good": " ", "sentence_bad": "x"}, "not a text"),
    ],
)
def test_a_bad_value_is_explained(task, record, reason, tmp_path):
    (fault,) = read_examples(benchmark(task), put(tmp_path / "x.jsonl", record)).faults
    assert reason in fault


def test_no_question_is_shown_its_own_answer():
    row = benchmark("piqa")
    some = [Example(f"q{i}", f"a{i}", (f"a{i}", "no"), 0, f"x:{i}") for i in range(6)]
    before = drawn(row, some, None, 2)
    assert all(f"q{i}" not in shown and shown.count("\n\n") == 2 for i, shown in enumerate(before))
    assert before == drawn(row, some, None, 2)


def test_shots_follow_lm_evals_format():
    row = benchmark("winogrande")
    shots = [Example("", "was kind.", ("Ann fed Bo because Ann", "Ann fed Bo because Bo"), 1)] * 2
    assert drawn(row, [Example("", "x", ("a", "b"), 0)], shots, 1) == ["Ann fed Bo because Bo was kind.\n\n"]
    with pytest.raises(ValueError, match="compares sentences alone"):
        drawn(benchmark("blimp"), shots, None, 1)
    with pytest.raises(ValueError, match="more examples than the 2"):
        drawn(row, shots, None, 2)


def test_an_unknown_task_is_named_with_its_neighbour():
    with pytest.raises(ValueError, match="did you mean 'hellaswag'"):
        benchmark("helaswag")
