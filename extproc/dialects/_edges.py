"""The usage in an event that is too long to be read whole: from its end, its beginning, or where it was found inside.

Text of a model cannot pass for it. In a string the quotes are escaped, and deeper in the event the rest does not close.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from extproc.wire.framing import UNREADABLE

_MOST = 16  # places that are tried
_BLANK = b" \t\r\n"
_CLOSING = {ord("{"): ord("}"), ord("["): ord("]")}
_decode = msgspec.json.Decoder(dict[str, Any] | list[Any]).decode
_raw_decode = json.JSONDecoder().raw_decode


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
        except UNREADABLE:
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
