"""Faults on demand: suffixes of a model name, joined with `+`, such as `gpt-4o+status=503` or `stub+words=50+cut=3`.

delay=2s        silence before the answer's headers; durations are 150s, 20ms or 1.5m
hang            never answers
status=503      an error answer in the dialect's shape (400 to 599)
retry_after=7   a Retry-After header, for use with status=429
garbage         an HTML body, with 200 unless status= says otherwise
badjson         JSON that stops in the middle, with 200 unless status= says otherwise
size=3MB        a plain answer padded to that size with a field `padding`; sizes are 3MB, 64KiB or 1234
headers=200     that many extra response headers (at most 1000)
gzip            a gzip-encoded answer whatever the client accepts
forge           response headers a provider has no business sending: x-extproc-origin, x-ai-provider,
                x-envoy-overloaded
words=500       the length of the answer's text (at most 100000)
usage=none      leaves usage out even when asked; or lies: negative, string, float, huge (2^64-1); or early: the
                usage of a stream comes before the last content, and not at its end
cached=20       that many tokens of the prompt count as read from a cache
pace=20ms       silence between the events of a stream
pause=150s      silence once, in the middle of a stream or of a plain body
cut=3           closes the connection after that many events, without the end of the body; a plain answer is cut
                in the middle
reset           TCP reset before any header; reset=3: after that many events, or in the middle of a plain answer
errorevent=3    an error event after that many events, then a clean end and no end marker
corrupt=3       the event after that many is damaged: its JSON stops in the middle, its checksum is wrong in an AWS
                event stream
sse=crlf        odd framing, several joined with a comma: crlf, cr (line ends), nospace (after `data:`), comments
                (before each event), multiline (JSON over several data lines), nofinal (no line end after the last
                event); and in every framing split (every byte written alone), nodone, twodone (no end marker, two)
every=3         the other suffixes apply only to every third request for that model
first=2         the other suffixes apply only to the first two requests for that model
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple


class FaultError(ValueError):
    """A suffix that is not in the table, or a value it does not take."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong with one answer. None and False mean that it does not."""

    delay: float = 0.0
    hang: bool = False
    status: int | None = None
    retry_after: int | None = None
    garbage: bool = False
    badjson: bool = False
    size: int = 0
    headers: int = 0
    gzip: bool = False
    forge: bool = False
    words: int | None = None
    usage: str | None = None
    pace: float = 0.0
    pause: float = 0.0
    cut: int | None = None
    reset: int | None = None  # 0: before any header
    cached: int | None = None
    errorevent: int | None = None
    corrupt: int | None = None
    sse: frozenset[str] = frozenset()


NONE = Faults()

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "KIB": 2**10, "MIB": 2**20}
_SIZE_LIMIT = 256 * 2**20


def seconds(text: str) -> float:
    """Read a duration such as 150s, 20ms or 1.5m."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", text)
    if match is None:
        raise FaultError(f"{text!r} is not a duration such as 150s, 20ms or 1.5m")
    return float(match[1]) * _UNITS[match[2]]


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12})([KM]?i?B)?", text, re.IGNORECASE)
    unit = _SIZES.get((match[2] or "").upper()) if match else None
    if match is None or unit is None or int(match[1]) * unit > _SIZE_LIMIT:
        raise FaultError(f"{text!r} is not a size such as 3MB, 64KiB or 1234 (at most 256MiB)")
    return int(match[1]) * unit


def _flag(text: str) -> bool:
    if text:
        raise FaultError("it takes no value")
    return True


def _number(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or not low <= int(text) <= high:
            raise FaultError(f"{text!r} is not a number from {low} to {high}")
        return int(text)

    return read


def _reset(text: str) -> int:
    return _EVENTS(text) if text else 0


def _one_of(*values: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise FaultError(f"{text!r} is not one of {', '.join(values)}")
        return text

    return read


def _styles(text: str) -> frozenset[str]:
    return frozenset(_STYLE(style) for style in text.split(","))


_EVENTS = _number(0, 1_000_000)
_STYLE = _one_of("crlf", "cr", "nospace", "comments", "multiline", "split", "nodone", "twodone", "nofinal")

# The readers of the table above, in its order.
READERS: Mapping[str, Callable[[str], Any]] = {
    "delay": seconds,
    "hang": _flag,
    "status": _number(400, 599),
    "retry_after": _number(0, 1_000_000),
    "garbage": _flag,
    "badjson": _flag,
    "size": _size,
    "headers": _number(0, 1000),
    "gzip": _flag,
    "forge": _flag,
    "words": _number(0, 100_000),
    "usage": _one_of("none", "negative", "string", "float", "huge", "early"),
    "cached": _number(0, 1_000_000),
    "pace": seconds,
    "pause": seconds,
    "cut": _EVENTS,
    "reset": _reset,
    "errorevent": _EVENTS,
    "corrupt": _EVENTS,
    "sse": _styles,
    "every": _number(1, 1_000_000),
    "first": _number(0, 1_000_000),
}


class Plan(NamedTuple):
    """Faults as they were asked for, and the requests they apply to."""

    faults: Mapping[str, Any] = MappingProxyType({})
    every: int = 1
    first: int | None = None

    @property
    def counts(self) -> bool:
        """Whether the plan depends on how many requests came before."""
        return self.every > 1 or self.first is not None

    def due(self, nth: int) -> Mapping[str, Any]:
        """Return the faults of the nth request, counted from one."""
        applies = nth % self.every == 0 and (self.first is None or nth <= self.first)
        return self.faults if applies else {}


NO_PLAN = Plan()


@lru_cache(maxsize=1024)
def parse(text: str) -> Plan:
    """Read suffixes without the model name: `status=503+every=3`. Raises FaultError naming the wrong one."""
    if not text:
        return NO_PLAN
    values: dict[str, Any] = {}
    for suffix in text.split("+"):
        name, _, value = suffix.partition("=")
        reader = READERS.get(name)
        if reader is None:
            raise FaultError(f"unknown fault {suffix!r}; known are {', '.join(READERS)}")
        try:
            values[name] = reader(value)
        except FaultError as error:
            raise FaultError(f"fault {suffix!r}: {error}") from None
    every = values.pop("every", 1)
    first = values.pop("first", None)
    return Plan(MappingProxyType(values), every, first)


def of_model(model: str) -> Plan:
    """Read the suffixes of a model name: `gpt-4o+status=503`."""
    _, plus, suffixes = model.partition("+")
    if plus and not suffixes:
        raise FaultError(f"the model {model!r} ends with + and no fault")
    return parse(suffixes)


class Event(NamedTuple):
    """One event of a stream; `name` is its `event:` line or `:event-type`, for dialects that have one."""

    data: bytes
    name: str = ""
    last: bool = False  # the end marker of the dialect


DONE = Event(b"[DONE]", last=True)


def padded(document: bytes, size: int) -> bytes:
    """Pad a JSON object to exactly `size` bytes, if it is not longer already."""
    before, after = document[:-1] + b',"padding":"', b'"}'
    missing = size - len(before) - len(after)
    return before + b"x" * missing + after if missing >= 0 else document
