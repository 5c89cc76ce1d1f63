"""A bounded load: HTTP/1.1 over loopback, with only as much code as keeps it from being the bottleneck."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.harness import KEY

PATIENCE = 60.0
"""Seconds without a byte on any connection after which a load gives up."""


@dataclass
class Result:
    """The results of a load. Times are in seconds."""

    latencies: list[float] = field(default_factory=list)  # to the end of the answer
    first_bytes: list[float] = field(default_factory=list)  # to the first byte of its body
    events: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0  # from the first request to the last answer


def request(
    model: str,
    *,
    path: str = "/v1/chat/completions",
    text: str = "",
    stream: bool = False,
    size: int = 0,
    words: int = 0,
    headers: Sequence[str] = (),
    usage: bool = False,
) -> bytes:
    """One request, with a body that Chat and Messages share: `text`, and about `size` bytes more."""
    text = (text or "Tell me about gateways. ") + "word " * (size // 5)
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if stream:
        body["stream"] = True
    if usage:
        body["stream_options"] = {"include_usage": True}
    if words:
        body["max_tokens"] = words
    payload = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "host: bench",
        "user-agent: bench/1",
        "accept: application/json",
        f"authorization: Bearer {KEY}",
        "content-type: application/json",
        f"content-length: {len(payload)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


class Client(asyncio.Protocol):
    """One connection. It sends the next request when the last is answered, until `left` is empty."""

    def __init__(self, left: Iterator[tuple[float, bytes]], result: Result) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.heard = time.perf_counter()
        self._left = left
        self._result = result
        self._buffer = b""
        self._open = False  # waiting for an answer
        self._body: int | None = None  # bytes of the answer's body left; None: its headers are incomplete
        self._chunked = False
        self._first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._result.errors.append(repr(error or ConnectionError("closed")))
            self.done.set_result(None)

    def _next(self) -> None:
        try:
            due, message = next(self._left)
        except StopIteration:
            self._open = False
            if not self.done.done():
                self.done.set_result(None)
            self._transport.close()
            return
        wait = due - time.perf_counter()
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self._send, due, message)
        else:
            self._send(due, message)

    def _send(self, due: float, message: bytes) -> None:
        # At a fixed rate the clock starts when the request was due, so a slow gateway delays the next requests too.
        self._start = due or time.perf_counter()
        self._open, self._body, self._first, self._buffer = True, None, 0.0, b""
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        self.heard = now = time.perf_counter()
        if not self._open:
            return
        if self._body is None:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self._buffer[:end].lower(), self._buffer[end + 4 :]
            if head[9:12] != b"200":
                self._result.errors.append(head[9:12].decode())
            self._chunked = b"transfer-encoding: chunked" in head
            length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._body, self._buffer = int(length or 0), b""
        if data and not self._first:
            self._first = now
        if self._chunked:
            self._result.events += data.count(b"data: ")
            self._buffer = (self._buffer + data)[-7:]
            if self._buffer in (b"\r\n0\r\n\r\n", b"0\r\n\r\n"):
                self._end(now)
        else:
            self._body -= len(data)
            if self._body <= 0:
                self._end(now)

    def _end(self, now: float) -> None:
        self._result.latencies.append(now - self._start)
        if self._chunked:
            self._result.first_bytes.append(self._first - self._start)
        self._next()


async def run(
    port: int, message: bytes | Sequence[bytes], *, total: int, concurrency: int, rate: float = 0.0
) -> Result:
    """Send `message`, or several in turn, `total` times in all over `concurrency` connections.

    Without `rate` each connection sends its next request when the last was answered. With `rate`, that many requests
    leave per second, and latencies count from the moment each was due.
    """
    result = Result()
    messages = (message,) if isinstance(message, bytes) else message
    start = time.perf_counter() + (0.05 if rate else 0.0)
    left = ((start + n / rate if rate else 0.0, messages[n % len(messages)]) for n in range(total))
    loop = asyncio.get_running_loop()
    clients = [
        client
        for _, client in await asyncio.gather(
            *(loop.create_connection(lambda: Client(left, result), "127.0.0.1", port) for _ in range(concurrency))
        )
    ]
    pending = {client.done for client in clients}
    while pending:
        _, pending = await asyncio.wait(pending, timeout=PATIENCE)
        if time.perf_counter() - max(client.heard for client in clients) > PATIENCE:
            result.errors.append(f"silent for {PATIENCE:.0f} s")
            break
    result.seconds = time.perf_counter() - start
    return result
