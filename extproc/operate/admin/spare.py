"""A spare descriptor for probes: while the process has no free descriptor, the spare accepts one connection at a time.

Without the spare a healthy process out of descriptors would be restarted, because its probes wait in the queue. asyncio
tries again after a second. Until then `Spare` accepts queued connections, reads the head of each request, answers and
closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

Probe = Callable[[str], tuple[int, str]]
"""Gives the status and text for a path."""

_NONE_LEFT = 503, "no descriptors are left\n"


def probing(alive: Callable[[], str], ready: Callable[[], str]) -> Probe:
    """The probes of the status application, for this process alone: asking its siblings takes descriptors."""

    def probe(path: str) -> tuple[int, str]:
        if path not in ("/healthz", "/readyz"):
            return _NONE_LEFT
        reason = alive() if path == "/healthz" else ready()
        return 503 if reason else 200, f"{reason or 'ok'}\n"

    return probe


_TURN = 0.9
"""Seconds of one turn. asyncio accepts again after a second (`asyncio.constants.ACCEPT_RETRY_DELAY`)."""
_LOOK_EVERY = 0.05  # seconds between two looks at the queue
_SLOWEST = 0.2  # seconds for the head of a request to arrive, and for its answer to leave
_HEAD = 4096  # most bytes of the head that are read


class Spare:
    """The spare of one listener, used on the event loop's thread."""

    def __init__(self, listener: socket.socket, probe: Probe) -> None:
        self._listener = listener
        self._probe = probe
        self._held: int | None = os.open(os.devnull, os.O_RDONLY)
        self._turn: asyncio.Task[None] | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Accept connections for one turn, unless a turn is under way."""
        if self._turn is None or self._turn.done():
            self._turn = loop.create_task(self._serve(loop))

    def close(self) -> None:
        """Close the spare, once the loop has ended."""
        self._release()

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        end = loop.time() + _TURN
        while loop.time() < end:
            if not await self._one(loop):
                await asyncio.sleep(_LOOK_EVERY)

    async def _one(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Answer the first connection of the queue. False without a connection, or without a descriptor to
        accept it.
        """
        self._release()
        try:
            connection, _ = self._listener.accept()
        except OSError:
            self._hold_descriptor()
            return False
        with connection:
            connection.setblocking(False)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_SLOWEST):
                    await loop.sock_sendall(connection, self._answer(await loop.sock_recv(connection, _HEAD)))
                    connection.shutdown(socket.SHUT_WR)
        self._hold_descriptor()
        return True

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
        status, text = self._probe(path) if method in (b"GET", b"HEAD") else _NONE_LEFT
        lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Unavailable'}", "content-type: text/plain"]
        lines += [f"content-length: {len(text)}", "connection: close"]
        return "\r\n".join([*lines, "", "" if method == b"HEAD" else text]).encode("latin-1", "replace")

    def _hold_descriptor(self) -> None:
        if self._held is None:
            with contextlib.suppress(OSError):  # another thread took the descriptor; the next turn tries again
                self._held = os.open(os.devnull, os.O_RDONLY)

    def _release(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None
