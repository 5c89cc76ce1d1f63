"""The HTTP client: one request and its answer, bounded in time and in size.

It follows no redirect and reads no proxy from the environment: a credential in a header goes to the given host only.
`ask` blocks, for the command line. `send` leaves the event loop free, for the processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit


class AnswerError(Exception):
    """An answer that is not HTTP, or that ends early."""


def ask(
    url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *, timeout: float, most: int
) -> tuple[int, bytes]:
    """GET, or POST of `body`. Returns the status and up to `most` + 1 bytes of the answer. Raises as `ask_whole`."""
    status, _, data = ask_whole(url, body, headers, timeout=timeout, most=most)
    return status, data


def ask_whole(
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float,
    most: int,
    verify: bool = True,
) -> tuple[int, Mapping[str, str], bytes]:
    """The same with the headers of the answer, by their names in lower case. Without `verify` any certificate will do:
    for this machine alone, where its name is not the one that clients use.

    Raises TimeoutError after `timeout` seconds, OSError when the host cannot be reached, ValueError for a malformed
    URL, AnswerError for an answer that is not HTTP or ends early.
    """
    exchange = _Exchange(url, body, headers or {}, timeout, most, verify=verify)
    watch = threading.Timer(timeout, exchange.end)
    watch.daemon = True
    watch.start()
    try:
        return exchange()
    finally:
        watch.cancel()
        watch.join()


async def send(
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float,  # noqa: ASYNC109 - it ends the thread too
    most: int = 64 << 10,
) -> tuple[int, bytes]:
    """The same as `ask`, on a thread. Cancelling it ends the thread."""
    exchange = _Exchange(url, body, headers or {}, timeout, most)
    try:
        async with asyncio.timeout(timeout):
            status, _, data = await asyncio.to_thread(exchange)
            return status, data
    finally:
        exchange.end()


class _Exchange:
    """One request and its answer, on the thread that calls it."""

    def __init__(
        self,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float,
        most: int,
        *,
        verify: bool = True,
    ) -> None:
        self._url = urlsplit(url)
        self._body = body
        self._headers = headers
        self._timeout = timeout
        self._most = most
        self._verify = verify
        self._socket: socket.socket | None = None
        self._ended = False

    def __call__(self) -> tuple[int, Mapping[str, str], bytes]:
        try:
            found = self._run()
        except (OSError, AnswerError):
            if self._ended:  # a connection that was closed here means that the time ran out
                raise TimeoutError from None
            raise
        if self._ended:
            raise TimeoutError
        return found

    def _run(self) -> tuple[int, Mapping[str, str], bytes]:
        import http.client  # noqa: PLC0415 - most processes never ask anything

        try:
            return self._asked(http.client)
        except OSError:  # which some of the others are, too
            raise
        except http.client.HTTPException as error:
            raise AnswerError(str(error)) from error

    def _asked(self, client: ModuleType) -> tuple[int, Mapping[str, str], bytes]:
        url = self._url
        target = url._replace(scheme="", netloc="", fragment="").geturl() or "/"
        kind = client.HTTPSConnection if url.scheme == "https" else client.HTTPConnection
        more = {"context": _unverified()} if url.scheme == "https" and not self._verify else {}
        with contextlib.closing(kind(url.hostname or "", url.port, timeout=self._timeout, **more)) as connection:
            connection.connect()
            self._socket = connection.sock
            if self._ended:
                raise TimeoutError
            headers = {"accept": "application/json", "connection": "close", **self._headers}
            connection.request("GET" if self._body is None else "POST", target, self._body, headers)
            with connection.getresponse() as answer:
                data = answer.read(self._most + 1)
                if answer.length and len(data) <= self._most:
                    raise client.IncompleteRead(data, answer.length)
                return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data

    def end(self) -> None:
        """Close the connection. A thread cannot be cancelled, and a peer can keep it busy one byte at a time."""
        self._ended = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _unverified() -> Any:
    import ssl  # noqa: PLC0415 - most processes never ask so

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
