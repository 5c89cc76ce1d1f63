"""What an endpoint is asked and what it answers, and what OpenAI's endpoints share: errors and usage.

An API is played deterministically: a request's JSON in (Question), an answer's JSON or its stream events out (Answer).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from tests.doubles.faults import Event, Faults

CREATED = 1_700_000_000

Json = dict[str, Any]
Headers = Sequence[tuple[bytes, bytes]]  # names in lower case


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault
    """Ends the request with an error answer in the dialect's shape."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


class Question(Struct, frozen=True):
    """A request as an endpoint sees it. `digest` stands for the body in ids, `name` is this mock's name."""

    body: Json
    digest: str
    name: str
    faults: Faults
    model: str = ""  # from the path or the body, its suffixes included
    headers: Headers = ()
    query: str = ""

    def header(self, name: str) -> str | None:
        return header(self.headers, name)


class Answer(Struct, frozen=True):
    """A JSON document, or the events of a stream, how many there are, and how they are framed (see framings.py)."""

    document: Any = field(default_factory=dict)
    events: Iterator[Event] | None = None
    length: int = 0
    framing: str = "sse"


def header(headers: Headers, name: str) -> str | None:
    wanted = name.encode()
    return next((value.decode("latin-1") for each, value in headers if each == wanted), None)


def streamed(events: Sequence[Event], framing: str = "sse") -> Answer:
    return Answer(events=iter(events), length=len(events), framing=framing)


def error(refused: Refused) -> Json:
    """Write an error as OpenAI does."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = "server_error" if refused.status >= 500 else kinds.get(refused.status, "invalid_request_error")
    return {"error": {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}}


def positive(body: Json, name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Refused(400, f"{name!r} must be a whole number of at least 1.", param=name)
    return value


def count_words(text: str) -> int:
    return len(text.split())


def told(faults: Faults, counts: Mapping[str, Any]) -> Json | None:
    """Write token counts as the fault `usage=` wants them; counts in objects within `counts` are never lied about."""
    if faults.usage is None:
        return dict(counts)
    if faults.usage == "none":
        return None
    return {name: _lie(faults.usage, count) if isinstance(count, int) else count for name, count in counts.items()}


def report_usage(faults: Faults, prompt: int, completion: int, *, cached: int = 0, reasoning: int = 0) -> Json | None:
    """Write usage as OpenAI's chat completions and embeddings do."""
    counts = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    return told(faults, counts)


def _lie(kind: str | None, count: int) -> Any:
    match kind:
        case "negative":
            return -count
        case "string":
            return str(count)
        case "float":
            return count + 0.5
        case "huge":
            return 2**64 - 1
        case _:
            return count
