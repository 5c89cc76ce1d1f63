"""The values that pass between the parts of the mock: a request's JSON in, an answer or a refusal out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgspec import Struct

from extproc.upstream.mock.faults import Faults

Json = dict[str, Any]
Headers = Sequence[tuple[bytes, bytes]]  # names in lower case
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


@dataclass(frozen=True)
class Options:
    """The command line as values. Port 0 picks a free one; `fault` applies to every request."""

    address: str = "127.0.0.1"
    port: int = 0
    name: str = "mock"
    api_key: str | None = None
    fault: str = ""
    body_limit: int = 64 * 2**20  # most bytes of a request's body
    log_size: int = 1000  # most requests in the log


class Refused(Exception):  # noqa: N818 - a refusal is an answer, not an error
    """Ends the request with an error answer in the shape of its API."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    @property
    def type(self) -> str:
        """The `type` of the error in OpenAI's form."""
        return "server_error" if self.status >= 500 else _TYPES.get(self.status, "invalid_request_error")


def error(refused: Refused) -> Json:
    """An error in OpenAI's form."""
    return {"error": {name: getattr(refused, name) for name in ("message", "type", "param", "code")}}


class Question(Struct, frozen=True):
    """A request, for an API to answer. `digest` stands for the body in ids, `name` is the mock's name."""

    body: Json
    digest: str
    name: str
    faults: Faults
    model: str = ""  # name of the model in the path or the body, suffixes included
    headers: Headers = ()
    query: str = ""


class MockAnswer(NamedTuple):
    """A JSON document, or a stream: its encoded events, about how many, and its headers."""

    document: Any = None
    events: Iterator[bytes] | None = None
    length: int = 0
    headers: Headers = ()


class MockEndpoint(NamedTuple):
    """One POST endpoint: its dialect, its function for answers (or Refused), and its function for errors."""

    dialect: str
    answer: Callable[[Question], MockAnswer]
    error: Callable[[Refused], tuple[Json, Headers]]
