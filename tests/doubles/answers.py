"""The answer of a double: a JSON document or the events of a stream, with its token counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from extproc.upstream.mock.conversation import CREATED
from extproc.upstream.mock.endpoints import Headers, Json, Question, Refused, error
from extproc.upstream.mock.faults import Faults
from tests.doubles.faults import Event

__all__ = ["CREATED", "Answer", "Headers", "Json", "Question", "Refused", "error"]


class Answer(Struct, frozen=True):
    """A JSON document, or the events of a stream with their number and framing (see framings.py)."""

    document: Any = field(default_factory=dict)
    events: Iterator[Event] | None = None
    length: int = 0
    framing: str = "sse"
    headers: Headers = ()  # of a document


def header(headers: Headers, name: str) -> str | None:
    """The value of the header with this lower-case name."""
    wanted = name.encode()
    return next((value.decode("latin-1") for each, value in headers if each == wanted), None)


def count_words(text: str) -> int:
    return len(text.split())


def streamed(events: Sequence[Event], framing: str = "sse") -> Answer:
    return Answer(events=iter(events), length=len(events), framing=framing)


def positive(body: Json, name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Refused(400, f"{name!r} must be a whole number of at least 1.", param=name)
    return value


def told(faults: Faults, counts: Mapping[str, Any]) -> Json | None:
    """Write token counts as the fault `usage=` demands. Counts nested inside `counts` stay true."""
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
