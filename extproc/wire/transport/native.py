"""The native transport: `connection.py` on asyncio, for Envoy on a unix socket.

A call's step runs without a task, and becomes a task only when it waits. All output of a turn of the event loop is one
write. In a turn a connection handles `TransportLimits.turn` events, and one step of one lengthy call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from extproc.wire.transport import (
    LAST_WORDS,
    LOOK,
    Calls,
    GrpcCall,
    Lengthy,
    Malformed,
    PeerFaults,
    TransportLimits,
    Watched,
    goes_on,
    lasts,
)
from extproc.wire.transport.connection import Connection, Stream, StreamEvent
from extproc.wire.transport.messages import INTERNAL, INVALID_ARGUMENT, UNIMPLEMENTED
from extproc.wire.transport.steps import Begun
from extproc.wire.transport.unix_socket import private

log = logging.getLogger(__name__)

_BACKLOG = 1_024  # connections waiting to be accepted
_UNAVAILABLE = 14  # gRPC status of calls that a stop ends
_LOOK_AGAIN = 0.05  # seconds between checks for calls that a stop waits for
_CLOSE_TIMEOUT = 1.0  # seconds for a peer to read the last bytes and close
_LONGEST_END = 10.0  # seconds for calls to settle their reservations

Step = Coroutine[Any, Any, Sequence[bytes]]


class NativeServer:
    """Serves `calls` at the unix socket `path`, which only this user can connect to."""

    def __init__(
        self, calls: Calls, path: str, limits: TransportLimits | None = None, *, faults: PeerFaults | None = None
    ) -> None:
        self.calls = calls
        self.faults = faults or PeerFaults()
        self.limits = limits or TransportLimits()
        self.peers: set[Peer] = set()
        self.stopping = False
        self._path = Path(path)
        self._inode = 0
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        try:
            with private(str(self._path)):
                listener.bind(str(self._path))
            self._inode = self._path.stat().st_ino
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_unix_server(lambda: Peer(self), sock=listener, backlog=_BACKLOG)
        except BaseException:
            listener.close()
            raise

    async def look(self) -> str:
        """See `Transport`. Open connections are kept."""
        try:
            return "" if self._path.stat().st_ino == self._inode else f"another process serves {self._path}"
        except OSError as error:
            if self.stopping or not isinstance(error, FileNotFoundError):
                return f"{self._path}: {error.strerror}"
        if self._listener is not None:
            self._listener.close()
        try:
            await self.start()
        except OSError as error:
            return f"{self._path} was deleted, and cannot be made again: {error.strerror or error}"
        log.warning("%s was deleted; the processor listens there anew", self._path)
        return ""

    async def stop(self, grace: float) -> None:
        self.stopping = True
        if self._listener is not None:
            self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:  # another process may serve at the path by now
                self._path.unlink()
        for peer in self.peers:
            peer.drain()
        await self._wait_for_work(grace)
        for peer in list(self.peers):
            peer.end()
        await self._wait_for_peers(_CLOSE_TIMEOUT)
        for peer in list(self.peers):
            peer.abort()
        await self._wait_for_peers(_CLOSE_TIMEOUT)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LONGEST_END)

    async def _wait_for_work(self, grace: float) -> None:
        """Wait until only lasting calls are left, then for their last messages."""
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(peer.works for peer in self.peers):
            await self._wait_for_peers(min(_LOOK_AGAIN, deadline - time.monotonic()))
        await self._wait_for_peers(max(0.0, min(LAST_WORDS, deadline - time.monotonic())))

    async def _wait_for_peers(self, seconds: float) -> None:
        if self.peers:
            await asyncio.wait([peer.lost for peer in self.peers], timeout=seconds)

    def watch(self) -> None:
        """Check silent calls every second, until none is left to watch."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        watched = [peer for peer in list(self.peers) if peer.ask_silent(now)]
        self._looking = None
        if watched:
            self.watch()

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task that `stop` waits for."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def finish(self, call: GrpcCall, path: str) -> None:
        """Run the end of a call; it becomes a task only when it waits. Nothing cancels it."""
        ending = call.on_end()
        try:
            waits_for = ending.send(None)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - a bug of the call
            _say(path, error)
        else:
            self.spawn(Begun(ending, waits_for)).add_done_callback(partial(_ended, path))


