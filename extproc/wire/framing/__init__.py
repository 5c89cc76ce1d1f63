"""Bytes to events and back. A plain JSON answer is a stream of one event, so there is one path for both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from extproc.wire.framing.edges import Edges
from extproc.words.exchange import Usage

BOM = b"\xef\xbb\xbf"
"""A byte order mark in UTF-8, which answers may begin with (RFC 8259, 8.1; WHATWG HTML, 9.2.5)."""

OVERSIZE = "error:oversize"
"""Name of the beginning of an event that is too long to be read; the rest of it follows without a name."""

EMPTY = "empty"
"""Name of events in a row that carry nothing: blank lines, comments, events without a key in their data."""

EMPTY_LIMIT = 4 << 20
"""Bytes in a row that may carry nothing, where the settings say nothing."""


class Frame(msgspec.Struct, gc=False):
    """One event. `raw` is the input, byte for byte; `data` is its payload, None where there is none (comments, blank
    lines).

    `name` is the event's name in a binary framing, its error, or `EMPTY`. The last two are written by `Count`.
    """

    raw: bytes
    data: bytes | None
    name: str = ""
    edges: Edges | None = None  # set at the last piece of an event that is too long to be read
    usage: Usage | None = None  # usage of the answer so far, where this event reports it
    usage_only: bool = False  # the event carries nothing else


class Framing(Protocol):
    """Cuts a stream into events. Joining the `raw` of all events gives the stream back, whatever its content.

    `empty` are the bytes that carried nothing since the last event with content, `empty_limit` the most there may be.
    """

    empty: int
    empty_limit: int

    def feed(self, chunk: bytes) -> Sequence[Frame]:
        """The events that `chunk` completes."""
        ...

    def end(self) -> Sequence[Frame]:
        """The bytes that remained when the stream ended."""
        ...
