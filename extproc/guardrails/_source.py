"""Text in the form for detectors, with a mapping back to the text as it was written.

JSON inside a string is read with its escapes decoded. An edit replaces text inside strings, and whole numbers by
strings, so the JSON stays valid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from extproc.guardrails._base import Finding, Ruling


class Hit(NamedTuple):
    """A finding in a text: start, end, kind, and score from 0 to 1. `ruling` is set if a service decides about it."""

    start: int
    end: int
    kind: str
    score: float = 1.0
    ruling: Ruling | None = None

    @classmethod
    def of(cls, one: Finding) -> Hit:
        """A service's finding."""
        return cls(*one.span, one.kind, one.score, one if isinstance(one, Ruling) else None)

    @property
    def blocks(self) -> bool:
        """True if a service refuses the text whatever the action is."""
        return self.ruling is not None and self.ruling.blocks

    def shifted(self, by: int) -> Hit:
        return self._replace(start=self.start + by, end=self.end + by)

    def key(self) -> tuple[int, int, str, float]:
        """A key to sort by."""
        return self[:4]


Edit = tuple[int, int, str]
"""An edit: start and end in the text as it was written, and the replacement."""

QUOTED, NUMBER, BETWEEN = "q", "n", "-"
"""Classes of characters of JSON: inside a string, inside a number or a word, and anywhere else."""

_outside = re.compile(r'(?P<mark>")|(?P<between>[\s{}\[\]:,]+)|(?P<other>[^\s{}\[\]:,"]+)').match
_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_inside = re.compile(
    rf'(?s)(?P<run>[^"\\]+)|(?P<mark>")|(?P<pair>{_HIGH}{_LOW})|(?P<incomplete>(?:{_HIGH})?(?:\\(?:u.{{0,3}})?)?\Z)'
    r"|(?P<code>\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4})|(?P<invalid>\\u.{4})|(?P<short>\\.)"
).match
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPES: Mapping[str, Callable[[str], str]] = {
    "pair": lambda escape: bytes.fromhex(escape[2:6] + escape[8:]).decode("utf-16-be"),
    "code": lambda escape: chr(int(escape[2:], 16)),  # noqa: FURB166 - no prefix of Python's
    "invalid": lambda _escape: "\ufffd",  # half of a pair, or no number
    "short": lambda escape: _SHORT.get(escape[1], escape[1]),
}
_CLASSES = {"mark": BETWEEN, "between": BETWEEN, "other": NUMBER}
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Written:
    """A growing text: `text` in the form for detectors, `size` characters in the form as written.

    `back` has the place of each character of `text` as it was written, and `classes` its class; both are None if the
    text is not JSON.
    """

    text: str = ""
    size: int = 0
    back: list[int] | None = None
    classes: str = ""
    lexer: Lexer | None = None
    base: int = 0  # characters already forgotten; places count from the text's beginning

    @classmethod
    def json(cls) -> Written:
        return cls(back=[], lexer=Lexer())

    def add(self, piece: str) -> None:
        if self.lexer is None:
            self.text += piece
        else:
            assert self.back is not None
            text, classes = self.lexer.feed(piece, self.size, self.back)
            self.text += text
            self.classes += classes
        self.size += len(piece)

    @property
    def end(self) -> int:
        """Length of the text so far, in characters."""
        return self.base + len(self.text)

    def place(self, at: int, *, final: bool) -> int:
        """The place, in the text as written, of the character `at`."""
        if self.back is None:
            return at
        if at < self.end:
            return self.back[at - self.base]
        waiting = self.lexer.begun if self.lexer is not None and not final else -1
        return self.size if waiting < 0 else waiting

    def forget(self, at: int) -> None:
        """Forget the text before `at`."""
        count = at - self.base
        if count > 0:
            self.text = self.text[count:]
            if self.back is not None:
                del self.back[:count]
                self.classes = self.classes[count:]
            self.base = at

    def whole(self, at: int) -> int:
        """The beginning of the number that may end with the characters before `at`."""
        if self.back is None:
            return at
        while at > self.base and self.classes[at - self.base - 1] == NUMBER:
            at -= 1
        return at

    def edits(self, start: int, end: int, label: str, *, final: bool) -> Sequence[Edit]:
        """The edits that replace [start, end) by `label`."""
        if self.back is None:
            return [(start, end, label)]
        classes, base = self.classes, self.base
        start, end = max(start, base), min(end, self.end)
        if start >= end:
            return []
        while start > base and classes[start - base] == NUMBER == classes[start - base - 1]:
            start -= 1
        while end < self.end and classes[end - base - 1] == NUMBER == classes[end - base]:
            end += 1
        found: list[Edit] = []
        quoted = _encode(label).decode()
        while start < end:
            kind, stop = classes[start - base], start + 1
            while stop < end and classes[stop - base] == kind:
                stop += 1
            if kind != BETWEEN:
                said = ('""' if found else quoted) if kind == NUMBER else "" if found else quoted[1:-1]
                found.append((self.place(start, final=final), self.place(stop, final=final), said))
            start = stop
        return found


@dataclass(slots=True)
class Lexer:
    """Reads JSON piece by piece. Invalid JSON gives some text, too."""

    begun: int = -1  # the place of an incomplete escape; -1 without one
    _rest: str = ""  # the incomplete escape
    _inside: bool = False

    def feed(self, piece: str, at: int, back: list[int]) -> tuple[str, str]:
        """The text of `piece`, which begins at `at`, and its classes; its places are added to `back`."""
        out: list[str] = []
        classes: list[str] = []
        piece, at = self._rest + piece, at - len(self._rest)
        self._rest, self.begun = "", -1
        index, size = 0, len(piece)
        while index < size:
            match = _inside(piece, index) if self._inside else _outside(piece, index)
            assert match is not None, "a group matches any character"
            found, group = match[0], match.lastgroup or ""
            if group == "incomplete":
                self._rest, self.begun = found, at + index
                break
            if group == "mark":
                self._inside = not self._inside
            elif group in _ESCAPES:
                found = _ESCAPES[group](found)
            out.append(found)
            classes.append(_CLASSES.get(group, QUOTED) * len(found))
            back.extend(range(at + index, at + index + len(found)))
            index = match.end()
        return "".join(out), "".join(classes)


def render(piece: str, start: int, edits: Sequence[Edit]) -> str:
    """The text `piece`, written at `start`, after `edits`, sorted by their beginnings. A replacement stands at the
    beginning of its edit, unless an earlier edit covers that place.
    """
    end = start + len(piece)
    out: list[str] = []
    at = start
    for first, last, said in edits:
        if last <= start or first >= end:
            continue
        if first >= at:
            out += (piece[at - start : first - start], said)
            at = min(last, end)
        elif last > at:
            at = min(last, end)
    out.append(piece[at - start :])
    return "".join(out)
