"""Consecutive events that differ in one text alone, read as one frame.

A provider that sends one letter in each event costs a step for each letter, although all other bytes repeat. A `Run`
knows the bytes before the text and behind it. One search finds all events of a row, and one replacement joins their
texts. The frame keeps the original bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from extproc.wire.framing import Frame
from extproc.wire.framing.json import InvalidJSON, parse
from extproc.words.dialect import QUIET
from extproc.words.said import is_long

_SAME = QUIET | {"role"}
"""Fields that add nothing when their text is repeated."""
_DEPTH = 32
_LONGEST = 2048  # most bytes of an event beside its text
_FEWEST = 4  # fewest events of a row
# Characters of a JSON string: complete UTF-8, and escapes of a whole character.
_TEXT = (
    rb"(?:[ !#-\[\]-~]++|\\(?:[\"\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}"
    rb"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|[\xc2-\xdf][\x80-\xbf]"
    rb"|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})*+"
)

JSONPath = Sequence[str | int]
"""Path to a text in an event: field names, and 0 for the only item of a list."""


class Run:
    """Finds events like one seen before. `head` and `tail` are its bytes around the text; `front` and `behind` are the
    bytes of its data around the text.
    """

    __slots__ = ("_behind", "_between", "_find", "_front", "_head", "_tail")

    def __init__(self, head: bytes, tail: bytes, front: bytes, behind: bytes) -> None:
        self._head, self._tail = head, tail
        self._front, self._behind = front, behind
        self._between = tail + head
        # A CR at the end may be half a CRLF
        whole = rb"(?!\n|\Z)" if tail.endswith(b"\r") else b""
        event = re.escape(head) + _TEXT + re.escape(tail) + whole
        self._find = re.compile(rb"(?:%b){%d,}+" % (event, _FEWEST)).match

    def is_like(self, raw: bytes) -> bool:
        """True when this run finds the event. `raw` includes the empty bytes in front of the event."""
        return raw.startswith(self._head) and raw.endswith(self._tail)

    def take(self, buffer: bytes, start: int) -> Frame | None:
        """One frame of the row of events at `start`; None without a row."""
        found = self._find(buffer, start)
        if found is None:
            return None
        raw = found[0]
        texts = raw[len(self._head) : len(raw) - len(self._tail)].split(self._between)
        count = len(texts) - texts.count(b"")
        return Frame(raw, self._front + b"".join(texts) + self._behind, events=max(1, count))


def run_of(before: bytes, raw: bytes, data: bytes, places: Sequence[JSONPath]) -> Run | None:
    """The run of an event that has only a text at one of the `places`; None for another event. `before` are empty bytes
    in front of each event.
    """
    if len(before) + len(raw) > _LONGEST or raw.count(data) != 1 or not raw.endswith((b"\n", b"\r")):
        return None
    try:
        tree = parse(data, _DEPTH)
    except InvalidJSON:
        return None
    for place in (*places, *_continued(tree)):
        if _says_only(tree, place):
            key = b'"%b"' % str(place[-1]).encode()
            found = [*re.finditer(re.escape(key) + rb'[ \t]*+:[ \t]*+"(%b)"' % _TEXT, data)]
            if len(found) == data.count(key) == 1:
                start, end = found[0].span(1)
                at = raw.index(data)
                return Run(before + raw[: at + start], raw[at + end :], data[:start], data[end:])
    return None


def _continued(tree: Any) -> Iterator[JSONPath]:
    """Guessed places of text in events of an unknown API. A call's name and input are never split, so they are
    excluded.
    """
    if isinstance(tree, dict):
        yield ("delta",)
        if isinstance(delta := tree.get("delta"), dict):
            yield from [("delta", name) for name in delta if name not in ("name", "input")]


def _says_only(tree: Any, place: JSONPath) -> bool:
    """True when the text at `place` is the only content of the event."""
    if isinstance(tree, dict) and not str(tree.get("type", "delta")).endswith("delta"):
        return False
    for depth, name in enumerate(place):
        if isinstance(name, int):
            fits = isinstance(tree, list) and len(tree) == 1
        else:
            fits = isinstance(tree, dict) and name in tree
            fits = fits and not any(_says(each, value, depth) for each, value in tree.items() if each != name)
        if not fits:
            return False
        tree = tree[name]
    return isinstance(tree, str)


def _says(name: str, value: Any, depth: int) -> bool:
    """True when a field beside the text has content that repetition does not make redundant. An id below the top level
    may begin a call.
    """
    if type(value) is int:
        return is_long(value) and name != "created"
    if isinstance(value, str):
        return name not in _SAME or (name == "id" and depth > 0)
    return value not in (None, [], {}) and name != "thought"
