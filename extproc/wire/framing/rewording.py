"""Errors that Envoy wrote, rewritten in the dialect of the client's path."""

from __future__ import annotations

import msgspec

from extproc.words.errors import Kind
from extproc.words.exchange import Exchange

_encode = msgspec.json.encode


class Rewording:
    """Rewrites an error that Envoy wrote in the dialect of the client's path."""

    __slots__ = ("_exchange", "_parts")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._parts: list[bytes] = []

    async def feed(self, chunk: bytes, end: bool, out: list[bytes]) -> bool:
        """See `Reader`."""
        self._parts.append(chunk)
        if end:
            out.append(reworded(self._exchange, b"".join(self._parts)))
        return False


class _Error(msgspec.Struct):
    message: str
    type: str
    code: str


class _EnvoyAnswer(msgspec.Struct):
    error: _Error


_decode = msgspec.json.Decoder(_EnvoyAnswer).decode


def reworded(exchange: Exchange, body: bytes) -> bytes:
    """An error that Envoy wrote in OpenAI's shape, in the dialect of the client's path. Another `body` is unchanged."""
    try:
        said = _decode(body).error
    except ValueError:
        return body
    kind = Kind(exchange.answer.status, said.type, said.code)
    return _encode(exchange.request.dialect.replies.error(kind, said.message, None))
