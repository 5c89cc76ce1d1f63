"""Amazon's binary event stream, incrementally, each message checked.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html and the Smithy specification,
"Amazon Frame Stream". A message is: total length, length of the headers, CRC-32 of both, headers, payload, CRC-32 of
all before it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from zlib import crc32

from extproc.framing import Frame

CORRUPT = "error:corrupt"
"""Name of the last event of a stream that cannot be read further; its payload is empty."""

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_OVERHEAD = 16  # bytes of a message without headers and payload
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # sizes of header values by type
_BYTES, _STRING = 6, 7


class AWSEventStream:
    """Cuts an event stream. An event's name is its `:event-type`, `exception:<type>` or `error:<code>`.

    A message that is longer than `limit` bytes, or whose sums are wrong, ends the reading: the rest is passed on
    without data.
    """

    __slots__ = ("_buffer", "_corrupt", "_limit")

    def __init__(self, limit: int = 1 << 20) -> None:
        self._buffer = b""
        self._limit = limit
        self._corrupt = False

    def feed(self, chunk: bytes) -> Sequence[Frame]:
        if self._corrupt:
            return [Frame(chunk, None)]
        buffer = self._buffer + chunk if self._buffer else chunk
        events: list[Frame] = []
        start = 0
        while len(buffer) - start >= _PRELUDE.size:
            total, headers, crc = _PRELUDE.unpack_from(buffer, start)
            if crc32(buffer[start : start + 8]) != crc or not _OVERHEAD + headers <= total <= self._limit:
                return [*events, self._give_up(buffer[start:])]
            if len(buffer) - start < total:
                break
            raw = buffer[start : start + total]
            if crc32(raw[:-4]) != _CRC.unpack_from(raw, total - 4)[0]:
                return [*events, self._give_up(buffer[start:])]
            try:
                name = _name(_headers(raw[_PRELUDE.size : _PRELUDE.size + headers]))
            except (ValueError, IndexError, struct.error):
                return [*events, self._give_up(buffer[start:])]
            events.append(Frame(raw, raw[_PRELUDE.size + headers : -4], name))
            start += total
        self._buffer = buffer[start:]
        return events

    def end(self) -> Sequence[Frame]:
        rest, self._buffer = self._buffer, b""
        return [Frame(rest, b"", CORRUPT)] if rest else []

    def _give_up(self, rest: bytes) -> Frame:
        self._buffer, self._corrupt = b"", True
        return Frame(rest, b"", CORRUPT)


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message whose headers are strings."""
    head = b"".join(
        bytes((len(name),))
        + name.encode()
        + bytes((_STRING,))
        + struct.pack(">H", len(value.encode()))
        + value.encode()
        for name, value in headers.items()
    )
    lengths = struct.pack(">II", _OVERHEAD + len(head) + len(payload), len(head))
    message = lengths + _CRC.pack(crc32(lengths)) + head + payload
    return message + _CRC.pack(crc32(message))


def _headers(data: bytes) -> Mapping[str, str]:
    """The headers that are strings, by name. Raises ValueError, IndexError or struct.error when they cannot be read."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        length = data[at]
        name = data[at + 1 : at + 1 + length].decode()
        kind = data[at + 1 + length]
        at += 2 + length
        if kind in (_BYTES, _STRING):
            (size,) = struct.unpack_from(">H", data, at)
            value = data[at + 2 : at + 2 + size]
            if len(value) != size:
                raise ValueError("a header is cut short")
            at += 2 + size
            if kind == _STRING:
                found[name] = value.decode()
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise ValueError("a header of an unknown type")
    if at != len(data):
        raise ValueError("a header is cut short")
    return found


def _name(headers: Mapping[str, str]) -> str:
    kind = headers.get(":message-type", "event")
    if kind == "exception":
        return f"exception:{headers.get(':exception-type', '')}"
    if kind == "error":
        return f"error:{headers.get(':error-code', '')}"
    return headers.get(":event-type", "")
