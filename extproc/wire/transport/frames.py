"""HTTP/2 frames as bytes: their names, their packing, and the errors that end a connection.

Source: RFC 9113, sections 4, 6 and 7.
"""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(2, 7)

WINDOW = 65_535  # bytes of a window without settings
MOST_WINDOW = (1 << 31) - 1
ANY_STREAM = (1 << 31) - 1
LEAST_FRAME = 16_384
ALLOWED = {ENABLE_PUSH: (0, 1), INITIAL_WINDOW_SIZE: (0, MOST_WINDOW), MAX_FRAME_SIZE: (LEAST_FRAME, (1 << 24) - 1)}
"""Lowest and highest values that HTTP/2 allows for a setting."""

HEAD = struct.Struct(">BHBBL")
"""A frame's head: its length (8 and 16 bits), type, flags, stream."""
PREFIX = struct.Struct(">BL")
"""The prefix of a gRPC message: its compression flag, its length."""
MESSAGE_HEAD = struct.Struct(">BHBBLBL")
"""Frame head and message prefix, for a DATA frame that is one message."""
SETTING = struct.Struct(">HL")


class ErrorCode(IntEnum):
    """Error codes that end a stream or a connection."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Fault(Exception):  # noqa: N818
    """A protocol rule that the peer broke. The connection ends with `code`."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A complete frame."""
    size = len(payload)
    return HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def number_frame(kind: int, stream: int, value: int) -> bytes:
    """A RST_STREAM or WINDOW_UPDATE frame: its payload is one number."""
    return HEAD.pack(0, 4, kind, 0, stream) + value.to_bytes(4)


def goaway(last: int, code: ErrorCode, reason: str = "") -> bytes:
    """A GOAWAY frame. Streams above `last` were not handled."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4) + code.to_bytes(4) + reason.encode())


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without its padding. Raises Fault."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Fault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
