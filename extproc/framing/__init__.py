"""Bytes to events and back. A plain JSON answer is a stream of one event, so there is one path for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from extproc.words.exchange import Usage

OVERSIZE = "error:oversize"
"""Name of the beginning of an event that is too long to be read; what is left of it follows without a name."""


KEPT = 64 << 10
"""Bytes of the beginning, and of the end, that are kept of an event too long to be read."""


class Edges:
    """Beginning and end of the payload of an event that is too long to be read whole."""

    __slots__ = ("head", "tail")

    def __init__(self, first: bytes) -> None:
        self.head = first[:KEPT]
        self.tail = first[-KEPT:]

    def add(self, piece: bytes) -> None:
        """Take in the next piece of the event."""
        self.tail = (self.tail + piece)[-KEPT:]


@dataclass(slots=True)
class Frame:
    """`raw` is what came in, byte for byte; `data` is its payload, None where there is none (comments, blank lines).

    `name` is what a binary framing calls the event, or what is wrong with it. The last two are written by `Count`.
    """

    raw: bytes
    data: bytes | None
    name: str = ""
    edges: Edges | None = None  # at the last piece of an event that is too long to be read
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
