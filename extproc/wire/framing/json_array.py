"""A stream of server-sent events as one JSON array, for clients that take no events."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.wire.framing import EMPTY, OVERSIZE, Frame
from extproc.wire.framing.sse import SSE
from extproc.words.exchange import FeatureKey

_FIRST, _NEXT = b"[", b",\r\n"
_DONE = b"[DONE]"  # some servers send this as the last event


class JSONArray:
    """Writes the payload of each event as an item. Comments and events without a key are left out. The pieces of an
    event too long to be read are joined.
    """

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before = _FIRST  # bytes before the next item

    def items(self, events: Sequence[Frame]) -> list[bytes]:
        """Array items of `events`, as bytes to send."""
        out: list[bytes] = []
        for event in events:
            raw = event.raw
            if event.name == EMPTY:
                continue
            if event.data is not None:
                if event.data != _DONE:
                    out += [self._before, event.data]
                    self._before = _NEXT
            elif event.name == OVERSIZE:
                out += [self._before, raw.partition(b"data:")[2]]
                self._before = _NEXT
            elif event.edges is not None:
                out.append(raw.rstrip(b"\r\n"))
            else:  # a middle piece of an event too long to be read
                out.append(raw)
        return out

    def end(self) -> bytes:
        """The end of the array."""
        return b"[]" if self._before is _FIRST else b"]"

    def cut_off(self, event: bytes) -> bytes:
        """The end of the array, with `event` as its last item."""
        return b"".join(self.items(SSE().feed(event))) + b"]"


ARRAY: FeatureKey[JSONArray] = FeatureKey("array")
"""The array of a streamed answer for a client that takes no events; `Read` sets it."""
