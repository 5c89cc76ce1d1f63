"""A provider that answers every request with bytes from the test, for answers that no provider should send."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Headers = Iterable[tuple[str, str]]
Script = Callable[[], Iterable[bytes]]

ENDLESS = 64 << 20
"""The most bytes of an endless answer, so that no test can hang on it."""


class Scripted:
    """A provider. `script` gives the pieces of every answer, `seen` holds the bodies of the requests. An answer ends
    with the connection unless it states its own length.
    """

    def __init__(self, port: int = 0) -> None:
        self.script: Script = lambda: [plain({})]
        self.seen: list[Any] = []
        self.sent = 0  # bytes of the latest answer that Envoy took
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    owner._answer(self)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, *pieces: bytes) -> None:
        """Set the answer for the next requests."""
        self.seen.clear()
        self.script = lambda: pieces

    @contextmanager
    def running(self) -> Iterator[Scripted]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _answer(self, handler: socketserver.StreamRequestHandler) -> None:
        length = 0
        if not handler.rfile.readline():
            return
        while line := handler.rfile.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "content-length":
                length = int(value)
        self.seen.append(json.loads(handler.rfile.read(length) or b"null"))
        self.sent = 0
        for piece in self.script():
            handler.wfile.write(piece)
            self.sent += len(piece)


def head(content_type: str | None = "application/json", status: int = 200, more: Headers = ()) -> bytes:
    """Status line and headers of an answer that ends when its connection closes."""
    headers = [("connection", "close"), *more]
    if content_type is not None:
        headers.append(("content-type", content_type))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode()


def plain(body: Any, content_type: str | None = "application/json", status: int = 200, more: Headers = ()) -> bytes:
    """A complete answer with a content-length."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(content_type, status, [*more, ("content-length", str(len(data)))]) + data


def events(*documents: Any, end: bytes = b"data: [DONE]\n\n") -> bytes:
    """Server-sent events. Bytes are sent as they are."""
    pieces = [item if isinstance(item, bytes) else b"data: %s\n\n" % json.dumps(item).encode() for item in documents]
    return b"".join([*pieces, end])


def stream(*documents: Any, end: bytes = b"data: [DONE]\n\n", more: Headers = ()) -> bytes:
    """A streamed answer."""
    return head("text/event-stream", more=more) + events(*documents, end=end)


def endless(first: bytes, piece: bytes) -> Script:
    def script() -> Iterator[bytes]:
        yield first
        for _ in range(ENDLESS // len(piece)):
            yield piece

    return script
