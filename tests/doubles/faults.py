"""The faults of the doubles: those of the mock, and rarer ones that only strict tests use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

from extproc.upstream.mock import faults as shared
from extproc.upstream.mock.faults import NO_PLAN, FaultError, number, one_of, read_plan

__all__ = ["NO_PLAN", "FaultError"]  # beside the mock's own

_USAGE = "usage=none      leaves usage out even when asked"
__doc__ = (
    str(shared.__doc__).replace(
        _USAGE,
        f"""{_USAGE}; or lies: negative, string, float, huge (2^64-1); or early: the
                usage of a stream comes before the last content, and not at its end""",
    )
    + """\
garbage         an HTML body, with 200 unless status= says otherwise
badjson         JSON that stops in the middle, with 200 unless status= says otherwise
size=3MB        a plain answer padded to that size with a field `padding`; sizes are 3MB, 64KiB or 1234
headers=200     that many extra response headers (at most 1000)
gzip            a gzip-encoded answer whatever the client accepts
forge           response headers a provider has no business sending: x-extproc-origin, x-ai-provider,
                x-envoy-overloaded
cached=20       that many tokens of the prompt count as read from a cache
corrupt=3       the event after that many is damaged: its JSON stops in the middle, its checksum is wrong in an AWS
                event stream
sse=crlf        odd framing, several joined with a comma: crlf, cr (line ends), nospace (after `data:`), comments
                (before each event), multiline (JSON over several data lines), nofinal (no line end after the last
                event); and in every framing split (every byte written alone), nodone, twodone (no end marker, two)
"""
)


@dataclass(frozen=True, slots=True)
class Faults(shared.Faults):
    """The faults of one answer. None and False: no such fault."""

    garbage: bool = False
    badjson: bool = False
    size: int = 0
    headers: int = 0
    gzip: bool = False
    forge: bool = False
    cached: int | None = None
    corrupt: int | None = None
    sse: frozenset[str] = frozenset()


NONE = Faults()


def odd(faults: shared.Faults) -> Faults:
    """The faults of a request to a double that the mock does not have."""
    assert isinstance(faults, Faults)
    return faults


_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "KIB": 2**10, "MIB": 2**20}
_SIZE_LIMIT = 256 * 2**20


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12})([KM]?i?B)?", text, re.IGNORECASE)
    unit = _SIZES.get((match[2] or "").upper()) if match else None
    if match is None or unit is None or int(match[1]) * unit > _SIZE_LIMIT:
        raise FaultError(f"{text!r} is not a size such as 3MB, 64KiB or 1234 (at most 256MiB)")
    return int(match[1]) * unit


def _styles(text: str) -> frozenset[str]:
    return frozenset(_STYLE(style) for style in text.split(","))


_STYLE = one_of("crlf", "cr", "nospace", "comments", "multiline", "split", "nodone", "twodone", "nofinal")
_FLAG = shared.READERS["hang"]

# The readers of the table above, in its order.
READERS: Mapping[str, Callable[[str], Any]] = {
    **shared.READERS,
    "usage": one_of("none", "negative", "string", "float", "huge", "early"),
    "garbage": _FLAG,
    "badjson": _FLAG,
    "size": _size,
    "headers": number(0, 1000),
    "gzip": _FLAG,
    "forge": _FLAG,
    "cached": number(),
    "corrupt": number(),
    "sse": _styles,
}

parse = lru_cache(maxsize=1024)(partial(read_plan, READERS))
of_model = partial(shared.of_model, parse=parse)


class Event(NamedTuple):
    """One event of a stream. `name` is its `event:` line or `:event-type`, for APIs that have one."""

    data: bytes
    name: str = ""
    last: bool = False  # the end marker of the API


DONE = Event(b"[DONE]", last=True)


def padded(document: bytes, size: int) -> bytes:
    """Pad a JSON object to exactly `size` bytes. A longer one stays as it is."""
    before, after = document[:-1] + b',"padding":"', b'"}'
    missing = size - len(before) - len(after)
    return before + b"x" * missing + after if missing >= 0 else document
