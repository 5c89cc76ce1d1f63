"""Bytes to events and back. A plain JSON answer is a stream of one event, so there is one path for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from extproc.words.exchange import Usage

BOM = b"\xef\xbb\xbf"
"""A byte order mark in UTF-8, which answers may begin with (RFC 8259, 8.1; WHATWG HTML, 9.2.5)."""

OVERSIZE = "error:oversize"
"""Name of the beginning of an event that is too long to be read; what is left of it follows without a name."""


@dataclass(slots=True)
class Frame:
    """`raw` is what came in, byte for byte; `data` is its payload, None where there is none (comments, blank lines).

    `name` is what a binary framing calls the event, or what is wrong with it. The last two are written by `Count`.
    """

    raw: bytes
    data: bytes | None
    name: str = ""
    usage: Usage | None = None  # what the answer used so far, where this event tells
    usage_only: bool = False  # the event carries nothing else


class Framing(Protocol):
    """Cuts a stream into events. Joining the `raw` of all events gives the stream back, whatever it holds."""

    def feed(self, chunk: bytes) -> Sequence[Frame]:
        """The events that `chunk` completes."""
        ...

    def end(self) -> Sequence[Frame]:
        """What was left when the stream ended."""
        ...
