"""The waist of the system: above it everybody speaks text, below it everybody speaks tensors."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.generate.engine import Engine, Generation
from cerebras_gpt.generate.likelihood import token_nats
from cerebras_gpt.generate.network import Network
from cerebras_gpt.generate.precision import Precision, prepared
from cerebras_gpt.generate.request import Overflow
from cerebras_gpt.generate.sampling import PLAIN, Sampling
from cerebras_gpt.generate.text_stream import TextStream
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.text.chat import ChatTemplate, chat_template
from cerebras_gpt.text.tokenizer import Tokenizer


class Score(NamedTuple):
    """How surprised the model is by a text."""

    nats: float
    """Minus the natural logarithm of the text's probability."""
    n_tokens: int
    n_bytes: int
    """Length in UTF-8, which does not depend on the tokenizer."""


class LM:
    """A model with its tokenizer: generates text and scores it."""

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        chat_template: ChatTemplate = ChatTemplate(),  # noqa: B008  (it is frozen)
        weights: Precision = "auto",
        draft: "LM | None" = None,
    ) -> None:
        n_rows = model.architecture.vocab_size
        if tokenizer.vocab_size != n_rows:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the model {n_rows}; use the tokenizer of its own run"
            )
        self.model, self._make_network, self.weights = prepared(model, weights)
        if draft is not None and draft.tokenizer.hash != tokenizer.hash:
            raise ValueError(
                "the draft has another tokenizer than the model; give a smaller run packed with the same tokenizer"
            )
        self.tokenizer: Tokenizer = tokenizer
        self.chat_template, self.draft = chat_template, draft

    @classmethod
    def load(cls, path: Path, weights: Precision = "auto", draft: Path | None = None) -> Self:
        """The model of a checkpoint folder, or of the newest checkpoint of a run folder that verifies.

        In fewer bits it is another model: it generates, scores and embeds with its weights rounded.
        A draft, a smaller run of the same tokenizer, guesses tokens ahead; the distribution stays the model's.
        """
        folder = checkpoint.resolve(path)
        if not (folder / "tokenizer.json").exists():
            raise FileNotFoundError(
                f"{folder} has a model but no tokenizer; import the model again with --tokenizer FILE or gpt2"
            )
        guessing = None if draft is None else LM.load(draft, weights)
        with ThreadPoolExecutor(1) as beside:
            reading = beside.submit(Tokenizer.load, folder / "tokenizer.json")
            model = checkpoint.load_model(folder)
        return cls(model, reading.result(), chat_template(folder), weights, guessing)

    @cached_property
    def network(self) -> Network:
        """The model as the engine runs it."""
        return self._make_network()

    @property
    def draft_network(self) -> Network | None:
        """The smaller model that guesses, if there is one."""
        return None if self.draft is None else self.draft.network

    def engine(self, n_slots: int) -> Engine:
        """What continues up to n_slots sequences together."""
        return Engine(self.network, n_slots, draft=self.draft_network)

    def generate(
        self,
        prompt: str,
        max_tokens: int = 200,
        sampling: Sampling = PLAIN,
        stop: Sequence[str] = (),
        overflow: Overflow = "stop",
    ) -> str:
        """What follows the prompt, up to end-of-text, a stop string, max_tokens or the end of the context."""
        return "".join(self.stream(prompt, max_tokens, sampling, stop, overflow))

    def generate_batch(
        self,
        prompts: Sequence[str],
        max_tokens: int = 200,
        sampling: Sampling = PLAIN,
        stop: Sequence[str] = (),
        overflow: Overflow = "stop",
    ) -> list[str]:
        """What follows each prompt; prompt i gives what it gives alone with seed + i."""
        streams = [TextStream(stop) for _ in prompts]
        generation = self._generation(prompts, max_tokens, sampling, overflow)
        texts = [""] * len(prompts)
        for pieces in self._pieces(generation, streams):
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        return texts

    def stream(
        self,
        prompt: str,
        max_tokens: int = 200,
        sampling: Sampling = PLAIN,
        stop: Sequence[str] = (),
        overflow: Overflow = "stop",
    ) -> Iterator[str]:
        """The same text as `generate`, each piece as soon as it is certain."""
        streams = [TextStream(stop)]
        generation = self._generation([prompt], max_tokens, sampling, overflow)
        return (pieces[0] for pieces in self._pieces(generation, streams) if pieces[0])

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> list[float]:
        """The mean of the final states over these ids, of length 1: d_model numbers."""
        tokens = torch.tensor([list(ids)], device=self.network.device)  # (1, T)
        mean = self.model.hidden(tokens, dtype=self.network.dtype)[0].mean(0)  # (C,)
        return torch.nn.functional.normalize(mean.float(), dim=0).tolist()

    def score(self, text: str, stride: int = 0) -> Score:
        """The whole text at any length, as it would follow end-of-text; each window scores `stride` tokens."""
        return self.score_continuation("", text, stride)

    def score_continuation(self, context: str, continuation: str, stride: int = 0) -> Score:
        """The continuation alone, given the context; what does not fit in the model's context is cut on the left.

        The two are tokenized apart, so the context's tokens are the same for all choices: put the space between words
        at the beginning of the continuation, where the tokenizer has it, not at the end of the context.
        """
        given, ids = self._start(context), self.tokenizer.encode(continuation)
        nats = token_nats(self.model, given + ids, first=len(given), stride=stride)
        return Score(float(nats.sum()), len(ids), len(continuation.encode()))

    def _start(self, prompt: str) -> list[int]:
        """The prompt's ids; without any, a document begins: end-of-text."""
        return self.tokenizer.encode(prompt) or [self.tokenizer.end_of_text]

    def _generation(
        self, prompts: Sequence[str], max_tokens: int, sampling: Sampling, overflow: Overflow
    ) -> Generation:
        ids = [self._start(prompt) for prompt in prompts]
        ends = [self.tokenizer.end_of_text]
        return Generation(self.network, ids, sampling, max_tokens, ends, overflow, self.draft_network)

    def _pieces(self, generation: Generation, streams: list[TextStream]) -> Iterator[list[str]]:
        """The new text of every sequence, step by step."""
        while not generation.is_finished:
            yield [self._piece(generation, index, token, streams) for index, token in enumerate(generation.step())]
        yield [stream.close() for stream in streams]

    def _piece(self, generation: Generation, index: int, token: int | None, streams: list[TextStream]) -> str:
        if token is None or token == self.tokenizer.end_of_text:
            return ""
        text = streams[index].push(self.tokenizer.decode_bytes([token]))
        if streams[index].is_stopped:
            generation.cancel(index)
        return text
