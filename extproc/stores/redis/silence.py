"""The time that a server was silent while this process listened.

A busy event loop reads late. An answer may wait in the socket while the call that expects it looks overdue, and a wall
clock would blame the server. So silence is measured in short ticks. A tick that fires late does not count, because the
busy loop could not have heard an answer. Any byte from the server ends the silence for all calls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

_TICKS = 5  # ticks of one timeout: turns of the loop, each with a look at the socket


class SilentError(Exception):
    """The server said nothing for the whole timeout."""


class CrowdedError(Exception):
    """The call waited for its whole patience, although the server answers other calls."""


class Silence:
    """Ends the wait of calls: after `timeout` seconds of silence, or after `patience` seconds in all."""

    def __init__(self, timeout: float, patience: float) -> None:
        self._tick = max(timeout, 0.001) / _TICKS
        self.timeout = timeout
        self._patience = patience
        self._listened = 0.0  # seconds of the ticks that counted
        self._heard = 0.0  # value of `_listened` at the server's latest sign
        self._calls: deque[tuple[float, float, int, asyncio.Future[Any]]] = deque()  # waiting calls, the earliest first
        self._signs = 0
        self._due = 0.0
        self._late = False  # True: the latest tick was late
        self._timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        """End the silence, because the server gave a sign: an answer, or a step of the connection."""
        self._heard = self._listened
        self._signs += 1

    async def wait(self, future: asyncio.Future[Any]) -> Any:
        """The result of `future`. Raises SilentError or CrowdedError."""
        self._calls.append((self._listened, asyncio.get_running_loop().time(), self._signs, future))
        if self._timer is None:
            self._wind()
        return await future

    def _wind(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._tick
        self._timer = loop.call_at(self._due, self._check_silence)

    def _check_silence(self) -> None:
        now = asyncio.get_running_loop().time()
        late = now - self._due >= self._tick
        if not late:
            self._listened += self._tick
        unread = late and not self._late  # True: answers may wait in the socket, read before the next turn
        self._late = late
        calls = self._calls
        while calls:
            listened, began, signs, future = calls[0]
            if not future.done():
                if self._listened - max(listened, self._heard) > self.timeout - self._tick / 2:
                    future.set_exception(SilentError())
                elif now - began > self._patience and not unread:
                    future.set_exception(SilentError() if signs == self._signs else CrowdedError())
                else:
                    break
            calls.popleft()
        self._timer = None
        if calls:
            self._wind()
