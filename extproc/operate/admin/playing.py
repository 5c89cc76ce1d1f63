"""`POST /playground`: a chat request through the listener, whole or as server-sent events.

A streamed one has events `{"piece"}`, the body of the answer as it arrives, and at last `{"played"}` or `{"error"}`.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from extproc.operate.admin.guard import JSON
from extproc.operate.admin.handling import AdminCall
from extproc.operate.reports import ReportError

Play = Callable[[Callable[[bytes], None]], Any]


def playground(call: AdminCall) -> Any:
    desk, key, stream = call.desk, call.body.key, call.body.stream
    content = msgspec.json.encode({**call.body.body, "stream": stream})
    if stream:
        call.detail = {"stream": True}  # the status is not known yet
        pieces = pieces_of(lambda sink: desk.play(key, content, sink))
        return StreamingResponse(pieces, media_type="text/event-stream")
    played = desk.play(key, content)
    call.detail = {"status": played["status"]}
    return played


async def pieces_of(play: Play) -> AsyncIterator[bytes]:
    """Events of a request that `play` sends on a thread. The request ends when the page is gone."""
    loop, pieces, gone = asyncio.get_running_loop(), asyncio.Queue[bytes](), False

    def take(piece: bytes) -> None:
        if gone:
            raise ConnectionAbortedError("the page is gone")
        loop.call_soon_threadsafe(pieces.put_nowait, piece)

    def done(work: asyncio.Future[Any]) -> None:
        pieces.put_nowait(b"")
        if not work.cancelled():
            work.exception()  # reads the exception, so that asyncio does not log it

    work = asyncio.ensure_future(run_in_threadpool(play, take))
    work.add_done_callback(done)
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    try:
        while piece := await pieces.get():
            yield _event({"piece": decode(piece)})
        try:
            yield _event({"played": work.result()})
        except ReportError as error:
            yield _event({"error": {"message": error.message}})
    finally:
        gone = True


def _event(value: Any) -> bytes:
    return b"data: %b\n\n" % bytes(JSON(value).body)
