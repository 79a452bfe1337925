"""Parts of the texts that are learned: what is said of a text mostly holds for half of it, so few texts teach as more.

An augmentation in the sense of Shorten and Khoshgoftaar (2019): crops, of words instead of pixels.
"""

import random
import re

from cerebras_gpt.data.example_batches import sample
from cerebras_gpt.data.examples import Example
from cerebras_gpt.tasks.classification import Classification
from cerebras_gpt.tasks.task import unfilled
from cerebras_gpt.tasks.tuning_data import TuningData
from cerebras_gpt.text.tokenizer import Tokenizer


def part(text: str, stream: random.Random) -> str:
    """Half of the words, neighbours, from anywhere in the text.

    >>> part("one two", random.Random(0))
    'two'
    """
    words = list(re.finditer(r"\S+", text))
    n = (len(words) + 1) // 2
    first = stream.randrange(len(words) - n + 1)
    return text[words[first].start() : words[first + n - 1].end()]


def parts_of(task: Classification, example: Example, n_parts: int) -> list[Example]:
    """Examples of parts of a text, with its label; the same ones every time."""
    text, stream = unfilled(task.template, example.prompt)["text"], random.Random(example.prompt)
    return [example._replace(prompt=task.prompt(part(text, stream))) for _ in range(n_parts)]


def with_parts(data: TuningData, n_parts: int, tokenizer: Tokenizer, seq_len: int) -> TuningData:
    """The data with so many parts of each text to learn beside the whole; what is held out stays as it is."""
    if n_parts < 0:
        raise ValueError(f"--parts is {n_parts}; it must be 0 (whole texts only) or a positive whole number")
    if not n_parts:
        return data
    if not isinstance(data.task, Classification):
        raise ValueError("--parts is for classification; leave it for other tasks")
    parts = [found for example in data.learned for found in parts_of(data.task, example, n_parts)]
    made = [sample(example, tokenizer, seq_len) for example in parts]
    return data._replace(train=[*data.train, *made], learned=[*data.learned, *parts])
