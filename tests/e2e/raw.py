"""HTTP as bytes, for requests that no client library would send."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset

TIMEOUT = 30  # seconds; generous, as nothing here asserts on time

Headers = Sequence[tuple[str | bytes, str | bytes]]


@dataclass(slots=True, frozen=True)
class Reply:
    """An answer, its body perhaps truncated. Header names are lower case; repeated headers are joined with a comma."""

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
    """A request with exactly these headers. Nothing is added, checked or escaped."""
    lines = [_bytes(method) + b" " + _bytes(target) + b" " + version.encode()]
    lines += [_bytes(name) + b": " + _bytes(value) for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def send(url: str, *pieces: bytes, method: str = "POST") -> Reply | None:
    """Send `pieces` one after the other on a new connection. None: the connection was closed without an answer."""
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
        pass  # the server has already answered, and will not read the rest
    return read(connection, method)


def read(connection: socket.socket, method: str = "POST") -> Reply | None:
    answer = http.client.HTTPResponse(connection, method=method)
    try:
        answer.begin()
        try:
            body = answer.read()
        except http.client.IncompleteRead as error:
            body = error.partial
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


def send_http2(url: str, headers: Headers, body: bytes | None, trailers: Headers = ()) -> Reply | None:
    """Send one request over HTTP/2 without TLS. None: the stream was reset, or the connection closed, without an
    answer.
    """
    config = H2Configuration(header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False)
    http2 = H2Connection(config)
    http2.initiate_connection()
    http2.send_headers(1, headers, end_stream=body is None and not trailers)
    if body is not None:
        http2.send_data(1, body, end_stream=not trailers)
    if trailers:
        http2.send_headers(1, trailers, end_stream=True)
    answered: dict[str, str] = {}
    data = b""
    with connect(url) as connection:
        connection.sendall(http2.data_to_send())
        while received := _receive(connection):
            for event in http2.receive_data(received):
                if isinstance(event, ResponseReceived):
                    answered = {_text(name): _text(value) for name, value in event.headers}
                elif isinstance(event, DataReceived):
                    data += event.data
                elif isinstance(event, StreamEnded):
                    return Reply(int(answered.pop(":status")), answered, data)
                elif isinstance(event, StreamReset | ConnectionTerminated):
                    return None
            connection.sendall(http2.data_to_send())
    return None


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def _text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()
