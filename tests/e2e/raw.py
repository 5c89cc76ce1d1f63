"""HTTP as bytes, for what no client library would send."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 30  # seconds; generous, as nothing here asserts on time

Headers = Sequence[tuple[str | bytes, str | bytes]]


@dataclass(slots=True, frozen=True)
class Reply:
    """An answer. Header names are lower case; of a repeated header the values are joined with a comma."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def message(
    method: str = "POST",
    target: str | bytes = "/v1/chat/completions",
    headers: Headers = (),
    body: bytes = b"",
    *,
    version: str = "HTTP/1.1",
) -> bytes:
    """A request with exactly these headers: none is added, checked or escaped."""
    lines = [_bytes(method) + b" " + _bytes(target) + b" " + version.encode()]
    lines += [_bytes(name) + b": " + _bytes(value) for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def send(url: str, *pieces: bytes, method: str = "POST") -> Reply | None:
    """Send `pieces` one after the other on a connection of their own. None: it was closed without an answer."""
    with connect(url) as connection:
        return exchange(connection, pieces, method=method)


def connect(url: str) -> socket.socket:
    where = urlsplit(url)
    connection = socket.create_connection((where.hostname, where.port), timeout=TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(connection: socket.socket, pieces: Iterable[bytes], *, method: str = "POST") -> Reply | None:
    try:
        for piece in pieces:
            connection.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has already answered, and will not read the rest
    return read(connection, method)


def read(connection: socket.socket, method: str = "POST") -> Reply | None:
    answer = http.client.HTTPResponse(connection, method=method)
    try:
        answer.begin()
        body = answer.read()
    except (http.client.RemoteDisconnected, ConnectionResetError, http.client.BadStatusLine):
        return None
    finally:
        answer.close()
    headers: dict[str, str] = {}
    for name, value in answer.getheaders():
        key = name.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    return Reply(answer.status, headers, body)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
