"""A steady load: keep-alive requests at a fixed rate, and streams that are open at all times.

A request that fails is counted, never repeated. A connection that the gateway closed while it was idle is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from bench.load import request

PATIENCE = 20.0
"""Seconds after which a request without an answer has failed."""
LATE = 0.25
"""Seconds by which timers are late on a machine that is too busy to judge by."""
_REST = 10.0  # seconds after which an idle connection is closed: a slow moment needs many, the next ones do not
_AGAIN = 0.2  # seconds before a stream that failed begins anew


@dataclass(slots=True)
class Outcome:
    """The end of one request. `at` is when it began (monotonic), `what` is `ok`, an error's code or what broke."""

    at: float
    seconds: float
    stream: bool
    what: str


@dataclass(slots=True)
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    closing: bool = False  # the gateway said `connection: close`
    rested: float = 0.0  # since when it is idle

    @property
    def usable(self) -> bool:
        return not (self.closing or self.reader.at_eof() or self.writer.is_closing())


@dataclass
class Steady:
    """The load. `ports` gives the gateways that a new connection may choose from."""

    ports: Callable[[], Sequence[int]]
    rate: float = 100.0  # plain requests a second
    streams: int = 0  # open at all times
    plain: bytes = field(default_factory=lambda: request("stub"))
    streamed: bytes = field(default_factory=lambda: request("stub+pace=100ms+words=30", stream=True))
    outcomes: list[Outcome] = field(default_factory=list)
    _idle: list[Connection] = field(default_factory=list)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._spawn(self._beat())
        for number in range(self.streams):
            self._spawn(self._streams(number / max(1, self.streams)))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Begin no more requests, and wait for those under way."""
        self._stopped.set()
        while self._tasks:
            await asyncio.wait(self._tasks)
        for connection in self._idle:
            connection.writer.close()

    def ended(self, then: float, until: float = float("inf")) -> list[Outcome]:
        """The requests that ended in that time."""
        return [outcome for outcome in self.outcomes if then <= outcome.at + outcome.seconds < until]

    def _spawn(self, work: object) -> None:
        task = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _beat(self) -> None:
        due = time.monotonic()
        while not self._stopped.is_set():
            self._spawn(self._one(self.plain, stream=False))
            self._close_rested()
            due += 1 / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _streams(self, phase: float) -> None:
        await asyncio.sleep(phase)
        while not self._stopped.is_set():
            await self._one(self.streamed, stream=True)
            if self.outcomes[-1].what != "ok":
                await asyncio.sleep(_AGAIN)

    async def _one(self, message: bytes, *, stream: bool) -> None:
        begun = time.monotonic()
        outcome = Outcome(begun, 0.0, stream, "refused")
        try:
            async with asyncio.timeout(PATIENCE):
                outcome.what = "reset"
                connection = await self._connection(outcome)
                outcome.what = await _exchange(connection, message)
                if connection.usable:
                    connection.rested = time.monotonic()
                    self._idle.append(connection)
                else:
                    connection.writer.close()
        except TimeoutError:
            outcome.what = "timeout"
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        outcome.seconds = time.monotonic() - begun
        self.outcomes.append(outcome)

    def _close_rested(self) -> None:
        """The latest connection is used first, so those that rest stand at the front."""
        while self._idle and self._idle[0].rested < time.monotonic() - _REST:
            self._idle.pop(0).writer.close()

    async def _connection(self, outcome: Outcome) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.writer.close()
        outcome.what = "refused"
        reader, writer = await asyncio.open_connection("127.0.0.1", random.choice(self.ports()))
        outcome.what = "reset"
        return Connection(reader, writer)


async def _exchange(connection: Connection, message: bytes) -> str:
    """Send a request and read its answer to the end. Raises OSError, IncompleteReadError."""
    reader, writer = connection.reader, connection.writer
    writer.write(message)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    connection.closing = b"\r\nconnection: close\r\n" in head
    body = b""
    if b"transfer-encoding: chunked" in head:
        while (size := int((await reader.readuntil(b"\r\n"))[:-2], 16)) > 0:
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    if (status := head[9:12].decode()) != "200":
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return str(json.loads(body)["error"]["code"])
        return status
    if b"event-stream" in head and b"[DONE]" not in body:
        return "cut"
    return "ok"


class Lateness:
    """Tells a machine that is too busy to judge by: timers of this process are late. Used with `async with`."""

    def __init__(self) -> None:
        self.worst = 0.0  # seconds

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            due = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            self.worst = max(self.worst, time.monotonic() - due)


def counted(outcomes: Sequence[Outcome]) -> str:
    """The failures, for people: `3 overloaded, 1 reset`."""
    kinds = Counter(outcome.what for outcome in outcomes if outcome.what != "ok")
    return ", ".join(f"{number} {what}" for what, number in kinds.most_common()) or "none"
