"""Text inside text: base64, base32, hexadecimal digits and escapes, decoded once.

A detector reads the decoded text like the text around it. The span of a finding in it is the whole encoded run.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import unquote

from extproc.guardrails._patterns import compiled

_MOST = 64  # most runs decoded in one text
_LONGEST = 1 << 20  # most characters of one run
_LEAST_HEX = 32  # fewest hexadecimal digits of a run
_CUT = 3  # most bytes of a character that is cut off
_PROBE = 64  # characters of a run that are decoded first, as a test

_WORD = "[A-Za-z0-9_.:=@-]"
RUNS = (
    r"[A-Za-z0-9+/_-]{24,}={0,2}",
    r"(?:[A-Za-z0-9_.~!*'()+-]{0,24}%[0-9A-Fa-f]{2}){3,}[A-Za-z0-9_.~!*'()+-]*",
    rf"{_WORD}{{0,24}}(?:\\(?:u[0-9A-Fa-f]{{4}}|x[0-9A-Fa-f]{{2}}){_WORD}{{0,24}}){{3,}}",
    rf"{_WORD}{{0,24}}(?:&#(?:[0-9]{{2,6}}|[xX][0-9A-Fa-f]{{2,5}});{_WORD}{{0,24}}){{3,}}",
)
"""Patterns of runs that may hold text."""
_hex = re.compile(r"(?:[0-9a-f]{2})+|(?:[0-9A-F]{2})+").fullmatch
_backslash = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2}))").sub
_base32 = re.compile(r"(?:[A-Z2-7]{8})*(?:[A-Z2-7]{2}|[A-Z2-7]{4,5}|[A-Z2-7]{7})?").fullmatch
_readable = re.compile(r"[\t\n\r\x20-\x7e\u00a0-\U0010ffff]+").fullmatch
_plain_word = re.compile(r"[A-Za-z]+|[0-9]+|[a-z0-9]+(?:[-_][a-z0-9]+)+|[-_+/=]+").fullmatch


def inner(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The readable texts that are encoded in `text`, each with the span of its run."""
    return unwrapped(text, compiled(RUNS).search(text))


def unwrapped(text: str, runs: Iterable[tuple[int, tuple[int, int]]]) -> Iterator[tuple[str, tuple[int, int]]]:
    """The same, from the matches of `RUNS`."""
    decoded = 0
    for index, (start, end) in runs:
        if end - start > _LONGEST:
            continue
        run = text[start:end]
        found = _DECODERS[index](run)
        if found is not None and found != run:
            yield found, (start, end)
            if (decoded := decoded + 1) == _MOST:
                return


def _base64(run: str) -> str | None:
    if _hex(run):
        return _text(bytes.fromhex(run)) if len(run) >= _LEAST_HEX else None
    if _plain_word(run):
        return None
    run = run.rstrip("=")
    if _base32(run) and (found := _from_base32(run)) is not None:
        return found
    run = run.replace("-", "+").replace("_", "/")
    if _bytes(run[:_PROBE]) is None:
        return None
    return _bytes(run)


def _bytes(run: str) -> str | None:
    run = run[: len(run) // 4 * 4 + (len(run) % 4 if len(run) % 4 > 1 else 0)]
    try:
        data = binascii.a2b_base64(run + "=" * (-len(run) % 4))
    except binascii.Error:
        return None
    return _text(data)


def _from_base32(run: str) -> str | None:
    if _text(base64.b32decode(run[:_PROBE] + "=" * (-len(run[:_PROBE]) % 8))) is None:
        return None
    return _text(base64.b32decode(run + "=" * (-len(run) % 8)))


def _text(data: bytes) -> str | None:
    """`data` as text, if it is readable. A character cut off at the end is left out."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if len(data) - error.start > _CUT:
            return None
        text = data[: error.start].decode()
    return text if _readable(text) else None


def _unescaped(run: str) -> str:
    return _backslash(lambda match: chr(int(match[1] or match[2], 16)), run)


def _unreferenced(run: str) -> str:
    from html import unescape  # noqa: PLC0415 - its table of names takes memory

    return unescape(run)


_DECODERS: Sequence[Callable[[str], str | None]] = (_base64, unquote, _unescaped, _unreferenced)  # ordered as RUNS
