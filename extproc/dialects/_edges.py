"""Usage in an event too long to be read whole: from its end, its beginning, or a place that the scan found.

A model's text cannot pass for usage: quotes in a string are escaped, and deeper in the event the remaining text has too
many closing brackets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from extproc.wire.framing import UNREADABLE

_MOST = 16  # places tried
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
    """A shorter document like the event, of its usage and the fields behind or before it; None without usage.

    `openings` are possible beginnings of the object with the usage, `key` is the key of usage with its quotes.
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
    """Bytes of the JSON value at the beginning of `text`; 0 for none."""
    try:
        return _raw_decode(text.decode("latin-1"))[1]
    except (ValueError, RecursionError):
        return 0
