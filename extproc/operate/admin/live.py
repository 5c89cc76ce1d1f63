"""`GET /events`: exchanges in flight and the id of the latest one, as server-sent events for pages that show them.

The gateway looks once a second for all pages together, and only while there is a page. A stream ends with the session
or the token that began it. Without a place the answer is 503, and the page asks every few seconds instead.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from time import monotonic

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from extproc.money.ledger import LedgerError
from extproc.operate.admin.exchanges import ExchangeInFlight
from extproc.operate.admin.guard import JSON, failure
from extproc.operate.reports.reports import AdminReports
from extproc.wire.framing import shapes

PATH = "/events"
MOST = 16
"""Most streams at the same time."""
_SIGN = 15.0  # seconds of silence after which a comment shows that the stream lives


class Live:
    """The application at `PATH`. `every`: seconds between two looks."""

    def __init__(self, reports: AdminReports, every: float = 1.0) -> None:
        self._reports = reports
        self._every = every
        self._streams = 0
        self._looking = asyncio.Lock()
        self._looked = -math.inf
        self._found = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._streams >= MOST:
            full = failure(503, f"at most {MOST} pages are told at once", **{"retry-after": "5"})
            return await full(scope, receive, send)
        answer: Response = Response(media_type="text/event-stream")
        if scope["method"] == "GET":
            answer = StreamingResponse(self._events(scope["allowed"]), media_type="text/event-stream")
        self._streams += 1
        try:
            await answer(scope, receive, send)
        finally:
            self._streams -= 1

    async def _events(self, allowed: Callable[[], bool]) -> AsyncIterator[bytes]:
        told, last = b"", -math.inf
        while allowed():
            found = await self._look()
            if found != told:
                yield b"data: %b\n\n" % found
                told, last = found, monotonic()
            elif monotonic() - last >= _SIGN:
                yield b":\n\n"
                last = monotonic()
            await asyncio.sleep(self._every)

    async def _look(self) -> bytes:
        async with self._looking:
            if monotonic() - self._looked >= self._every / 2:
                self._found = await run_in_threadpool(self._read)
                self._looked = monotonic()
        return self._found

    def _read(self) -> bytes:
        try:
            latest = [entry["id"] for entry in self._reports.exchanges([("limit", "1")])]
        except LedgerError:
            latest = []  # the page asks for the list, and shows the reason
        flying = [shapes.convert(entry, ExchangeInFlight) for entry in self._reports.under_way()]
        return bytes(JSON({"in_flight": flying, "latest": "".join(latest)}).body)
