"""JSON to requests: what the OpenAI protocol lets one ask, each parameter with its bounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.request import Request
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.serve.failure import Refusal
from cerebras_gpt.text.chat import ChatTemplate, Message

MOST_STOPS, MOST_ANSWERS, MOST_TOP = 16, 16, 20

Text = Annotated[StrictStr, Field(max_length=1 << 20)]
Stop = Annotated[StrictStr, Field(min_length=1, max_length=256)]
Id = Annotated[StrictInt, Field(ge=0)]
Penalty = Annotated[float, Field(ge=-2, le=2, strict=True, allow_inf_nan=False)]


class Problem(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Failure(BaseModel):
    """Every answer that is an error."""

    error: Problem


class StreamOptions(BaseModel):
    """What a stream tells besides text."""

    model_config = ConfigDict(extra="forbid")
    include_usage: StrictBool | None = None
    include_obfuscation: StrictBool | None = None


class Body(BaseModel):
    """What completions and chat have in common; unknown names are refused, by name."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    model: Annotated[StrictStr, Field(min_length=1, max_length=256)]
    n: Annotated[StrictInt, Field(ge=1, le=MOST_ANSWERS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    top_k: Annotated[StrictInt, Field(ge=0)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10, strict=True)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100, strict=True)]] | None = None
    seed: Annotated[StrictInt, Field(ge=0, le=2**63 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[StrictStr, Field(max_length=256)] | None = None
    truncate_prompt: StrictBool | None = None
    """Keep only the last tokens of a prompt that is longer than the context, instead of refusing it."""

    def sampling(self, vocab_size: int) -> Sampling:
        """How tokens are chosen; without a seed still the same each time, with seed 0."""
        bias = []
        for key, value in (self.logit_bias or {}).items():
            if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < vocab_size):
                raise Refusal(400, f"logit_bias: {key[:40]!r} is no token id below {vocab_size}", "logit_bias")
            bias.append((int(key), value))
        return Sampling(
            1.0 if self.temperature is None else self.temperature,
            self.top_k or 0,
            1.0 if self.top_p is None else self.top_p,
            1.0 if self.repetition_penalty is None else self.repetition_penalty,
            self.seed or 0,
            self.presence_penalty or 0.0,
            self.frequency_penalty or 0.0,
            tuple(bias),
        )

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class CompletionBody(Body):
    """POST /v1/completions."""

    prompt: Text | list[Text] | list[Id] | list[list[Id]] = ""
    max_tokens: Annotated[StrictInt, Field(ge=0)] | None = None
    logprobs: Annotated[StrictInt, Field(ge=0, le=MOST_TOP)] | None = None
    echo: StrictBool | None = None
    best_of: Annotated[StrictInt, Field(ge=1, le=1)] | None = None
    suffix: None = None


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: Text
    name: StrictStr | None = None


class ChatBody(Body):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1024)]
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=MOST_TOP)] | None = None


class EmbeddingBody(BaseModel):
    """POST /v1/embeddings: the mean of the final states over a text's tokens."""

    model_config = ConfigDict(extra="forbid")
    model: Annotated[StrictStr, Field(min_length=1, max_length=256)]
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=256)] | list[Id]
    encoding_format: Literal["float", "base64"] | None = None
    user: Annotated[StrictStr, Field(max_length=256)] | None = None


@dataclass(frozen=True)
class Ask:
    """What the engine is asked for one body: a request for each answer, and how their text ends."""

    requests: list[Request]
    stop: tuple[str, ...]
    n_prompt: int
    """Tokens of all prompts, each counted once."""
    echoes: bool = False


def completion(body: CompletionBody, lm: LM) -> Ask:
    """The requests of a completion: n answers for each prompt."""
    prompts = _prompts(body.prompt)
    count = body.n or 1
    if len(prompts) * count > MOST_ANSWERS:
        raise Refusal(400, f"prompt: {len(prompts)} prompts with n={count} make more than {MOST_ANSWERS}", "prompt")
    echoes, most = bool(body.echo), 16 if body.max_tokens is None else body.max_tokens
    if most == 0 and not echoes:
        raise Refusal(400, "max_tokens: 0 needs echo", "max_tokens")
    sampling = body.sampling(lm.tokenizer.vocab_size)
    ids = [_checked(prompt, lm, "prompt", bool(body.truncate_prompt)) for prompt in prompts]
    made = [
        _request(one, most, sampling, index, lm, body.logprobs, echoes and body.logprobs is not None)
        for one in ids
        for index in range(count)
    ]
    return Ask(made, body.stops, sum(map(len, ids)), echoes)


def chat(body: ChatBody, lm: LM, template: ChatTemplate) -> Ask:
    """The requests of a chat: n answers to the last message."""
    messages = [Message("system" if m.role == "developer" else m.role, m.content) for m in body.messages]
    ids = _checked(template.prompt(messages), lm, "messages", bool(body.truncate_prompt))
    if body.top_logprobs is not None and not body.logprobs:
        raise Refusal(400, "top_logprobs: needs logprobs to be true", "top_logprobs")
    most = body.max_completion_tokens or body.max_tokens or lm.model.architecture.seq_len
    sampling, n_top = body.sampling(lm.tokenizer.vocab_size), (body.top_logprobs or 0) if body.logprobs else None
    made = [_request(ids, most, sampling, index, lm, n_top, False) for index in range(body.n or 1)]
    return Ask(made, (*body.stops, *template.stop), len(ids))


def texts(body: EmbeddingBody, lm: LM) -> list[tuple[int, ...]]:
    """The ids of each text to embed."""
    return [_checked(text, lm, "input", False) for text in _prompts(body.input)]


def _prompts(given: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]) -> list[str | list[int]]:
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [[int(str(part)) for part in given]]
    return [part if isinstance(part, str) else list(part) for part in given if not isinstance(part, int)] or [""]


def _checked(prompt: str | list[int], lm: LM, param: str, cuts: bool) -> tuple[int, ...]:
    """The ids of a prompt that fits in the context, cut on the left if that was asked for."""
    ids = _encoded(prompt, lm, param) if isinstance(prompt, str) else prompt
    seq_len, vocab_size = lm.model.architecture.seq_len, lm.tokenizer.vocab_size
    if ids and max(ids) >= vocab_size:
        raise Refusal(400, f"{param}: there is no token {max(ids)}; ids are below {vocab_size}", param)
    if len(ids) > seq_len and not cuts:
        message = f"{param}: {len(ids)} tokens, the context holds {seq_len}; shorten it or set truncate_prompt"
        raise Refusal(400, message, param, "context_length_exceeded")
    return tuple(ids[-seq_len:]) or (lm.tokenizer.end_of_text,)


def _encoded(text: str, lm: LM, param: str) -> list[int]:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Refusal(400, f"{param}: half of a surrogate pair is no text", param) from None
    return lm.tokenizer.encode(text)


def _request(
    ids: tuple[int, ...], most: int, sampling: Sampling, index: int, lm: LM, n_top: int | None, scores: bool
) -> Request:
    stop_ids = frozenset([lm.tokenizer.end_of_text])
    return Request(ids, most, sampling, index, stop_ids, "stop", n_top, scores)
