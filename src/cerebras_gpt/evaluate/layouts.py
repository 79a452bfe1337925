"""Records of the published benchmarks, in the layouts in which they are handed around, as examples."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from cerebras_gpt.data.examples import Example

Fields: TypeAlias = Mapping[str, object]


class Layout(NamedTuple):
    """One way to write down a benchmark."""

    keys: tuple[str, ...]
    """What its records have, and no other layout's of the same benchmark."""
    build: Callable[[Fields], Example]
    """Raises ValueError saying what is wrong with the values."""


def text(fields: Fields, key: str) -> str:
    """A text that is not empty."""
    value = fields[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} is {value!r}, not a text")
    return value


def texts(fields: Fields, key: str) -> tuple[str, ...]:
    """Two texts or more, none empty."""
    values = fields[key]
    if not isinstance(values, list) or len(values) < 2 or not all(isinstance(v, str) and v.strip() for v in values):
        raise ValueError(f"{key} is {values!r}, not two texts or more")
    return tuple(values)


def place(fields: Fields, key: str, n: int, first: int = 0) -> int:
    """Which of n, counted from `first` in the file and from 0 here."""
    value = fields[key]
    if not str(value).strip().isdecimal() or not first <= int(str(value)) < first + n:
        raise ValueError(f"{key} is {value!r}, not a number from {first} to {first + n - 1}")
    return int(str(value)) - first


def _chosen(prompt: str, choices: Sequence[str], gold: int) -> Example:
    return Example(prompt, choices[gold], tuple(choices), gold)


def clean(wiki_how: str) -> str:
    """HellaSwag's text without the marks of WikiHow, exactly as lm-eval cleans it."""
    return re.sub(r"\[.*?\]", "", wiki_how.strip().replace(" [title]", ". ")).replace("  ", " ")


def _hellaswag(fields: Fields) -> Example:
    endings = texts(fields, "endings")
    context = f"{text(fields, 'ctx_a')} {str(fields['ctx_b']).capitalize()}"
    prompt = clean(f"{text(fields, 'activity_label')}: {context}")
    return _chosen(prompt, [clean(ending) for ending in endings], place(fields, "label", len(endings)))


def _plain(prompt: str) -> Callable[[Fields], Example]:
    """The layout query, choices, gold; the query without what others put around it."""

    def build(fields: Fields) -> Example:
        query = text(fields, "query").removeprefix("Question: ").rstrip("\n")
        choices = texts(fields, "choices")
        return _chosen(prompt.format(query), choices, place(fields, "gold", len(choices)))

    return build


PLAIN = ("query", "choices", "gold")
QUESTION = "Question: {}\nAnswer:"


def _piqa(fields: Fields) -> Example:
    choices = text(fields, "sol1"), text(fields, "sol2")
    return _chosen(QUESTION.format(text(fields, "goal")), choices, place(fields, "label", 2))


def _stem(fields: Fields, key: str) -> tuple[str, Sequence[object]]:
    """The question and its choices as (label, text), flat or with a stem inside."""
    inner = fields[key]
    if isinstance(inner, dict):
        choices = inner.get("choices")
        pairs = [(c.get("label"), c.get("text")) for c in choices if isinstance(c, dict)] if choices else []
        return text({key: inner.get("stem")}, key), pairs
    columns = fields.get("choices")
    if not isinstance(columns, dict):
        raise ValueError(f"choices is {columns!r}, not label and text")
    return text(fields, key), list(zip(columns.get("label") or (), columns.get("text") or (), strict=False))


def _labelled(key: str, prompt: str) -> Callable[[Fields], Example]:
    """A question whose choices have labels, one of which is the answer's."""

    def build(fields: Fields) -> Example:
        question, pairs = _stem(fields, key)
        labels = [pair[0] for pair in pairs if isinstance(pair, tuple)]
        answer = str(fields["answerKey"]).strip()
        if answer not in labels:
            raise ValueError(f"answerKey is {answer!r}, not one of {labels}")
        choices = texts({"choices": [pair[1] for pair in pairs if isinstance(pair, tuple)]}, "choices")
        return _chosen(prompt.format(question), choices, labels.index(answer))

    return build


def _winogrande(fields: Fields) -> Example:
    before, blank, after = text(fields, "sentence").partition("_")
    if not blank or not after.strip():
        raise ValueError("sentence has no _ with words after it")
    choices = tuple(before + text(fields, key) for key in ("option1", "option2"))
    return Example("", after.strip(), choices, place(fields, "answer", 2, first=1))


def _beginnings(fields: Fields) -> Example:
    choices = texts(fields, "context_options")
    return Example("", text(fields, "continuation").strip(), choices, place(fields, "gold", len(choices)))


def _last_word(fields: Fields) -> Example:
    before, space, word = text(fields, "text").rpartition(" ")
    if not space or not before or not word:
        raise ValueError("text does not end in a word of its own")
    return Example(before, word)


def _continued(fields: Fields) -> Example:
    return Example(text(fields, "context"), text(fields, "continuation").removeprefix(" "))


def _pair(right: str, other: str) -> Layout:
    """Two sentences of which one should be likelier."""
    return Layout((right, other), lambda fields: _chosen("", (text(fields, right), text(fields, other)), 0))


HELLASWAG = (
    Layout(("activity_label", "ctx_a", "ctx_b", "endings", "label"), _hellaswag),
    Layout(PLAIN, _plain("{}")),
)
PIQA = (Layout(("goal", "sol1", "sol2", "label"), _piqa), Layout(PLAIN, _plain(QUESTION)))
WINOGRANDE = (
    Layout(("sentence", "option1", "option2", "answer"), _winogrande),
    Layout(("context_options", "continuation", "gold"), _beginnings),
)
LAMBADA = (Layout(("text",), _last_word), Layout(("context", "continuation"), _continued))
ARC = (Layout(("question", "answerKey"), _labelled("question", QUESTION)), Layout(PLAIN, _plain(QUESTION)))
OPENBOOKQA = (
    Layout(("question_stem", "choices", "answerKey"), _labelled("question_stem", "{}")),
    Layout(("question", "answerKey"), _labelled("question", "{}")),
    Layout(PLAIN, _plain("{}")),
)
BLIMP = (_pair("sentence_good", "sentence_bad"),)
CROWS_PAIRS = (_pair("sent_more", "sent_less"),)


def example(layouts: Sequence[Layout], fields: Fields, name: str) -> Example:
    """The example of a record in any of the layouts; raises ValueError saying what is wrong."""
    for layout in layouts:
        if all(key in fields for key in layout.keys):
            return layout.build(fields)._replace(name=name)
    needed = " or ".join(", ".join(layout.keys) for layout in layouts)
    raise ValueError(f"has {', '.join(map(str, fields)) or 'nothing'}; needs {needed}")
