"""Framings: bytes to events and back. A plain JSON answer is a stream of one event, so both take one path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from msgspec import UNSET

from extproc.wire.framing.edges import Edges
from extproc.words.exchange import Usage

BOM = b"\xef\xbb\xbf"
"""A byte order mark in UTF-8; an answer may begin with it (RFC 8259, 8.1; WHATWG HTML, 9.2.5)."""

OVERSIZE = "error:oversize"
"""Name of the first frame of an event too long to be read. Its further frames have no name."""

EMPTY = "empty"
"""Name of a frame of consecutive empty events: blank lines, comments, events without a key in their data."""

EMPTY_LIMIT = 4 << 20
"""Default of `empty_limit`: the most consecutive bytes of empty events."""


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Exceptions of decoding JSON that a provider wrote."""

_decode = msgspec.json.Decoder().decode
_LINE = re.compile(rb"\r\n|\n|\r")


class Frame(msgspec.Struct, gc=False):
    """One event. `raw` is the input, byte for byte; `data` is its payload, None for comments and blank lines.

    `name` is the event's name in a binary framing, an error, `OVERSIZE` or `EMPTY`. `tree` is the parsed JSON of
    `data`. `Count` writes `usage` and `usage_only`.
    """

    raw: bytes
    data: bytes | None
    name: str = ""
    edges: Edges | None = None  # edges are set on the last frame of an event too long to be read
    usage: Usage | None = None  # usage of the answer so far, where this event reports it
    usage_only: bool = False  # True: the event carries only usage
    tree: Any = UNSET
    settled: bool = False  # True: guardrails find nothing in this event, nor in repetitions of it
    # Number of consecutive text events that this frame joins; `data` has the text of them all.
    events: int = 1

    def parse(self) -> Any:
        """The JSON of `data`, parsed once for all stages; UNSET when `data` is absent or is not JSON."""
        if self.tree is UNSET and self.data is not None:
            try:
                self.tree = _decode(self.data)
            except UNREADABLE:
                return UNSET
        return self.tree

    def edit(self, data: bytes, tree: Any = UNSET) -> None:
        """Replace the data of a server-sent event or a plain answer. `tree` is the JSON of the new data."""
        assert self.data is not None, "an event without data is not edited"
        if data == self.data:
            return
        if self.data in self.raw:
            self.raw = self.raw.replace(self.data, data, 1)
        else:  # the data stands on several lines
            found = dict.fromkeys(_LINE.split(self.raw))  # lines without repetition: a frame may join several events
            lines = [line for line in found if line and not line.startswith(b"data:")]
            self.raw = b"\n".join([*lines, b"data: " + data, b"", b""])
        self.data, self.tree = data, tree


class Framing(Protocol):
    """Cuts a stream into events. Joining the `raw` of all events gives the stream back, whatever its content.

    `empty` counts the bytes of empty events since the last event with content. `empty_limit` is its maximum.
    """

    empty: int
    empty_limit: int

    def feed(self, chunk: bytes) -> Sequence[Frame]:
        """Events completed by `chunk`."""
        ...

    def end(self) -> Sequence[Frame]:
        """Events in the bytes left when the stream ended."""
        ...
