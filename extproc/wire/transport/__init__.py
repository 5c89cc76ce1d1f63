"""gRPC calls as bytes: paths and their handlers, on either of two transports.

`native.py` is made for this one job, Envoy on a unix socket: `connection.py` knows the protocol and does no input or
output, `native.py` connects it to asyncio. `grpcio_server.py` is the official library, for TCP and for comparison.

The official server costs more than everything else that the processor does for a request, so `transport: native` is the
default on a unix socket. The tests run the same calls on both.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from extproc.wire.transport.limits import TransportLimits

__all__ = [
    "LAST_WORDS",
    "LOOK",
    "Call",
    "Calls",
    "Faults",
    "Lengthy",
    "Malformed",
    "Transport",
    "TransportLimits",
    "Watched",
    "goes_on",
    "lasts",
]

log = logging.getLogger(__name__)

_LOG_EVERY = 60.0  # seconds


class Malformed(Exception):  # noqa: N818
    """A message that the peer of a call should not have sent. The call ends with status 3; it is no bug."""


class PeerFaults:
    """Faults of peers: each is counted, and one line a minute is logged. `count` gets the kind: `http2` (it ends the
    connection) or `message` (it ends the call).
    """

    def __init__(self, count: Callable[[str], None] = lambda _kind: None) -> None:
        self._count = count
        self._logged = -_LOG_EVERY
        self._unlogged = 0

    def add(self, kind: str, text: object) -> None:
        self._count(kind)
        self._unlogged += 1
        if (now := time.monotonic()) - self._logged >= _LOG_EVERY:
            log.warning("%d faults of peers at the processor's socket, the latest: %s", self._unlogged, text)
            self._logged, self._unlogged = now, 0


class GrpcCall(Protocol):
    """One call of a client's. A transport makes one for each stream, and calls one method at a time.

    `done` is True when no further message is wanted: then the call ends with status 0 behind its last answer. It also
    ends so when the client's half ended and all of it was answered. An exception of a method ends it with status 13,
    `Malformed` with status 3.

    The first step of a method may run outside of a task, up to where it really waits: `asyncio.timeout`, `TaskGroup`
    and `current_task` do not work there. `if asyncio.current_task() is None: await asyncio.sleep(0)` enters a task.
    """

    @property
    def done(self) -> bool: ...

    def admits(self, size: int) -> bool:  # noqa: ARG002
        """Whether a large message of so many bytes may come. `on_message` gets an empty one otherwise. Only the own
        transport asks.
        """
        return True

    async def on_message(self, data: bytes | memoryview) -> Sequence[bytes]:
        """Answers to one message, in order. Cancelled when the client leaves."""
        ...

    async def on_half_close(self) -> Sequence[bytes]:
        """Answers to the end of the client's half, before the call ends. Cancelled when the client leaves."""
        return ()

    async def on_end(self) -> None:
        """The call is over, however it ended. Called exactly once, last, and never cancelled."""
        ...


class Watched(GrpcCall, Protocol):
    """A call that may have something to say while its client is silent. A transport knows it by the method."""

    def on_silence(self, now: float) -> Sequence[bytes]:
        """Answers, usually none. `now` is `time.monotonic()`. Called about every second, while no other method runs and
        the client reads. After answers the call goes on, unless it is `done`.
        """
        ...


class Lengthy(GrpcCall, Protocol):
    """A call whose answer to one message may take several steps. A transport knows it by the attribute."""

    more: bool
    """True when a step waits: `go_on` comes before the next message, when the peer has taken the answers so far and
    other streams had their turn.
    """

    async def go_on(self) -> Sequence[bytes]:
        """Answers of the next step. Cancelled when the client leaves."""
        ...


def goes_on(call: Any) -> bool:
    """True for a call that `go_on` is to be called of."""
    return getattr(call, "more", False)


def lasts(call: Any) -> bool:
    """True for a call that lasts as long as its connection, which has the attribute `lasts`. A stop does not wait for
    its end.
    """
    return getattr(call, "lasts", False)


LAST_WORDS = 0.2
"""Seconds that a stop gives such calls for their last messages, once all others are over."""
LOOK = 1.0
"""Seconds between two calls of `on_silence`."""

Calls = Mapping[str, Callable[[Mapping[str, str]], GrpcCall]]
"""Calls by path, `/package.Service/Method`: makes the call for a stream with these request headers."""


class Transport(Protocol):
    """A server of calls."""

    async def start(self) -> None:
        """Listen. Raises OSError when the address is not available."""
        ...

    async def look(self) -> str:
        """The reason why Envoy could make no new connection; empty when it could. The own transport listens anew where
        its socket's file was deleted.
        """
        ...

    async def stop(self, grace: float) -> None:
        """Take no more calls, give those under way up to `grace` seconds to end, and end the rest. It does not wait for
        those that last. Every `on_end` has run then.
        """
        ...
