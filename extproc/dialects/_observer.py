"""The gateway's reading of an answer that passes through, event by event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from extproc.dialects._edges import find
from extproc.wire.framing import UNREADABLE
from extproc.wire.framing.shapes import convert
from extproc.words.dialect import Report


class Observer:
    """`ClientAPI.observe` and `observe_edges` of one API. `shape` describes an event, or a whole plain answer, as a
    struct; `read` adds the struct to a report, and returns True if it has only usage.

    `openings` are possible beginnings of the object with the usage, `key` is the key of usage with its quotes.
    `counts_unread` is False if unreadable events have no billable text.
    """

    __slots__ = ("_counts_unread", "_decode", "_key", "_openings", "_read", "_shape")

    def __init__(
        self,
        shape: Any,
        read: Callable[[Any, Report], bool],
        *,
        openings: Sequence[bytes] = (b"{",),
        key: bytes = b'"usage"',
        counts_unread: bool = True,
    ) -> None:
        self._shape, self._read = shape, read
        self._decode = msgspec.json.Decoder(shape).decode
        self._openings, self._key = openings, key
        self._counts_unread = counts_unread

    def observe(self, data: bytes, report: Report, tree: Any = UNSET) -> bool:
        """See `ClientAPI.observe`."""
        if data == b"[DONE]":
            return False
        if tree is not UNSET:
            try:
                return self._read(convert(tree, self._shape), report)
            except (msgspec.ValidationError, RecursionError):
                pass  # the decoder also accepts 1.0 for a whole number, and keeps arguments byte for byte
        try:
            said = self._decode(data)
        except UNREADABLE:
            if self._counts_unread:
                report.add_unread(data)
            return False
        return self._read(said, report)

    def observe_edges(self, head: bytes, tail: bytes, report: Report, inside: Mapping[int, bytes]) -> None:
        """See `ClientAPI.observe_edges`."""
        if (found := find(head, tail, inside, self._openings, key=self._key)) is not None:
            self.observe(found, report)
