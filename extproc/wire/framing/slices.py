r"""Large JSON bodies, read in slices with a turn for other requests after each.

A decoder blocks the interpreter until it is done: up to half a second for 20 MiB of JSON. So the body is decoded in
pieces of at most `SLICE` bytes. A piece ends behind a comma outside of strings. The objects and lists open there are
its context. Each piece is completed to valid JSON. Before it, every container of its context opens again, with a
stand-in for its earlier children. Behind it come another stand-in and the closing brackets.

    [{"a":1,"b":[2,   context behind it: list, object, list   [{"a":1,"b":[2,  0]}]
    3],"c":4},        context behind it: list                 [{"…":[0,  3],"c":4},  0]

The children that a piece adds are moved into the containers of the whole. The stand-ins keep a piece valid only where
the whole is: `[1,]` and `[,1]` fail as they would in one piece.

A string longer than a slice is decoded in parts, cut between characters. A fraction stands for it in its piece. The
piece has no other number, because between two commas there is one scalar value.

Counts of values, levels, and each string's size bound the memory before a piece is decoded. Keys are counted twice, as
colons in the text and as keys in the tree; they differ when an object has a key twice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import msgspec

from extproc.wire.framing import BOM
from extproc.wire.framing.json import MARKED, InvalidJSON

LARGE = 256 << 10
"""Bytes above which a body is read in slices, and freed once the request was forwarded."""

SLICE = 128 << 10
"""Bytes read before other requests have a turn: about 2 ms."""

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# Matches a string's text: complete escapes, with both halves of a surrogate pair.
_text = re.compile(rb'(?:[^"\\]++|%s%s|(?!%s)\\u[0-9a-fA-F]{4}|\\[^u])*+' % (_HIGH, _LOW, _HIGH), re.DOTALL).match
_spaces = re.compile(rb"(%s)|[ \t\r\n]{16,}" % _STRING, re.DOTALL).sub
_has_spaces = re.compile(rb"[ \t\r\n]{16}").search
_key = re.compile(rb"[ \t\r\n]*:").match
_broad, _wide = re.compile("[\u0100-\uffff]").search, re.compile("[\U00010000-\U0010ffff]").search
_OTHERS = bytes(set(range(256)) - set(b'"[]{},:'))
_net = re.compile(rb"([\]}]*)([\[{]*)").fullmatch

_BEFORE, _BEHIND = (f"{name} {os.urandom(16).hex()}" for name in ("before", "behind"))
"""Keys of the stand-ins; random, so that no client can send them."""
_AGAIN: Mapping[type, bytes] = {dict: b'{"%b":' % _BEFORE.encode(), list: b"["}
_AND_SO_ON: Mapping[type, bytes] = {dict: b'"%b":0' % _BEHIND.encode(), list: b"0"}
_CLOSE: Mapping[type, bytes] = {dict: b"}", list: b"]"}
_KIND: Mapping[int, type] = {ord("{"): dict, ord("["): list}
_BLANK = b" \t\r\n"
_PLACE = b" 0.5 "  # stands for a long string
_MOST_BETWEEN = 1 << 20  # most bytes between two commas, without long strings and white space
_WALK = 5_000  # containers checked before other requests have a turn

_decode = msgspec.json.Decoder().decode


class SlicedReader:
    """Reads `body` as strictly as `json.parse`. Each step of `read` takes a slice; after the last, `root` is the value.

    `depth` and `nodes` limit levels and values. `text` limits the bytes of memory of one string with characters beyond
    Latin letters, which take 2 or 4 bytes each.
    """

    def __init__(self, body: bytes, *, depth: int, nodes: int, text: int) -> None:
        self.root: Any = None
        self.names: set[str] = set()  # keys of all objects
        self.nodes = 1
        self._body = body
        self._most_levels, self._most_nodes, self._most_text = depth, nodes, text
        self._open: list[Any] = []  # containers open at the end of the last piece
        self._keys = 0
        self._long: str | None = None  # the long string of the current piece

    def read(self) -> Iterator[None]:
        """Read a slice in each step. Raises InvalidJSON."""
        body, size = self._body, len(self._body)
        if body.startswith(BOM):
            raise InvalidJSON(MARKED)
        at, parts = 0, list[bytes]()
        while True:
            end = min(at + SLICE, size)
            masked = _masked(body[at:end])
            cut = self._find_cut(masked)
            if cut > 0:
                self._decode_piece(b"".join([*parts, body[at : at + cut]]), last=False)
                parts.clear()
                at += cut
            elif end == size:
                parts.append(body[at:])
                break
            elif (stop := _unfinished(masked)) > 0:
                part = body[at : at + stop]
                parts.append(_spaces(rb"\1 ", part) if _has_spaces(part) else part)
                if sum(map(len, parts)) > _MOST_BETWEEN:
                    raise InvalidJSON("The body is not JSON that can be read: there is too much between two commas.")
                at += stop
            elif self._long is not None:
                raise InvalidJSON("The body is not valid JSON: a string follows a string.")
            else:
                self._long, at = yield from self._read_long(at + 1)
                parts.append(_PLACE)
                while at < size and not body[at : at + SLICE].strip(_BLANK):
                    at += SLICE
                    yield
                if _key(body, at, at + SLICE):
                    raise InvalidJSON(f"The body has a key of more than {SLICE >> 10} KiB.")
            yield
        self._decode_piece(b"".join(parts), last=True)
        yield from self._check_tree()

    def _find_cut(self, masked: bytes) -> int:
        """The offset behind the slice's last comma outside of strings; 0 without one. Behind a long string, the first
        comma counts.
        """
        if self._long is not None:
            comma, quote = masked.find(b","), masked.find(b'"')
            return comma + 1 if quote < 0 or comma < quote else 0
        end, inside = len(masked), masked.count(b'"') % 2 == 1
        for _ in range(4 * self._most_levels):  # valid JSON has no more strings than this behind the last comma
            quote = masked.rfind(b'"', 0, end)
            if not inside and (comma := masked.rfind(b",", quote + 1, end)) >= 0:
                return comma + 1
            if quote < 0:
                break
            end, inside = quote, not inside
        return 0

    # --- a piece

    def _decode_piece(self, piece: bytes, *, last: bool) -> None:
        """Decode a piece and move its values into the whole."""
        opened, closed = self._measure(piece)
        here = self._open
        if closed > len(here) or (not last and closed == len(here) and not opened):
            raise InvalidJSON("The body is not valid JSON: it does not end where it should.")
        before = [_AGAIN[type(one)] for one in here]
        kinds: list[type] = [*map(type, here[: len(here) - closed]), *(_KIND[one] for one in opened)]
        if here:
            before.append(b"0,")
        after = []
        if not last:
            after = [_AND_SO_ON[kinds[-1]], *(_CLOSE[kind] for kind in reversed(kinds))]
        added = self._decoded(b"".join([*before, piece, *after]))
        below = [added]  # the piece's part of each open container
        for _ in here[1:]:
            below.append(_first(below[-1]))
        kept = len(here) - closed
        new, inner = list[Any](), below[kept - 1] if kept else None
        for byte in opened:
            inner = added if inner is None else _last(inner)
            if type(inner) is not _KIND[byte]:
                raise _twice()
            new.append(inner)
        if not last:
            _drop_last(inner)
        for whole, part in zip(here, below, strict=False):
            _merge(part, whole)
        if not here:
            self.root = added
        self._open = here[:kept] + new

    def _measure(self, piece: bytes) -> tuple[bytes, int]:
        """The brackets that a piece leaves open, and the number of earlier ones that it closes. Counts values and
        keys.
        """
        marks = b'"'.join(_masked(piece).split(b'"')[::2]).translate(None, _OTHERS)
        self._keys += marks.count(b":")
        opening = marks.count(b"[") + marks.count(b"{")
        self.nodes += marks.count(b",") + opening - marks.count(b"[]") - marks.count(b"{}")
        if self.nodes > self._most_nodes:
            raise InvalidJSON(f"The body has more than {self._most_nodes} values.")
        marks = marks.translate(None, b'",:')
        for _ in range(self._most_levels + 1):
            size = len(marks)
            marks = marks.replace(b"[]", b"").replace(b"{}", b"")
            if len(marks) == size:
                break
        else:
            raise self._too_deep()
        if (net := _net(marks)) is None:
            raise InvalidJSON("The body is not valid JSON: its brackets do not match.")
        self._check_levels(len(self._open) - len(net[1]) + len(net[2]))
        return net[2], len(net[1])

    def _check_levels(self, levels: int) -> None:
        if levels > self._most_levels:
            raise self._too_deep()

    def _too_deep(self) -> InvalidJSON:
        return InvalidJSON(f"The body is nested deeper than {self._most_levels} levels.")

    def _decoded(self, text: bytes) -> Any:
        try:
            if (long := self._long) is None:
                return _decode(text)
            self._long = None
            # The hook is no method: a decoder's reference to this object is invisible to the garbage collector, a leak.
            return msgspec.json.Decoder(float_hook=lambda _number: long).decode(text)
        except RecursionError:
            raise self._too_deep() from None
        except UnicodeDecodeError:
            raise InvalidJSON("The body is not valid UTF-8.") from None
        except msgspec.DecodeError as error:
            raise _invalid(error) from None

    # --- a string longer than a slice

    def _read_long(self, at: int) -> Generator[None, None, tuple[str, int]]:
        """The string whose text begins at `at`, and the offset behind its closing quote."""
        body, size = self._body, len(self._body)
        parts, characters, width = list[str](), 0, 1
        while True:
            end = min(at + SLICE, size)
            stop = body.find(b'"', at, end)
            if body.find(b"\\", at, end if stop < 0 else stop) >= 0:
                stop = _inside(body, at, end)
            elif stop < 0:
                stop = end
            ended = stop < size and body[stop] == ord('"')
            while not ended and at < stop < size and body[stop] & 0xC0 == 0x80:  # the cut would split a character
                stop -= 1
            if stop == at and not ended:
                raise InvalidJSON("The body is not valid JSON: a string is cut short, or has a broken escape.")
            try:
                part = _decode(b'"%b"' % body[at:stop])
            except UnicodeDecodeError:
                raise InvalidJSON("The body is not valid UTF-8.") from None
            except msgspec.DecodeError as error:
                raise _invalid(error) from None
            parts.append(part)
            characters += len(part)
            if width < 4 and not part.isascii():
                width = 4 if _wide(part) else 2 if _broad(part) else width
            if width > 1 and characters * width > self._most_text:
                raise InvalidJSON(f"A text of the body takes more than {self._most_text} bytes of memory.")
            if ended:
                return "".join(parts), stop + 1
            at = stop
            yield

    # --- the whole

    def _check_tree(self) -> Iterator[None]:
        """Check the number of levels and keys. Adds the keys to `names`."""
        keys, levels, names = 0, 0, self.names
        level = [self.root] if isinstance(self.root, dict | list) else []
        while level:
            levels += 1
            below: list[Any] = []
            for start in range(0, len(level), _WALK):
                node: Any
                for node in level[start : start + _WALK]:
                    if type(node) is dict:
                        keys += len(node)
                        names.update(node)
                        node = node.values()  # noqa: PLW2901
                    below += [value for value in node if type(value) is dict or type(value) is list]
                yield
            level = below
        if levels > self._most_levels:
            raise InvalidJSON(f"The body is nested {levels} levels deep; the limit is {self._most_levels}.")
        if keys != self._keys:
            raise _twice()


def _masked(text: bytes) -> bytes:
    """`text`, which begins outside of strings, with escaped quotes masked; the length stays."""
    if b"\\" not in text:
        return text
    return text.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def _unfinished(masked: bytes) -> int:
    """The offset of a string without an end; the length without one."""
    return masked.rfind(b'"') if masked.count(b'"') % 2 else len(masked)


def _inside(body: bytes, at: int, end: int) -> int:
    """The end of the complete characters and escapes from `at` on."""
    match = _text(body, at, end)
    assert match is not None, "it matches nothing, too"
    return match.end()


def _first(part: Any) -> Any:
    """The stand-in for a container's earlier children."""
    return part[0] if type(part) is list else part[_BEFORE]


def _last(part: Any) -> Any:
    if not part:
        raise _twice()
    return part[-1] if type(part) is list else next(reversed(part.values()))


def _drop_last(part: Any) -> None:
    """Remove the stand-in for a container's later children."""
    if type(part) is list:
        part.pop()
    elif part.pop(_BEHIND, None) is None:
        raise _twice()


def _merge(part: Any, whole: Any) -> None:
    if type(part) is list:
        whole.extend(part[1:])
        return
    del part[_BEFORE]
    size = len(whole) + len(part)
    whole.update(part)
    if len(whole) != size:
        raise _twice()


def _twice() -> InvalidJSON:
    return InvalidJSON("The body holds a key twice in one object.")


def _invalid(error: msgspec.DecodeError) -> InvalidJSON:
    return InvalidJSON(f"The body is not valid JSON: {str(error).split(' (byte')[0].split(' - at ')[0]}.")
