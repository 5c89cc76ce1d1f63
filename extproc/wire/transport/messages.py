"""gRPC messages, assembled from a stream's DATA in pieces of any size.

Source: "gRPC over HTTP2" (PROTOCOL-HTTP2.md), Length-Prefixed-Message; compression.md for compressed ones.
"""

from __future__ import annotations

from collections.abc import Callable

from extproc.wire.transport.frames import PREFIX

OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 3, 8, 12, 13


class RefusedMessage(Exception):  # noqa: N818
    """A refused message. Its call ends with the gRPC `status`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


LARGE = 256 << 10
"""Bytes above which a message is a view of the memory it arrived in, not a copy."""


class Assembly:
    """Assembles the messages of one stream, each of at most `most` bytes. `encoding` is the call's grpc-encoding.

    `admits` is asked with the size of a large message. If it returns False, the bytes are dropped, and an empty message
    replaces the large one.
    """

    __slots__ = ("_admits", "_buffer", "_dropped", "_drops", "_encoding", "_large", "_most", "_size")

    def __init__(self, most: int, encoding: str, admits: Callable[[int], bool] = lambda _size: True) -> None:
        self._admits = admits
        self._drops = False  # True: the large message is not admitted
        self._dropped = 0  # bytes of the large message that were dropped
        self._buffer = bytearray()
        self._encoding = encoding
        self._most = most
        self._large: bytearray | None = None  # bytes so far of a large message of `_size` bytes
        self._size = 0

    @property
    def empty(self) -> bool:
        """True when no message is incomplete."""
        return not self._buffer and self._large is None

    def feed(self, data: bytes) -> list[bytes | memoryview]:
        """Messages completed by `data`. Raises RefusedMessage."""
        whole: list[bytes | memoryview] = []
        if self._large is not None:
            data = self._fill(self._large, data, whole)
            if not data:
                return whole
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= PREFIX.size:
            compressed, size = PREFIX.unpack_from(buffer, at)
            self._check(compressed, size)
            start, end = at + PREFIX.size, at + PREFIX.size + size
            if end > len(buffer):
                if size > LARGE:
                    self._large, self._size, self._dropped = buffer[start:], size, 0
                    self._drops = not self._admits(size)
                    if self._drops:
                        self._dropped = len(self._large)
                        self._large.clear()
                    at = len(buffer)
                break
            whole.append(bytes(memoryview(buffer)[start:end]))
            at = end
        del buffer[:at]
        return whole

    def _fill(self, large: bytearray, data: bytes, whole: list[bytes | memoryview]) -> bytes:
        """Add data to a large message. Returns the bytes behind it."""
        left = self._size - len(large) - self._dropped
        if self._drops:
            self._dropped += min(left, len(data))
        else:
            large += data if len(data) <= left else data[:left]
        if left <= len(data):
            whole.append(memoryview(large))
            self._large = None
        return data[left:]

    def _check(self, compressed: int, size: int) -> None:
        if compressed == 1 and self._encoding not in ("", "identity"):
            raise RefusedMessage(UNIMPLEMENTED, "messages must not be compressed")
        if compressed:
            raise RefusedMessage(INTERNAL, "the prefix of a message is broken")
        if size > self._most:
            raise RefusedMessage(RESOURCE_EXHAUSTED, f"a message of {size} bytes, more than {self._most}")
