"""The usage in an event that is too long to be read whole: from its end, its beginning, or where it was found inside.

Text of a model cannot pass for it. In a string the quotes are escaped, and deeper in the event the rest does not close.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from extproc.words.dialect import Report

_MOST = 16  # places that are tried
_BLANK = b" \t\r\n"
_CLOSING = {ord("{"): ord("}"), ord("["): ord("]")}
_decode = msgspec.json.Decoder(dict[str, Any] | list[Any]).decode
_raw_decode = json.JSONDecoder().raw_decode


class ReadsEdges:
    """A dialect that reads the usage of an event which is too long to be read whole."""

    openings: Sequence[bytes] = (b"{",)
    """Ways in which the object with the usage can begin."""
    usage_key: bytes = b'"usage"'

    def observe(self, data: bytes, report: Report) -> bool:
        """See `ClientAPI.observe`."""
        raise NotImplementedError

    def observe_edges(self, head: bytes, tail: bytes, report: Report, inside: Mapping[int, bytes]) -> None:
        """See `ClientAPI.observe_edges`."""
        if (found := find(head, tail, inside, self.openings, key=self.usage_key)) is not None:
            self.observe(found, report)


def edges_reader(
    observe: Callable[[bytes, Report], bool], openings: Sequence[bytes] = (b"{",), key: bytes = b'"usage"'
) -> Callable[[bytes, bytes, Report, Mapping[int, bytes]], None]:
    """`ClientAPI.observe_edges` of a module. `openings` are the ways in which the object with the usage can begin."""

    def observe_edges(head: bytes, tail: bytes, report: Report, inside: Mapping[int, bytes]) -> None:
        if (found := find(head, tail, inside, openings, key=key)) is not None:
            observe(found, report)

    return observe_edges


def find(
    head: bytes,
    tail: bytes,
    inside: Mapping[int, bytes],
    openings: Sequence[bytes] = (b"{",),
    *,
    key: bytes = b'"usage"',
) -> bytes | None:
    """A document like the event, made of its usage and the fields behind it, or before it; None where it has none.

    `openings` are the ways in which the object with the usage can begin, `key` is the usage's name with its quotes.
    """
    for document in (*_ends(tail, openings, key), *_beginnings(head, key), *_insides(inside, openings, key)):
        try:
            _decode(document)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        return document
    return None


def _ends(tail: bytes, openings: Sequence[bytes], key: bytes) -> Iterator[bytes]:
    at = len(tail)
    for _ in range(_MOST):
        at = tail.rfind(key, 0, at)
        if at < 0:
            return
        for opening in openings:
            yield opening + tail[at:]


def _beginnings(head: bytes, key: bytes) -> Iterator[bytes]:
    at = 0
    for _ in range(_MOST):
        at = head.find(key, at)
        if at < 0:
            return
        at += len(key)
        value = head[at:].lstrip(_BLANK + b":")
        if size := _length(value):
            yield head[: len(head) - len(value) + size] + b"}"


def _insides(inside: Mapping[int, bytes], openings: Sequence[bytes], key: bytes) -> Iterator[bytes]:
    for opening in sorted(openings, key=len):
        brackets = bytes(_CLOSING[byte] for byte in reversed(opening) if byte in _CLOSING)
        value = inside.get(len(brackets), b"").lstrip(_BLANK)
        if size := _length(value):
            yield b"%b%b:%b%b" % (opening, key, value[:size], brackets)


def _length(text: bytes) -> int:
    """Bytes of the JSON value that `text` begins with, 0 for none."""
    try:
        return _raw_decode(text.decode("latin-1"))[1]
    except (ValueError, RecursionError):
        return 0
