"""JSON bodies: strict reading of clients' requests, and a plain answer as a stream of one event.

A body that two parsers could read differently is refused: duplicate keys (RFC 8259, 4 leaves them undefined, so the
gateway could check one value and the provider use the other), invalid UTF-8, a byte order mark, lone surrogates, NaN,
numbers out of range, and nesting beyond a limit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from extproc.wire.framing import BOM, Frame
from extproc.wire.framing.edges import USAGE, Edges


class InvalidJSON(ValueError):  # noqa: N818
    """The body is not JSON that every parser reads alike. The message can be shown to the client."""


MARKED = "The body begins with a byte order mark: send UTF-8 without one."
_decode = msgspec.json.Decoder().decode


def parse(body: bytes, max_depth: int, max_nodes: float = math.inf, *, tree: Any = UNSET) -> Any:
    """Read `body` strictly. `tree` is its JSON, where it was parsed already. Raises InvalidJSON."""
    return parse_named(body, max_depth, max_nodes, tree=tree)[0]


def parse_named(
    body: bytes, max_depth: int, max_nodes: float = math.inf, *, tree: Any = UNSET
) -> tuple[Any, Collection[str]]:
    """As `parse`, with the names of the fields of all objects."""
    try:
        if tree is UNSET:
            tree = _decode(body)
    except RecursionError:
        raise InvalidJSON(f"The body is nested deeper than {max_depth} levels.") from None
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"The body is not valid UTF-8 (byte {error.start}).") from None
    except msgspec.DecodeError as error:
        if body.startswith(BOM):
            raise InvalidJSON(MARKED) from None
        raise InvalidJSON(f"The body is not valid JSON: {str(error).split(' - at ')[0]}.") from None
    names: set[str] = set()
    keys, items, depth = _measure(tree, names)
    if depth > max_depth:
        raise InvalidJSON(f"The body is nested {depth} levels deep; the limit is {max_depth}.")
    if keys + items >= max_nodes:
        raise InvalidJSON(f"The body has more than {max_nodes} values.")
    if _may_hold_duplicates(body, keys):
        _refuse_duplicates(body)
    return tree, names


def _measure(tree: Any, names: set[str]) -> tuple[int, int, int]:
    """Number of keys, of items of lists, and of levels of objects and lists. Adds the keys to `names`."""
    keys = items = depth = 0
    level = [tree] if isinstance(tree, dict | list) else []
    while level:
        depth += 1
        below: list[Any] = []
        node: Any
        for node in level:
            if type(node) is dict:
                keys += len(node)
                names.update(node)
                node = node.values()  # noqa: PLW2901
            else:
                items += len(node)
            below += [value for value in node if type(value) is dict or type(value) is list]
        level = below
    return keys, items, depth


def _may_hold_duplicates(body: bytes, keys: int) -> bool:
    r"""False only when the text has as many keys as the tree, so that none was given twice.

    Every key ends with `":`. Inside a string those two characters read `\":`, so they are taken off again. What could
    hide a key from this count, a space before the colon or a backslash before the quote, is sent to the slow check; a
    string that begins with a colon counts as a key too many and goes there as well. It never counts too few.
    """
    if b'\\":' in body:
        if b'\\\\":' in body:
            return True
        found = body.count(b'":') - body.count(b'\\":')
    else:
        found = body.count(b'":')
    # spelled out: a generator takes as long as the rest of this function
    return found != keys or b" :" in body or b"\t:" in body or b"\n:" in body or b"\r:" in body


def _refuse_duplicates(body: bytes) -> None:
    def pairs(items: list[tuple[str, Any]]) -> None:
        seen = set()
        for key, _ in items:
            if key in seen:
                raise InvalidJSON(f"The body holds the key {key[:64]!r} twice in one object.")
            seen.add(key)

    json.loads(body, object_pairs_hook=pairs)


class WholeBody:
    """A plain answer: one event when it ends. Beyond `limit` bytes it is passed on in pieces, without its data.

    So is one without room: `hold` takes room for so many bytes more, or less, and is False where there is none.
    """

    __slots__ = ("_body", "_edges", "_held", "_hold", "_key", "_limit", "empty", "empty_limit")

    def __init__(
        self, limit: int = 10 << 20, hold: Callable[[int], bool] = lambda _size: True, key: bytes = USAGE
    ) -> None:
        self.empty, self.empty_limit = 0, limit
        self._limit = limit
        self._hold = hold
        self._key = key  # of usage in a long answer
        self._held = 0
        self._body = bytearray()  # pieces are added in place: objects of small ones would be many times their size
        self._edges: Edges | None = None  # edges of an answer beyond the limit

    def feed(self, chunk: bytes) -> Sequence[Frame]:
        if self._edges is not None:
            self._edges.add(chunk)
            return [Frame(chunk, None)]
        self._body += chunk
        if len(self._body) <= self._limit and self._hold(len(chunk)):
            self._held += len(chunk)
            return []
        raw = bytes(self._body)
        self._edges = Edges(raw.removeprefix(BOM), self._key)
        self.let_go()
        return [Frame(raw, None)]

    def let_go(self) -> None:
        """Give back the room, and the bytes in it."""
        self._body = bytearray()
        self._hold(-self._held)
        self._held = 0

    def end(self) -> Sequence[Frame]:
        if self._edges is not None:
            return [Frame(b"", None, edges=self._edges)]
        raw = bytes(self._body)
        self.let_go()
        return [Frame(raw, raw.removeprefix(BOM))] if raw else []
