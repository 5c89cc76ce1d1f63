"""The text of a file inside a request: base64, or a data URL, of text in any usual encoding."""

from __future__ import annotations

import binascii
import codecs
import re
from urllib.parse import unquote_to_bytes

_URL_SAFE = str.maketrans("-_", "+/")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks and their encodings, the longer marks first."""
_PROBE = 4096  # bytes in which zeros reveal UTF-16 and UTF-32 without a byte order mark
_control = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]").search


def text_of(value: str) -> str | None:
    """The text of a file; None for a file without text: a picture, a PDF, a packed file."""
    data = _bytes(value)
    return None if data is None else _decoded(data)


def _bytes(value: str) -> bytes | None:
    packed = value
    if value.startswith("data:"):
        head, _, packed = value.partition(",")
        if not head.rstrip().lower().endswith(";base64"):
            return unquote_to_bytes(packed)
        if "%" in packed:
            packed = unquote_to_bytes(packed).decode(errors="replace")
    packed = packed.translate(_URL_SAFE)
    try:
        return binascii.a2b_base64(packed + "=" * (-len(packed) % 4))
    except ValueError:
        return None


def _decoded(data: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace")
    if (wide := _wide(data[:_PROBE])) is not None:
        return data.decode(wide, errors="replace")
    if _control(data):
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")  # the usual encoding of older programs


def _wide(head: bytes) -> str | None:
    """The encoding of text whose characters mostly have one zero byte, or three."""
    size = len(head) // 4
    if size == 0 or b"\0" not in head:
        return None
    zeros = [head[place : 4 * size : 4].count(0) * 2 > size for place in range(4)]
    return {
        (False, True, True, True): "utf-32-le",
        (True, True, True, False): "utf-32-be",
        (False, True, False, True): "utf-16-le",
        (True, False, True, False): "utf-16-be",
    }.get((zeros[0], zeros[1], zeros[2], zeros[3]))
