"""gRPC messages out of the DATA of a stream, in pieces of any size.

Source: "gRPC over HTTP2" (PROTOCOL-HTTP2.md), Length-Prefixed-Message; compression.md for compressed ones.
"""

from __future__ import annotations

from extproc.transport.frames import PREFIX

OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 8, 12, 13


class Refused(Exception):  # noqa: N818
    """A message that is refused: the call ends with the gRPC `status`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Assembly:
    """The message under way in one stream, of at most `most` bytes. `encoding` is the call's grpc-encoding."""

    __slots__ = ("_buffer", "_encoding", "_most")

    def __init__(self, most: int, encoding: str) -> None:
        self._buffer = bytearray()
        self._encoding = encoding
        self._most = most

    @property
    def empty(self) -> bool:
        """True when the stream is between two messages."""
        return not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes, each copied once. Raises Refused at a message that is refused."""
        buffer = self._buffer
        buffer += data
        whole: list[bytes] = []
        at = 0
        while len(buffer) - at >= PREFIX.size:
            compressed, size = PREFIX.unpack_from(buffer, at)
            self._check(compressed, size)
            start, end = at + PREFIX.size, at + PREFIX.size + size
            if end > len(buffer):
                break
            whole.append(bytes(memoryview(buffer)[start:end]))
            at = end
        del buffer[:at]
        return whole

    def _check(self, compressed: int, size: int) -> None:
        if compressed == 1 and self._encoding not in ("", "identity"):
            raise Refused(UNIMPLEMENTED, "messages must not be compressed")
        if compressed:
            raise Refused(INTERNAL, "the prefix of a message is broken")
        if size > self._most:
            raise Refused(RESOURCE_EXHAUSTED, f"a message of {size} bytes, more than {self._most}")
