"""The answers of an attachment to Envoy, independent of ext_proc: `wire.py` turns them into messages.

Actions made for every request and event are not frozen: a frozen one takes more than twice as long to make (0.6 µs,
0.25 µs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from extproc.words.exchange import Verified


@dataclass(slots=True)
class Continue:
    """Go on, with these changes. `body` replaces the request's; None leaves it byte for byte.

    `reroute` makes Envoy choose the route again; `order` are the clusters of the tries. `read_answer` asks for the
    response body, and only means something in the answer to headers, the request's or the response's.
    """

    set_headers: Mapping[str, str] = field(default_factory=dict)
    remove_headers: tuple[str, ...] = ()
    body: bytes | None = None
    reroute: bool = False
    order: tuple[str, ...] = ()
    read_answer: bool = False


@dataclass(slots=True, frozen=True)
class LocalReply:
    """End the exchange here with this answer. `reason` is its name in Envoy's access log."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str = "answered"


@dataclass(slots=True)
class Chunk:
    """Bytes of the response body that may leave now. `end` marks the last ones. Empty and without `end`: nothing yet.

    `head` is the answer to the response headers, where they were held back until now.
    """

    body: bytes
    end: bool = False
    head: Continue | LocalReply | None = None


CONTINUE = Continue()


class Reader(Protocol):
    """Reads the body of one answer."""

    async def feed(self, chunk: bytes, end: bool, out: list[bytes]) -> bool:
        """Add to `out` the bytes that may leave now; with `end`, all the rest. True where that took too long for one
        turn of the event loop: then `feed(b"", False, out)` goes on. Raises Refusal to end the answer after them.
        """
        ...


class Attachment(Protocol):
    """One stream of Envoy's. Every method is called at most once and in this order, except `on_response_body`, which is
    called for each piece. `on_end` is called last, exactly once, however the stream ended, and is never cancelled.

    `done` is True when no further message is wanted. `more` is True when a piece of the answer was worked on in part:
    `on_response_body(b"", False)` goes on, before anything else is told, when other streams had their turn and `pause`
    seconds are over.
    """

    done: bool
    more: bool

    @property
    def pause(self) -> float: ...

    async def on_request_headers(
        self, headers: Mapping[str, str], end: bool, verified: Verified
    ) -> Continue | LocalReply: ...

    def admits(self, size: int) -> bool:
        """Whether there is room for a large message. False: its bytes are dropped, and `on_request_body` gets none."""
        ...

    async def on_request_body(self, body: bytes) -> Continue | LocalReply: ...

    async def on_response_headers(
        self, headers: Mapping[str, str], attributes: Mapping[str, object], end: bool
    ) -> Continue | LocalReply | None:
        """None holds the headers back: a later Chunk answers them with its `head`."""
        ...

    async def on_response_body(self, chunk: bytes, end: bool) -> Chunk: ...

    async def on_end(self) -> None: ...
