"""The usage in an event that is too long to be read whole: from its end, or its beginning.

Text of a model cannot pass for it. In a string the quotes are escaped, and deeper in the event the rest does not close.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

_MOST = 16  # places that are tried
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_raw_decode = json.JSONDecoder().raw_decode


def find(head: bytes, tail: bytes, openings: Sequence[bytes] = (b"{",), *, key: bytes = b'"usage"') -> bytes | None:
    """A document like the event, made of its usage and the fields behind it, or before it; None where it has none.

    `openings` are the ways in which the object with the usage can begin, `key` is the usage's name with its quotes.
    """
    for document in (*_ends(tail, openings, key), *_beginnings(head, key)):
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
        value = head[at:].lstrip(b" \t\r\n:")
        try:
            _, size = _raw_decode(value.decode("latin-1"))
        except (ValueError, RecursionError):
            continue
        yield head[: len(head) - len(value) + size] + b"}"
