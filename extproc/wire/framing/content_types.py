"""Content types of answers: the framing that each needs, and the JSON types among them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from extproc.wire.framing import EMPTY_LIMIT, Framing
from extproc.wire.framing.aws_eventstream import AWSEventStream
from extproc.wire.framing.edges import USAGE
from extproc.wire.framing.json import WholeBody
from extproc.wire.framing.sse import SSE

AMAZON = "application/vnd.amazon.eventstream"


def framing_for(
    content_type: str,
    *,
    event_limit: int,
    body_limit: int,
    empty_limit: int = EMPTY_LIMIT,
    hold: Callable[[int], bool] = lambda _size: True,
    key: bytes = USAGE,
) -> Framing | None:
    """The framing of an answer; None for a content type that the gateway cannot read. `hold` and `key`: see `WholeBody`
    and `Edges`.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return SSE(event_limit, empty_limit, key)
    if kind == AMAZON:
        return AWSEventStream(event_limit, empty_limit)
    if kind == "application/json" or kind.endswith("+json"):
        return WholeBody(body_limit, hold, key)
    return None


@lru_cache(maxsize=64)
def is_json(content_type: str) -> bool:
    """True for `application/json` whose charsets are all UTF-8: a provider might decode by another charset."""
    kind, *parameters = (part.strip() for part in content_type.lower().split(";"))
    pairs = (parameter.partition("=") for parameter in parameters)
    charsets = [value.strip(' \t"') for name, _, value in pairs if name.startswith("charset")]
    return kind == "application/json" and all(charset in ("utf-8", "utf8") for charset in charsets)
