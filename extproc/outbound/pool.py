"""Connections to one HTTP service that are kept between requests, on the event loop.

For services that are asked for each exchange. As in `client`, no redirect is followed and no proxy of the environment
is used, so a credential in a header goes to the given host alone. Link-local addresses are refused after the name was
resolved: they are the metadata services of clouds, whatever name leads there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import urlsplit

import h11

IDLE = 30.0  # seconds that a connection waits for its next request
_READ = 64 << 10  # bytes that are read at a time


class AnswerError(Exception):
    """An answer that is not HTTP, ends early, or is too large."""


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))
    used: int = 0  # requests so far
    since: float = 0.0  # when it became idle

    @property
    def usable(self) -> bool:
        return not self.reader.at_eof() and not self.writer.is_closing() and time.monotonic() < self.since + IDLE


class Pool:
    """Requests to the service at `url`, `http(s)://host[:port]`. `ca` is a PEM file of the authorities that verify it,
    in the place of the system's. An answer has up to `most` bytes.
    """

    def __init__(self, url: str, *, ca: str | None = None, most: int = 1 << 20) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._name = parts.netloc.rpartition("@")[2].encode("idna" if not parts.netloc.isascii() else "ascii")
        self._ca = ca
        self._most = most
        self._idle: list[_Connection] = []
        self._reaper: asyncio.TimerHandle | None = None

    async def post(self, target: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """The status of the answer, and its body. `target` is path and query. Has no time limit of its own: cancel it.

        Raises OSError when the host cannot be reached, AnswerError for an answer that cannot be read. A request is sent
        twice only where its kept connection ended before any answer.
        """
        connection = self._kept()
        if connection is not None:
            try:
                return await self._exchange(connection, target, body, headers)
            except _StaleError:
                pass
        try:
            return await self._exchange(await self._connect(), target, body, headers)
        except _StaleError:
            raise AnswerError("the connection ended without an answer") from None

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.writer.close()
        self._idle.clear()

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.writer.close()
        return None

    async def _connect(self) -> _Connection:
        context = _context(self._ca) if self._secure else None
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=context, limit=_READ)
        if is_metadata(writer.get_extra_info("peername")[0]):
            writer.close()
            raise ConnectionRefusedError("a link-local address")
        return _Connection(reader, writer)

    async def _exchange(
        self, connection: _Connection, target: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        done = False
        try:
            found = await self._talk(connection, target, body, headers)
            done = True
        except h11.RemoteProtocolError:
            raise AnswerError("the answer is not HTTP") from None
        finally:
            if done and self._again(connection):
                connection.since = time.monotonic()
                self._idle.append(connection)
                self._reap_later()
            else:
                connection.writer.close()
        return found

    async def _talk(
        self, connection: _Connection, target: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        http, reader, writer = connection.http, connection.reader, connection.writer
        fields: list[tuple[bytes, bytes]] = [
            (b"host", self._name),
            (b"content-length", str(len(body)).encode()),
            *((name.encode(), value.encode()) for name, value in headers.items()),
        ]
        connection.used += 1
        out = http.send(h11.Request(method="POST", target=target.encode(), headers=fields)) or b""
        try:
            writer.write(b"".join((out, http.send(h11.Data(body)) or b"", http.send(h11.EndOfMessage()) or b"")))
            await writer.drain()
        except ConnectionError:
            raise _StaleError from None
        status, parts, size, begun = 0, [], 0, False
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                try:
                    data = await reader.read(_READ)
                except ConnectionError:
                    data = b""
                if not data and not begun:
                    raise _StaleError
                begun = True
                http.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > self._most:
                    raise AnswerError("the answer is too large")
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return status, b"".join(parts)
            elif isinstance(event, h11.ConnectionClosed):
                raise AnswerError("the answer ends early")

    def _again(self, connection: _Connection) -> bool:
        """True when the connection can carry another request."""
        with contextlib.suppress(h11.ProtocolError):
            connection.http.start_next_cycle()
            return True
        return False

    def _reap_later(self) -> None:
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(IDLE, self._reap)

    def _reap(self) -> None:
        self._reaper = None
        kept = [each for each in self._idle if each.usable]
        for each in self._idle:
            if each not in kept:
                each.writer.close()
        self._idle = kept
        if kept:
            self._reap_later()


class _StaleError(Exception):
    """The connection ended before any byte of an answer."""


def is_metadata(host: str) -> bool:
    """True for a link-local address, and for one that cannot be a peer: unspecified or multicast."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_link_local or mapped.is_unspecified or mapped.is_multicast or host in _METADATA


_METADATA: Iterable[str] = ("fd00:ec2::254", "100.100.100.200", "168.63.129.16")
"""Metadata services with other addresses: AWS on IPv6, Alibaba Cloud, Azure."""


def _context(ca: str | None) -> ssl.SSLContext:
    return _system() if ca is None else ssl.create_default_context(cafile=ca)


@cache
def _system() -> ssl.SSLContext:
    return ssl.create_default_context()
