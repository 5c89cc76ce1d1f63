"""A provider that costs as little as possible in Python: canned chat answers, plain and streamed, over HTTP/1.1.

`python -m bench.stub --port N`. A stream has the pace and length that the request names anywhere, as in
`pace=20ms words=100`. The built-in mock checks requests and can fail on demand; its cost would be larger than the cost
to be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import re

import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"stub","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"A gateway stands between clients and providers.","refusal":null},"logprobs":null,'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":8,"total_tokens":20}}'
)
_PART = (
    b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"stub","choices":[{"index":0,'
    b'"delta":%b,"logprobs":null,"finish_reason":%b}]}'
)
_USAGE = (
    b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"stub","choices":[],'
    b'"usage":{"prompt_tokens":12,"completion_tokens":%d,"total_tokens":%d}}'
)
_streams = re.compile(rb'"stream"\s*:\s*true').search
_wants_usage = re.compile(rb'"include_usage"\s*:\s*true').search
_pace = re.compile(rb"pace=(\d+)ms").search
_words = re.compile(rb"words=(\d+)").search
_length = re.compile(rb"(?i)content-length: *(\d+)").search
PLAIN = _HEAD % (len(_ANSWER), _ANSWER)
WORDS = 34
"""Events with text in a stream, unless the model's name sets it. With first, last and usage event: 37."""


def chunk(data: bytes) -> bytes:
    """One event as one chunk of the body."""
    event = b"data: %b\n\n" % data
    return b"%x\r\n%b\r\n" % (len(event), event)


def events(body: bytes) -> list[bytes]:
    """The events of an answer to `body`, as chunks. The last one ends the body."""
    found = _words(body)
    words = int(found[1]) if found else WORDS
    parts = [_PART % (b'{"role":"assistant","content":""}', b"null")]
    parts += [_PART % (b'{"content":" word"}', b"null")] * words
    parts.append(_PART % (b"{}", b'"stop"'))
    if _wants_usage(body):
        parts.append(_USAGE % (words, 12 + words))
    return [*map(chunk, parts), chunk(b"[DONE]") + b"0\r\n\r\n"]


class Connection(asyncio.Protocol):
    """Answers one request after the other."""

    def __init__(self) -> None:
        self._buffer = b""
        self._parts: list[bytes] = []  # further pieces of a body
        self._missing = 0  # bytes of it
        self._left: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._missing > len(data):  # of a large body, which is joined once
            self._missing -= len(data)
            self._parts.append(data)
            return
        self._buffer = b"".join((self._buffer, *self._parts, data))
        self._parts, self._missing = [], 0
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = _length(self._buffer, 0, end)
            size = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < size:
                self._missing = size - len(self._buffer)
                return
            body, self._buffer = self._buffer[end + 4 : size], self._buffer[size:]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        if not _streams(body):
            self._transport.write(PLAIN)
            return
        self._transport.write(_STREAM)
        pieces = events(body)
        if found := _pace(body):
            self._left = pieces
            self._next(int(found[1]) / 1000)
        else:
            for piece in pieces:
                self._transport.write(piece)

    def _next(self, pace: float) -> None:
        self._transport.write(self._left.pop(0))
        if self._left:
            self._timer = asyncio.get_running_loop().call_later(pace, self._next, pace)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=4096)
        await server.serve_forever()

    uvloop.run(serve())


if __name__ == "__main__":
    main()
