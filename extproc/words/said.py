"""The text of an answer, as pieces; a text may continue over many events.

A string below a `delta` is a piece of a channel, even if no description of the API knows the string. Vendors add
fields, and a match split over two events would be missed if each event were judged alone. The channel of an unknown
string is its path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

_LONG = 1_000_000

ANSWER, CALL = "answer", "call"
"""Values of `Piece.whole`: a text that is complete with the last piece of its channel."""


@dataclass(slots=True)
class Piece:
    """A piece of text in an event of an answer: `holder[key]` is a string, or a long number.

    The pieces of one `channel` are one text over several events. A channel begins with the number of its choice or
    output item. A piece without a channel is a separate text.
    """

    where: str
    holder: Any
    key: str | int
    channel: tuple[Any, ...] | None = None
    call: bool = False  # True: part of a tool call
    name: bool = False  # True: the name of the called tool
    json: bool = False  # True: the text is JSON
    again: bool = False  # True: it repeats text of other events
    # The same text in another form: its holder, its key, and its replacement.
    beside: tuple[Any, str, Any] | None = None
    of: tuple[Any, ...] | None = None  # key of a call whose name and arguments are in several events
    # ANSWER: the channel, or a piece without one, is the answer itself, without reasoning, refusal or call. CALL: it is
    # the complete arguments of a call.
    whole: str = ""
    signed: bool = False  # True: the provider may sign the text, and then refuses a changed one in the next request
    unknown: bool = False  # True: no description knows the channel, so its first piece does not end other texts

    @property
    def value(self) -> str:
        return str(self.holder[self.key])


@dataclass(slots=True, frozen=True)
class Closed:
    """Channels that begin with `channel` are complete."""

    channel: tuple[Any, ...]


@dataclass(slots=True, frozen=True)
class Called:
    """A call whose arguments are an object, in one event. The strings of the arguments are pieces, too."""

    where: str
    tool: Any  # the tool's name from the provider
    arguments: Any
    named: bool = True  # True: the name is a piece, too


@dataclass(slots=True, frozen=True)
class ArgumentPart:
    """Part of a call whose arguments arrive value by value. `channel` is the choice's: calls follow one another there,
    and a part without a tool's name continues the latest call.
    """

    where: str
    channel: tuple[Any, ...]
    tool: Piece | None  # the tool's name
    values: Sequence[tuple[tuple[str | int, ...], Any, Piece | None]]  # path and value; the piece, for a text or number
    ends: bool  # True: the call is complete


@dataclass(slots=True)
class Arguments:
    """Arguments of a call, collected value by value."""

    _values: dict[tuple[str | int, ...], list[Any]] = field(default_factory=dict)
    size: int = 0  # characters of texts, plus the count of other values

    def put(self, path: tuple[str | int, ...], value: Any) -> None:
        """Add a value, or continue the text at `path`, which begins with a name."""
        self._values.setdefault(path, []).append(value)
        self.size += len(value) if isinstance(value, str) else 1

    def tree(self) -> dict[str, Any]:
        """The arguments so far. A value whose path conflicts with earlier values gets an own entry under the same name,
        so that no rule for an argument misses it.
        """
        tree: dict[str, Any] = {}
        for path, values in self._values.items():
            value = "".join(values) if all(isinstance(each, str) for each in values) else values[-1]
            if not _placed(tree, path, value):
                name = next(step for step in reversed(path) if isinstance(step, str))
                tree[".".join(("$", *map(str, path)))] = {name: value}
        return tree


def _placed(tree: dict[str, Any], path: Sequence[str | int], value: Any) -> bool:
    node: Any = tree
    for step, following in pairwise(path):
        child = _child(node, step)
        if child is None and not _set(node, step, child := [] if isinstance(following, int) else {}):
            return False
        if not isinstance(child, dict | list):
            return False
        node = child
    return not isinstance(_child(node, path[-1]), dict | list) and _set(node, path[-1], value)


def _child(node: Any, step: str | int) -> Any:
    if isinstance(node, dict):
        return node.get(step)
    return node[step] if isinstance(node, list) and isinstance(step, int) and step < len(node) else None


def _set(node: Any, step: str | int, value: Any) -> bool:
    """Set a child. False when the node cannot hold it: a caller could otherwise make a list of any length."""
    if isinstance(node, list):
        if not isinstance(step, int) or step > len(node):
            return False
        node[step : step + 1] = [value]
    elif isinstance(step, int):
        return False
    else:
        node[step] = value
    return True


def is_long(value: Any) -> bool:
    """True for a number long enough to be searched as text; shorter ones cannot hide data."""
    return type(value) in (int, float) and abs(value) >= _LONG


_Items = Sequence[tuple[Any, Any]]
DELTA = "delta"
"""Name of the object or string in a stream event that continues earlier events, in every streaming API."""


def loose(
    value: Any,
    where: str,
    quiet: frozenset[str],
    *,
    without: tuple[str, ...] = (),
    call: bool = False,
    again: bool = False,
    numbers: bool = False,
    channel: tuple[Any, ...] | None = None,
    known: bool = False,
) -> Iterator[Piece]:
    """Strings below `value`, in order, and with `numbers` every long number. Skips fields in `quiet`, and top-level
    fields in `without`.

    Each string is a separate text. With `channel`, or below a `delta`, it belongs to the channel of its path, with the
    `index` of list items in the path. List items without an `index` are one text, because each event has new lists.
    `known`: a description of the API knows these channels.
    """
    stack: list[tuple[Any, str, tuple[Any, ...] | None]] = [(value, where, channel)]
    while stack:
        node, path, line = stack.pop()
        items: _Items
        if isinstance(node, dict):
            items = [
                item for item in node.items() if item[0] not in quiet and not (node is value and item[0] in without)
            ]
        elif isinstance(node, list):
            items = list(enumerate(node))
        else:
            continue
        deeper = []
        for key, item in items:
            if isinstance(item, dict | list):
                if item:
                    at = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"
                    deeper.append((item, at, _continued(line, key, item, at)))
            elif (isinstance(item, str) and item) or (numbers and is_long(item)):
                yield Piece(
                    f"{path}.{key}",
                    node,
                    key,
                    _continued(line, key, item, path),
                    call=call,
                    again=again,
                    unknown=not known,
                )
        stack += reversed(deeper)


def apart(holder: dict[str, Any], key: str, where: str, channel: tuple[Any, ...]) -> Iterator[Piece]:
    """Tokens with log probabilities under `holder[key]`, whose text the event does not have. Chosen tokens are one
    channel, alternatives another. A finding removes all of them.
    """
    for piece in loose(holder.get(key), f"{where}.{key}", frozenset(), channel=(*channel, key), known=False):
        piece.beside = (holder, key, None)
        yield piece


def _continued(line: tuple[Any, ...] | None, key: Any, item: Any, where: str) -> tuple[Any, ...] | None:
    """The channel of `item`, which stands under `key` of a parent with the channel `line`."""
    if line is None:
        return (where, DELTA) if key == DELTA else None
    if not isinstance(key, int):
        return (*line, key)
    index = item.get("index") if isinstance(item, dict) else None
    return (*line, index) if type(index) is int else line