class Peer(asyncio.Protocol):
    """One connection."""

    _transport: asyncio.Transport

    def __init__(self, server: NativeServer) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._server = server
        self._http2 = Connection(server.limits, admits=_admits)
        self._events: deque[StreamEvent] = deque()
        self._lengthy: deque[Stream] = deque()  # streams with another step; a turn runs one of them
        self._turning = False  # True: a turn is scheduled
        self._full = False  # True: the peer does not read, and its buffer is full
        self._closing: asyncio.TimerHandle | None = None

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's class is unrelated
        server = self._server
        transport.set_write_buffer_limits(server.limits.unread)
        if server.stopping or len(server.peers) >= server.limits.connections:
            transport.abort()
            return
        server.peers.add(self)
        self._flush()

    def connection_lost(self, _error: Exception | None) -> None:
        for _, stream, _ in self._http2.lost():
            self._cancel_call(stream)
        if self._closing is not None:
            self._closing.cancel()
        self._server.peers.discard(self)
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """Stop work for a peer that does not read, so that its unsent answers stay bounded."""
        self._full = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        self._transport.resume_reading()
        self._turn_soon()

    def data_received(self, data: bytes) -> None:
        if self._closing is None:
            self._events.extend(self._http2.receive(data))
            if not self._turning:
                self._handle_events()

    def _handle_events(self) -> None:
        """Handle queued events, and write the answers."""
        self._turning = False
        events = self._events
        for _ in range(self._server.limits.turn):
            if not events or self._full:
                break
            kind, stream, message = events.popleft()
            if kind == "opened":
                self._open(stream)
            elif stream.call is None:  # the call ended before this event
                continue
            elif kind == "message":
                if stream.task is None:  # a reset drops queued messages while a step is running
                    self._work(stream, stream.call.on_message(message))
            elif kind == "gone":
                self._cancel_call(stream)
            else:
                self._next_step(stream)
        if self._lengthy and not self._full:
            self._go_on(self._lengthy.popleft())
        if (events or self._lengthy) and not self._full:
            self._turn_soon()
        self._flush()

    def drain(self) -> None:
        """Accept no more calls. The connection closes when the peer knows and the current calls are over."""
        self._http2.drain()
        self._flush()

    @property
    def works(self) -> bool:
        """True while a stop must wait for this connection."""
        return not self._http2.announced or any(not lasts(stream.call) for stream in self._http2.streams.values())

    def end(self) -> None:
        """End the current calls."""
        for stream in list(self._http2.streams.values()):
            self._http2.end(stream, _UNAVAILABLE, "the server stops")
            self._cancel_call(stream)
        self._flush()
        self._close()

    def abort(self) -> None:
        self._transport.abort()

    def _flush(self) -> None:
        http2 = self._http2
        if self._closing is not None or self._transport.is_closing():
            return
        if data := http2.output():
            self._transport.write(data)
        if http2.fault is not None:
            self._server.faults.add("http2", http2.fault)
            self._close()
        elif http2.drained:
            self._close()

    def _close(self) -> None:
        """End the output and let the peer close: closing first would discard bytes that the peer has not read."""
        if self._closing is None and not self._transport.is_closing():
            self._transport.write_eof()
            self._give_up_soon()

    def _give_up_soon(self) -> None:
        self._closing = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, self._give_up)

    def _give_up(self) -> None:
        if self._http2.fault is None and self._transport.get_write_buffer_size():
            self._give_up_soon()  # the peer may still read; `stop` bounds the wait
        else:
            self._transport.abort()

    def _turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._handle_events)

    # --- calls

    def _open(self, stream: Stream) -> None:
        if stream.over:  # reset or ended before this event
            return
        make = self._server.calls.get(stream.path)
        if make is None:
            self._http2.end(stream, UNIMPLEMENTED, "there is no such method")
            return
        try:
            stream.call = make(stream.metadata)
            if hasattr(stream.call, "on_silence"):
                self._server.watch()
        except Exception as error:  # noqa: BLE001 - a bug of the call
            self._failed(stream, error)

    def ask_silent(self, now: float) -> bool:
        """Ask idle calls for answers while their clients are silent. True when a call is to be asked again."""
        watched = False
        for stream in list(self._http2.streams.values()):
            if not hasattr(stream.call, "on_silence"):
                continue
            watched = True
            if stream.busy or stream.task is not None or stream.unsent:
                continue
            call: Watched = stream.call
            try:
                answers = call.on_silence(now)
            except Exception as error:  # noqa: BLE001 - a bug of the call
                self._failed(stream, error)
            else:
                if answers:
                    self._answer(stream, answers)
        self._flush()
        return watched

    def _work(self, stream: Stream, step: Step) -> None:
        """Run one step of a call, without a task unless it waits."""
        try:
            waits_for = step.send(None)
        except StopIteration as result:
            self._answer(stream, result.value)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a bug of the call
            self._failed(stream, error)
        else:
            stream.task = self._server.spawn(Begun(step, waits_for))
            stream.task.add_done_callback(partial(self._resume, stream))

    def _resume(self, stream: Stream, task: asyncio.Task[Sequence[bytes]]) -> None:
        """Handle the result of a step that waited."""
        stream.task = None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if stream.over:
            if isinstance(error, Malformed):
                self._server.faults.add("message", error)
            elif isinstance(error, Exception):
                _say(stream.path, error)
            self._end_call(stream)
        elif error is not None:
            self._failed(stream, error)
        else:
            self._answer(stream, task.result())
        self._turn_soon()

    def _answer(self, stream: Stream, answers: Sequence[bytes]) -> None:
        for answer in answers:
            self._http2.send(stream, answer)
        self._next_step(stream)

    def _next_step(self, stream: Stream) -> None:
        """Begin the next step of a stream after an answer: a message, the end, or none now."""
        call: GrpcCall = stream.call
        if call.done or stream.closing:
            self._http2.end(stream)
            self._end_call(stream)
        elif stream.unsent:  # the peer does not read: `drained` begins the next step
            return
        elif goes_on(call):
            self._lengthy.append(stream)
            self._turn_soon()
        else:
            message = self._http2.take(stream)
            if message is not None:
                self._events.append(StreamEvent("message", stream, message))
                self._turn_soon()
            elif stream.ended:
                stream.closing = True
                self._work(stream, call.on_half_close())

    def _go_on(self, stream: Stream) -> None:
        """Run the next step of a lengthy call, unless it ended meanwhile."""
        call: Lengthy | None = stream.call
        if call is not None and stream.task is None and goes_on(call):
            self._work(stream, call.go_on())

    def _failed(self, stream: Stream, error: BaseException) -> None:
        if isinstance(error, Malformed):
            self._server.faults.add("message", error)
            self._http2.end(stream, INVALID_ARGUMENT, "malformed message")
        else:
            _say(stream.path, error)
            self._http2.end(stream, INTERNAL, "internal error")
        self._end_call(stream)

    def _cancel_call(self, stream: Stream) -> None:
        if stream.task is not None:
            stream.task.cancel()  # `_resume` ends the call
        else:
            self._end_call(stream)

    def _end_call(self, stream: Stream) -> None:
        call, stream.call = stream.call, None
        if call is not None:
            self._server.finish(call, stream.path)


def _admits(stream: Stream, size: int) -> bool:
    call: GrpcCall | None = stream.call
    return call is None or call.admits(size)


def _ended(path: str, task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _say(path, error)


def _say(path: str, error: BaseException) -> None:
    log.error("a call of %s failed: a bug", path, exc_info=error)
