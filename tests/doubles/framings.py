"""Framings of streams: server-sent events, a JSON array, AWS event streams. Each event is one write.

Sources: https://html.spec.whatwg.org/multipage/server-sent-events.html; Gemini streams a JSON array unless the query
has alt=sse; https://smithy.io/2.0/aws/amazon-eventstream.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from extproc.wire.framing.aws_eventstream import encode
from tests.doubles.faults import DONE, NONE, Event, Faults

Header = tuple[bytes, bytes]


class Framing(NamedTuple):
    headers: tuple[Header, ...]
    frame: Callable[[Iterable[Event], Faults], Iterator[bytes]]


def sse(events: Iterable[Event], faults: Faults = NONE) -> Iterator[bytes]:
    """Frame events as server-sent events."""
    styles = faults.sse
    if faults.corrupt is not None:
        events = _halved(events, faults.corrupt)
        styles -= {"multiline"}  # this parses the JSON
    if not styles:
        yield from map(_plain_frame, events)
        return
    held: bytes | None = None  # one event behind, because only the last event may lose its line end
    for event in _ended(events, styles):
        if held is not None:
            yield held
        held = _frame(event, styles)
    if held is not None:
        yield held.rstrip(b"\r\n") if "nofinal" in styles else held


def json_array(events: Iterable[Event], faults: Faults) -> Iterator[bytes]:
    """Frame events as the elements of a JSON array. The last write closes the array."""
    if faults.corrupt is not None:
        events = _halved(events, faults.corrupt)
    before = b"["
    for event in _ended(events, faults.sse):
        yield before + event.data + (b"]" if event.last else b"")
        before = b",\r\n"


def event_stream(events: Iterable[Event], faults: Faults) -> Iterator[bytes]:
    """Frame events as messages of an AWS event stream. A name `exception:...` makes an exception."""
    for number, event in enumerate(_ended(events, faults.sse)):
        exception = event.name.removeprefix("exception:")
        kind = "event" if exception == event.name else "exception"
        headers = {f":{kind}-type": exception, ":content-type": "application/json", ":message-type": kind}
        message = encode(headers, event.data)
        yield message[:-1] + bytes((message[-1] ^ 1,)) if number == faults.corrupt else message


FRAMINGS: Mapping[str, Framing] = {
    "sse": Framing(((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")), sse),
    "json": Framing(((b"content-type", b"application/json; charset=UTF-8"),), json_array),
    "aws": Framing(((b"content-type", b"application/vnd.amazon.eventstream"),), event_stream),
}


def _ended(events: Iterable[Event], styles: frozenset[str]) -> Iterable[Event]:
    if "twodone" in styles:
        events = (again for event in events for again in ((event, event) if event.last else (event,)))
    if "nodone" in styles:
        events = (event for event in events if not event.last)
    return events


def _halved(events: Iterable[Event], damaged: int) -> Iterator[Event]:
    for number, event in enumerate(events):
        yield event._replace(data=event.data[: len(event.data) // 2]) if number == damaged else event


def _plain_frame(event: Event) -> bytes:
    if event.name:
        return b"event: %s\ndata: %s\n\n" % (event.name.encode(), event.data)
    return b"data: %s\n\n" % event.data


def _frame(event: Event, styles: frozenset[str]) -> bytes:
    end = b"\r\n" if "crlf" in styles else b"\r" if "cr" in styles else b"\n"
    space = b"" if "nospace" in styles else b" "
    lines = [b": keep-alive", b""] if "comments" in styles else []
    if event.name:
        lines.append(b"event:" + space + event.name.encode())
    spread = "multiline" in styles and event is not DONE
    data = msgspec.json.format(event.data, indent=1) if spread else event.data
    lines += [b"data:" + space + line for line in data.split(b"\n")]
    return end.join([*lines, b"", b""])
