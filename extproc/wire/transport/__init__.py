"""gRPC calls as bytes: handlers by path, on either of two transports.

`native.py` serves Envoy on a unix socket: `connection.py` is the protocol without input or output, and `native.py`
connects it to asyncio. `grpcio_server.py` is the official library, for TCP and for comparison.

The official server costs more than all other work on a request, so `transport: native` is the default on a unix socket.
The tests run the same calls on both.
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

_LOG_EVERY = 60.0  # seconds between two lines of a log


class Malformed(Exception):  # noqa: N818
    """A malformed message of a peer. The call ends with status 3; it is not a bug of ours."""


class PeerFaults:
    """Faults of peers: every fault is counted, and one line a minute is logged. `count` gets the kind: `http2` (it ends
    the connection), `message` or `name` (they end the call).
    """

    def __init__(self, count: Callable[[str], None] = lambda _kind: None) -> None:
        self._count = count
        self._logged = -_LOG_EVERY
        self._unlogged = 0

    def add(self, kind: str, text: object) -> None:
        self._count(kind)
        self._unlogged += 1
        if (now := time.monotonic()) - self._logged >= _LOG_EVERY:
            log.warning("%d faults of peers of the processor, the latest: %s", self._unlogged, text)
            self._logged, self._unlogged = now, 0


class GrpcCall(Protocol):
    """A client's call. A transport makes one for each stream, and runs one method at a time.

    `done` is True when the call wants no further message: it then ends with status 0 behind its last answer. It also
    ends with status 0 when the client's half has ended and every message was answered. An exception of a method ends it
    with status 13, `Malformed` with status 3.

    The first step of a method may run outside of a task, until it waits: `asyncio.timeout`, `TaskGroup` and
    `current_task` do not work there. `if asyncio.current_task() is None: await asyncio.sleep(0)` enters a task.
    """

    @property
    def done(self) -> bool: ...

    def admits(self, size: int) -> bool:  # noqa: ARG002
        """True when a large message of `size` bytes may be read. Otherwise `on_message` gets an empty message. Only the
        native transport asks.
        """
        return True

    async def on_message(self, data: bytes | memoryview) -> Sequence[bytes]:
        """Answers to one message, in order. Cancelled when the client leaves the call."""
        ...

    async def on_half_close(self) -> Sequence[bytes]:
        """Answers at the end of the client's half, before the call ends. Cancelled when the client leaves the call."""
        return ()

    async def on_end(self) -> None:
        """Clean up after the call, however it ended. Called exactly once, last, and never cancelled."""
        ...


class Watched(GrpcCall, Protocol):
    """A call that may answer while its client is silent. A transport recognises it by the method."""

    def on_silence(self, now: float) -> Sequence[bytes]:
        """Answers, usually none. `now` is `time.monotonic()`. Called about every second, while no other method runs and
        the client reads. The call continues after these answers, unless it is `done`.
        """
        ...


class Lengthy(GrpcCall, Protocol):
    """A call whose answer to one message may take several steps. A transport recognises it by the attribute."""

    more: bool
    """True when a step waits. The transport then calls `go_on` before the next message, once the peer has read the
    answers so far and other streams had their turn.
    """

    async def go_on(self) -> Sequence[bytes]:
        """Answers of the next step. Cancelled when the client leaves the call."""
        ...


def goes_on(call: Any) -> bool:
    """True when the call's next step is `go_on`."""
    return getattr(call, "more", False)


def lasts(call: Any) -> bool:
    """True for a call with the attribute `lasts`: it lasts as long as its connection, and a stop does not wait for
    it.
    """
    return getattr(call, "lasts", False)


LAST_WORDS = 0.2
"""Seconds that a stop gives lasting calls for their last messages, once all other calls are over."""
LOOK = 1.0
"""Seconds between two calls of `on_silence`."""

Calls = Mapping[str, Callable[[Mapping[str, str]], GrpcCall]]
"""Factories of calls, by path `/package.Service/Method`. A factory gets the stream's request headers."""


class Transport(Protocol):
    """A server of calls."""

    async def start(self) -> None:
        """Listen at the address. Raises OSError when it is not available."""
        ...

    async def look(self) -> str:
        """The reason why Envoy could not connect now; empty when it could. The native transport listens again if its
        socket's file was deleted.
        """
        ...

    async def stop(self, grace: float) -> None:
        """Accept no more calls, give current calls up to `grace` seconds, then end them. A lasting call is ended
        without that wait. On return every `on_end` has run.
        """
        ...
