"""Amazon's binary event stream, read incrementally with every checksum verified.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html and the Smithy specification,
"Amazon Frame Stream". A message is: total length, length of the headers, CRC-32 of both, headers, payload, CRC-32 of
all before it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from zlib import crc32

from extproc.wire.framing import EMPTY, EMPTY_LIMIT, Frame

CORRUPT = "error:corrupt"
"""Name of the last event when a stream is corrupt; the payload is empty."""

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_read_prelude, _read_crc = _PRELUDE.unpack_from, _CRC.unpack_from
_KEY = re.compile(rb'"[ \t]*:').search
_OVERHEAD = 16  # bytes of a message beside headers and payload
# Bytes of a header value by its type; strings and bytes give their own length.
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _STRING = 6, 7


class AWSEventStream:
    """Cuts an event stream. An event's name is its `:event-type`, `exception:<type>` or `error:<code>`.

    A message over `limit` bytes, or with a wrong checksum, ends the reading: later bytes pass without data. Consecutive
    messages without a name, and without a key in their payload, are one frame, as in `sse`. Its data is the first
    payload that is not empty.
    """

    __slots__ = ("_corrupt", "_held", "_limit", "_wanted", "empty", "empty_limit")

    def __init__(self, limit: int = 1 << 20, empty_limit: int = EMPTY_LIMIT) -> None:
        self.empty = 0
        self.empty_limit = empty_limit
        self._held = bytearray()  # the incomplete message; pieces are added in place, however small they are
        self._wanted = 0  # bytes needed before the message can be read on: its prelude, then its length
        self._limit = limit
        self._corrupt = False

    def feed(self, chunk: bytes) -> Sequence[Frame]:
        if self._corrupt:
            return [Frame(chunk, None)]
        held = self._held
        buffer = chunk
        if held:
            held += chunk
            if len(held) < self._wanted:
                return ()
            buffer = bytes(held)
        events: list[Frame] = []
        start = last = 0  # offsets of the first message in the row, and of the current message
        data: bytes | None = None  # data of the row's frame
        size, limit, self._wanted = len(buffer), self._limit, _PRELUDE.size
        while size - last >= 12:  # a prelude has 12 bytes
            total, headers, crc = _read_prelude(buffer, last)
            end = last + total
            if end > size and _OVERHEAD + headers <= total <= limit and crc32(buffer[last : last + 8]) == crc:
                self._wanted = total
                break
            name: str | None = None
            if _OVERHEAD + headers <= total <= limit and end <= size:
                [whole] = _read_crc(buffer, end - 4)
                if crc32(buffer[last : end - 4]) == whole:
                    name = _name(buffer[last + 12 : last + 12 + headers]) if headers else ""
            if name is None:
                self._pass(buffer[start:last], data, events)
                return [*events, self._give_up(buffer[last:])]
            if total > _OVERHEAD or name:
                payload = buffer[last + 12 + headers : end - 4]
                if name or _KEY(payload) is not None:
                    self._pass(buffer[start:last], data, events)
                    events.append(Frame(buffer[last:end], payload, name))
                    start, data, self.empty = end, None, 0
                elif data is None and payload and payload != b"{}":
                    data = payload
            last = end
        self._pass(buffer[start:last], data, events)
        if last < size or held:
            self._held = bytearray(buffer[last:])
        return events

    def end(self) -> Sequence[Frame]:
        rest, self._held = bytes(self._held), bytearray()
        return [Frame(rest, b"", CORRUPT)] if rest else []

    def _pass(self, raw: bytes, data: bytes | None, events: list[Frame]) -> None:
        """Add a frame of empty messages, if there are any."""
        if raw:
            events.append(Frame(raw, data, EMPTY))
            self.empty += len(raw)

    def _give_up(self, rest: bytes) -> Frame:
        self._held, self._corrupt = bytearray(), True
        return Frame(rest, b"", CORRUPT)


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """A message whose headers are strings."""
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
    """String headers by name. Raises ValueError, IndexError or struct.error for headers that cannot be read."""
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


@lru_cache(maxsize=256)
def _name(headers: bytes) -> str | None:
    """The message's name from its headers; None for headers that cannot be read. Events of one kind have equal
    headers.
    """
    try:
        found = _headers(headers)
    except (ValueError, IndexError, struct.error):
        return None
    kind = found.get(":message-type", "event")
    if kind == "exception":
        return f"exception:{found.get(':exception-type', '')}"
    if kind == "error":
        return f"error:{found.get(':error-code', '')}"
    return found.get(":event-type", "")
