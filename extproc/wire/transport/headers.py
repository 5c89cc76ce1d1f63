"""Request headers, decoded and checked; response headers, as constants.

Decoding a block costs about 100 µs, and Envoy repeats the same bytes for many streams. Its `:path` is a literal without
indexing, so such a block leaves the table unchanged. Decoded blocks are remembered until a block changes the table.
Answers use neither table nor Huffman. The first answer of a connection sets the table's size to 0, so the peer's
setting has no effect.

Sources: RFC 7541; RFC 9113, section 8; "gRPC over HTTP2" (PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.hpack import encode_integer

from extproc.wire.transport.frames import ErrorCode, Fault
from extproc.wire.transport.limits import TransportLimits

MOST_REMEMBERED = 64  # blocks remembered
LONGEST_REMEMBERED = 2_048  # bytes of a remembered block

_PSEUDO = (b":method", b":scheme", b":path", b":authority")
_OF_CONNECTIONS = (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")


class CallHead(NamedTuple):
    """A call: `/package.Service/Method`, and headers by name. Values of a repeated header are joined with a comma.

    `problem` is the reason why a header block begins no call: it has trailers, it is malformed, or the request is not
    gRPC.
    """

    path: str = ""
    metadata: Mapping[str, str] = {}
    problem: str = ""


class HeaderReader:
    """Header decoder of one connection. It must read every header block, because each may change the table."""

    def __init__(self, limits: TransportLimits) -> None:
        self._decoder = Decoder(max_header_list_size=limits.header_list)
        self._remembered: dict[bytes, CallHead] = {}

    def read(self, block: bytes) -> CallHead:
        """The request in a header block. Raises Fault for a block that cannot be decoded or is too large."""
        if (known := self._remembered.get(block)) is not None:
            return known
        newest, size = self._table()
        try:
            request = _request(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise Fault(ErrorCode.ENHANCE_YOUR_CALM, "too many headers") from None
        except HPACKError:
            raise Fault(ErrorCode.COMPRESSION_ERROR, "headers that cannot be decoded") from None
        newest_now, size_now = self._table()
        if newest_now is not newest or size_now != size or len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        elif len(block) <= LONGEST_REMEMBERED:
            self._remembered[block] = request
        return request

    def _table(self) -> tuple[object, tuple[int, int]]:
        """The table's newest entry, its number of entries and its maximum size. An identical newest object shows that
        no entry was added; the number of entries shows evictions.
        """
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return (entries[0] if entries else None), (len(entries), table.maxsize)


def _request(headers: Iterable[tuple[bytes, bytes]]) -> CallHead:
    pseudo: dict[bytes, bytes] = {}
    metadata: dict[str, str] = {}
    for name, value in headers:
        if name.startswith(b":"):
            if metadata or name in pseudo or name not in _PSEUDO:
                return CallHead(problem="a pseudo-header out of place")
            pseudo[name] = value
        elif not name or name != name.lower() or name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
            return CallHead(problem="a header that HTTP/2 does not allow")
        else:
            key, text = name.decode("utf-8", "replace"), value.decode("utf-8", "replace")
            metadata[key] = f"{metadata[key]},{text}" if key in metadata else text
        if any(character in b"\0\r\n" for character in value):
            return CallHead(problem="a header with a line break")
    if not (pseudo.get(b":path") and b":scheme" in pseudo):
        return CallHead(problem="no :path or :scheme")
    if pseudo.get(b":method") != b"POST" or not metadata.get("content-type", "").startswith("application/grpc"):
        return CallHead(problem="not a gRPC request")
    return CallHead(pseudo[b":path"].decode("utf-8", "replace"), metadata)


def _literal(name: bytes, value: bytes) -> bytes:
    """A header outside of the table."""
    return b"\0" + encode_integer(len(name), 7) + name + encode_integer(len(value), 7) + value


NO_TABLE = b"\x20"
"""Sets the table's size to 0, at the beginning of a connection's first block."""
BEGIN = b"\x88" + _literal(b"content-type", b"application/grpc")
"""Status 200 and the response headers."""
_OK = _literal(b"grpc-status", b"0")


def trailers(status: int, text: str = "") -> bytes:
    """Trailers with a gRPC status. `text` is its message for people."""
    if status == 0:
        return _OK
    message = quote(text, safe=" !#$&'()*+,/:;=?@[]")
    return _literal(b"grpc-status", str(status).encode()) + _literal(b"grpc-message", message.encode())
