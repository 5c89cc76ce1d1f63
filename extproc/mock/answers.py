"""What an endpoint is asked and what it answers, and what OpenAI's endpoints share: errors, token counts, usage.

OpenAI's API is played deterministically: a request's JSON in (Question), an answer's JSON or its stream events out
(Answer). Tokens are counted by one rule, the same for plain and streamed answers: one per word between white space, 85
per image, at least one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from extproc.mock.faults import Event, Faults

CREATED = 1_700_000_000

Json = dict[str, Any]


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault
    """Ends the request with an error answer in the dialect's shape."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Question:
    """A request as an endpoint sees it. `digest` stands for the body in ids, `name` is this mock's name."""

    body: Json
    digest: str
    name: str
    faults: Faults


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON document, or the events of a stream and how many there are."""

    document: Json = field(default_factory=dict)
    events: Iterator[Event] | None = None
    length: int = 0


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


def report_usage(faults: Faults, prompt: int, completion: int) -> Json | None:
    if faults.usage == "none":
        return None
    return {
        "prompt_tokens": _lie(faults.usage, prompt),
        "completion_tokens": _lie(faults.usage, completion),
        "total_tokens": _lie(faults.usage, prompt + completion),
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


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
