"""Texts longer than the window, read in segments: labels from all of them together, answers from the surest one."""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.answers import answers, overlap_of
from cerebras_gpt.tasks.classification import Classification
from cerebras_gpt.tasks.question_answering import MAX_TOKENS, NOT_THERE, QuestionAnswering
from cerebras_gpt.tasks.task import Scores, Task, unfilled
from cerebras_gpt.text.tokenizer import Tokenizer

WORD = re.compile(r"\s*\S+\s*\Z|\s*\S+")


def segments(text: str, room: int, tokenizer: Tokenizer, shared: float = 0.0) -> list[str]:
    """A text in pieces of whole words and at most `room` tokens each; a word that is longer is a piece of its own.

    With `shared` each piece begins with about that share of the one before, so that nothing is cut apart for both.
    """
    words = WORD.findall(text)
    costs = [len(tokenizer.encode(word)) for word in words]
    pieces, first, spent = [], 0, 0
    for place, cost in enumerate(costs):
        if place > first and spent + cost > room:
            pieces.append("".join(words[first:place]))
            again = place
            while again - 1 > first and sum(costs[again - 1 : place]) <= shared * room:
                again -= 1
            first, spent = again, sum(costs[again:place])
        spent += cost
    return [*pieces, "".join(words[first:])]


def label_log_probabilities(lm: LM, task: Classification, texts: Sequence[str]) -> Tensor:
    """Of every label for every text of any length: N texts -> (N, K) in float64.

    The mean over a text's segments, each weighed by its tokens: the segments vote as if they were independent, and a
    long text is no surer than a short one.
    """
    room = max(1, task.room(lm) - len(lm.tokenizer.encode(task.prompt(""))))
    pieces = [(place, piece) for place, text in enumerate(texts) for piece in segments(text, room, lm.tokenizer)]
    logs = task.log_probabilities(lm, [task.prompt(piece) for _, piece in pieces])  # (P, K)
    weights = torch.tensor([len(lm.tokenizer.encode(piece)) for _, piece in pieces], dtype=torch.float64)  # (P,)
    owner = torch.tensor([place for place, _ in pieces])
    total = torch.zeros(len(texts), dtype=torch.float64).index_add(0, owner, weights)  # (N,)
    sums = torch.zeros(len(texts), logs.shape[1], dtype=torch.float64).index_add(0, owner, logs * weights[:, None])
    return torch.log_softmax(sums / total.clamp(min=1)[:, None], -1)


def answer_from(lm: LM, task: QuestionAnswering, question: str, document: str) -> str:
    """The answer that the model is surest of, over segments of which neighbours share a half.

    Sure is what has the highest log-probability per token; that it is not there is the answer only if all say so.
    """
    frame = len(lm.tokenizer.encode(task.prompt(question, "x")))
    n_new = min(MAX_TOKENS, lm.model.architecture.seq_len // 2)
    room = max(1, lm.model.architecture.seq_len + 1 - n_new - frame)
    prompts = [task.prompt(question, piece) for piece in segments(document, room, lm.tokenizer, shared=0.5)]
    found = []
    for prompt, said in zip(prompts, answers(lm, prompts, MAX_TOKENS), strict=True):
        if said and said != NOT_THERE:
            score = lm.score_continuation(prompt, f" {said}")
            found.append((-score.nats / score.n_tokens, said))
    return max(found)[1] if found else NOT_THERE


def score_labels(lm: LM, task: Classification, examples: Sequence[Example]) -> Scores:
    """Accuracy and macro-F1 where every text is read whole."""
    texts = [unfilled(task.template, example.prompt).get("text", example.prompt) for example in examples]
    said = [task.labels[index] for index in label_log_probabilities(lm, task, texts).argmax(-1).tolist()]
    table = task.table(examples, said)
    return Scores({"accuracy": table.accuracy, "macro_f1": table.macro_f1}, said)


def score_answers(lm: LM, task: QuestionAnswering, examples: Sequence[Example]) -> Scores:
    """Word overlap and exact match where every context is read whole."""
    said = []
    for example in examples:
        parts = unfilled(task.template, example.prompt)
        if parts.get("context"):
            said.append(answer_from(lm, task, parts["question"], parts["context"]))
        else:
            said += answers(lm, [example.prompt], MAX_TOKENS)
    return overlap_of(said, examples)


SCORERS: Mapping[type, Callable[..., Scores]] = {Classification: score_labels, QuestionAnswering: score_answers}


def score_in_segments(lm: LM, task: Task, examples: Sequence[Example]) -> Scores:
    """How well a model does a task on texts of any length."""
    if type(task) not in SCORERS:
        raise ValueError("--segments is for classification and question-answering; leave it for other tasks")
    return SCORERS[type(task)](lm, task, examples)
