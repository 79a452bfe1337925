import json
import random

import pytest

from cerebras_gpt.tasks.parts import part, with_parts
from cerebras_gpt.tasks.tuning_data import read_tuning_data
from cerebras_gpt.text.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(["plain words"], 257)
WORDS = ["one", "two", "three", "four", "five", "six", "seven"]


def read(tmp_path, task, rows):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_tuning_data(task, file, None, TOKENIZER, 128)


def test_a_part_is_half_of_the_words_as_they_stand():
    text = " \n ".join(WORDS)
    found = {part(text, random.Random(seed)) for seed in range(50)}
    assert found == {" \n ".join(WORDS[i : i + 4]) for i in range(4)}
    assert part("word", random.Random(0)) == "word"


def test_parts_are_learned_beside_the_whole_and_nothing_else_changes(tmp_path):
    rows = [{"text": f"{n} {' '.join(WORDS)} {n}", "label": ("cold", "warm")[n % 2]} for n in range(20)]
    data = read(tmp_path, "classification", rows)
    more = with_parts(data, 2, TOKENIZER, 128)
    assert more.train[: len(data.train)] == data.train and len(more.train) == 3 * len(data.train)
    assert more.held_out == data.held_out and more.examples == data.examples
    for whole, half in zip(data.learned, more.learned[len(data.train) :: 2], strict=True):
        text, prompt = whole.prompt.removesuffix("\n\nLabel:"), half.prompt.removesuffix("\n\nLabel:")
        assert prompt in text and len(prompt.split()) == 5
        assert half.answer == whole.answer
    assert with_parts(data, 2, TOKENIZER, 128) == more


def test_no_parts_leave_any_task_as_it_is_and_others_are_refused(tmp_path):
    data = read(tmp_path, "instruction", [{"prompt": f"say {n}", "response": f"{n}"} for n in range(20)])
    assert with_parts(data, 0, TOKENIZER, 128) is data
    with pytest.raises(ValueError, match="for classification"):
        with_parts(data, 1, TOKENIZER, 128)
    with pytest.raises(ValueError, match="must be 0"):
        with_parts(data, -1, TOKENIZER, 128)
