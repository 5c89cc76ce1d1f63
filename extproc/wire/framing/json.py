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
    """Read `body` strictly. `tree` is its JSON if already parsed. Raises InvalidJSON."""
    return parse_named(body, max_depth, max_nodes, tree=tree)[0]


def parse_named(
    body: bytes, max_depth: int, max_nodes: float = math.inf, *, tree: Any = UNSET
) -> tuple[Any, Collection[str]]:
    """`parse`, with the key names of all objects. Raises InvalidJSON."""
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
    """The number of keys, of list items, and of levels of objects and lists. Adds the keys to `names`."""
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
    r"""False only when the text has as many keys as the tree, so no key is duplicated.

    Every key ends with `":`. Inside a string those two characters read `\":`, which is subtracted. A space before a
    colon, or a backslash before the quote, could hide a key: such a body takes the slow check. A string that begins
    with a colon counts as an extra key and takes the slow check, too. The count is never too low.
    """
    if b'\\":' in body:
        if b'\\\\":' in body:
            return True
        found = body.count(b'":') - body.count(b'\\":')
    else:
        found = body.count(b'":')
    # Four `in` tests: a generator would take as long as the rest of this function
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
    """A plain answer: one event when it ends. Beyond `limit` bytes the answer passes in pieces, without data.

    `hold` reserves room for a number of bytes, and frees it for a negative one. False means that there is no room: the
    answer then passes in pieces, too.
    """

    __slots__ = ("_body", "_edges", "_held", "_hold", "_key", "_limit", "empty", "empty_limit")

    def __init__(
        self, limit: int = 10 << 20, hold: Callable[[int], bool] = lambda _size: True, key: bytes = USAGE
    ) -> None:
        self.empty, self.empty_limit = 0, limit
        self._limit = limit
        self._hold = hold
        self._key = key  # key of usage in a long answer
        self._held = 0
        # Pieces are added in place: a list of small bytes objects would take many times their size.
        self._body = bytearray()
        self._edges: Edges | None = None  # edges of an answer over the limit

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
        """Drop the collected bytes and free their room."""
        self._body = bytearray()
        self._hold(-self._held)
        self._held = 0

    def end(self) -> Sequence[Frame]:
        if self._edges is not None:
            return [Frame(b"", None, edges=self._edges)]
        raw = bytes(self._body)
        self.let_go()
        return [Frame(raw, raw.removeprefix(BOM))] if raw else []
