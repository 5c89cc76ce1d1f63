"""One question to an HTTP server and its answer, off the event loop: bounded in time and size, without redirects."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

HTTPException = http.client.HTTPException


class _Exchange:
    """For a thread of its own."""

    def __init__(self, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float, most: int) -> None:
        self._url = urlsplit(url)
        self._body = body
        self._headers = headers
        self._timeout = timeout
        self._most = most
        self._socket: socket.socket | None = None
        self._ended = False

    def __call__(self) -> tuple[int, bytes]:
        url = self._url
        target = url._replace(scheme="", netloc="", fragment="").geturl() or "/"
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        with contextlib.closing(kind(url.hostname or "", url.port, timeout=self._timeout)) as connection:
            connection.connect()
            self._socket = connection.sock
            if self._ended:
                raise TimeoutError
            headers = {"accept": "application/json", "connection": "close", **self._headers}
            connection.request("GET" if self._body is None else "POST", target, self._body, headers)
            with connection.getresponse() as answer:
                return answer.status, answer.read(self._most + 1)

    def end(self) -> None:
        """A thread cannot be cancelled; without its connection it ends, however slowly it was being answered."""
        self._ended = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


async def send(
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float,  # noqa: ASYNC109 - it ends the thread too
    most: int = 64 << 10,
) -> tuple[int, bytes]:
    """GET, or POST `body`: the status, and up to `most` + 1 bytes of the answer.

    Raises TimeoutError when it is not there after `timeout` seconds, OSError when nobody can be reached, ValueError for
    a URL that is none, HTTPException for an answer that is not HTTP.
    """
    exchange = _Exchange(url, body, headers or {}, timeout, most)
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.to_thread(exchange)
    finally:
        exchange.end()
