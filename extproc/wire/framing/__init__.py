"""Bytes to events and back. A plain JSON answer is a stream of one event, so there is one path for both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from msgspec import UNSET

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


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Exceptions of decoding JSON that a provider wrote."""

_decode = msgspec.json.Decoder().decode
_LINE = re.compile(rb"\r\n|\n|\r")


class Frame(msgspec.Struct, gc=False):
    """One event. `raw` is the input, byte for byte; `data` is its payload, None where there is none (comments, blank
    lines).

    `name` is the event's name in a binary framing, its error, or `EMPTY`. `tree` is the JSON of `data`, once it was
    parsed. `Count` writes `usage` and `usage_only`.
    """

    raw: bytes
    data: bytes | None
    name: str = ""
    edges: Edges | None = None  # set at the last piece of an event that is too long to be read
    usage: Usage | None = None  # usage of the answer so far, where this event reports it
    usage_only: bool = False  # the event carries nothing else
    tree: Any = UNSET
    settled: bool = False  # guardrails found nothing in the event, and find nothing whenever it comes again
    events: int = 1  # those with text that came in a row and are read as one: `data` has the text of all of them

    def parse(self) -> Any:
        """The JSON of `data`, parsed once for all stages; UNSET where it is none."""
        if self.tree is UNSET and self.data is not None:
            try:
                self.tree = _decode(self.data)
            except UNREADABLE:
                return UNSET
        return self.tree

    def edit(self, data: bytes, tree: Any = UNSET) -> None:
        """Give an event of server-sent events, or a plain answer, other data, whose JSON is `tree`."""
        assert self.data is not None, "an event without data is not edited"
        if data == self.data:
            return
        if self.data in self.raw:
            self.raw = self.raw.replace(self.data, data, 1)
        else:  # on several lines
            found = dict.fromkeys(_LINE.split(self.raw))  # once each, where several events are read as one
            lines = [line for line in found if line and not line.startswith(b"data:")]
            self.raw = b"\n".join([*lines, b"data: " + data, b"", b""])
        self.data, self.tree = data, tree


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
