"""Errors as the OpenAI protocol tells them: a status, a message, the parameter's name."""

from collections.abc import Mapping, Sequence

from cerebras_gpt.errors import OURS


class Refusal(Exception):  # noqa: N818 - it is said by the server, not by the code
    """A request that is refused, or one that failed, with its HTTP status."""

    exit_code = OURS

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    @property
    def body(self) -> dict[str, object]:
        """The error in the form of the protocol."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """When to try again, if that may help."""
        return {"Retry-After": str(self.retry_after)} if self.retry_after else {}


BROKEN = Refusal(500, "the request failed; try another", code="failed")
"""A request that met a bug of ours, or native code that gave up."""


def queue_full() -> Refusal:
    """More is asked than can wait."""
    return Refusal(429, "the queue is full; try again later", code="queue_full", retry_after=1)


def refused(errors: Sequence[Mapping[str, object]]) -> Refusal:
    """The first of what pydantic found wrong, with the name of the parameter."""
    first = errors[0]
    location = first["loc"]
    names = [str(part) for part in location if part != "body"] if isinstance(location, tuple) else []
    param = names[0] if names and first["type"] != "json_invalid" else None
    where = ".".join(names) if param else "the body"
    return Refusal(400, f"{where}: {first['msg']}", param, "invalid_parameter" if param else "invalid_json")
