"""The text of an answer: pieces, each of a text that goes on from event to event.

A string below a `delta` is a piece of a channel, whether or not a description of the API knows it: vendors add fields,
and a text that is judged event by event hides whatever is split over two events. The channel of an unknown string is
its path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

_LONG = 1_000_000

ANSWER, CALL = "answer", "call"
"""Texts of an answer that are whole with the last piece of their channel, see `Piece.whole`."""


@dataclass(slots=True)
class Piece:
    """A piece of text in an event of an answer: `holder[key]` is a string, or a long number.

    The pieces of one `channel` follow each other from event to event and are one text; its first word is the choice, or
    the item, that it belongs to. Without a channel the piece is a text of its own.
    """

    where: str
    holder: Any
    key: str | int
    channel: tuple[Any, ...] | None = None
    call: bool = False  # True: it belongs to a call of a tool
    name: bool = False  # the name of the tool that is called
    json: bool = False  # the text is JSON
    again: bool = False  # it repeats what other events said
    beside: tuple[Any, str, Any] | None = None  # holder and key of the same text in another form, and its replacement
    of: tuple[Any, ...] | None = None  # the call, where its name and its arguments come in several events
    # ANSWER: its channel, or the piece where it has none, is the answer itself, with no reasoning, refusal or call.
    # CALL: it is all arguments of a call
    whole: str = ""
    signed: bool = False  # its provider may sign it, and then refuses it changed when it comes back
    unknown: bool = False  # no description knows its channel, so its first piece does not mean that other texts ended

    @property
    def value(self) -> str:
        return str(self.holder[self.key])


@dataclass(slots=True, frozen=True)
class Closed:
    """The channels that begin with `channel` are complete."""

    channel: tuple[Any, ...]


@dataclass(slots=True, frozen=True)
class Called:
    """A call whose arguments are an object, in one event. Their strings are pieces of their own, too."""

    where: str
    tool: Any  # its name, as the provider gave it
    arguments: Any
    named: bool = True  # its name is a piece of its own, too


@dataclass(slots=True, frozen=True)
class ArgumentPart:
    """A part of a call whose arguments come value by value. `channel` is that of the choice: its calls follow each
    other, and a part without the name of a tool continues the latest call.
    """

    where: str
    channel: tuple[Any, ...]
    tool: Piece | None  # its name
    values: Sequence[tuple[tuple[str | int, ...], Any, Piece | None]]  # path and value; the piece of a text or number
    ends: bool  # the call is complete


@dataclass(slots=True)
class Arguments:
    """Arguments of a call that come value by value."""

    _values: dict[tuple[str | int, ...], list[Any]] = field(default_factory=dict)
    size: int = 0  # characters of texts, and the number of other values

    def put(self, path: tuple[str | int, ...], value: Any) -> None:
        """Take a value, or more of the text at `path`, which begins with a name."""
        self._values.setdefault(path, []).append(value)
        self.size += len(value) if isinstance(value, str) else 1

    def tree(self) -> dict[str, Any]:
        """The arguments so far. A value whose path does not fit those before it gets a place of its own under the same
        name, so no rule for an argument misses it.
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
    """Set a child. False where the node cannot have it: the caller would make a list of any length otherwise."""
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
    """True for a number that may be searched as text. Smaller numbers hide nothing."""
    return type(value) in (int, float) and abs(value) >= _LONG


_Items = Sequence[tuple[Any, Any]]
DELTA = "delta"
"""Name of the object, or string, in an event that continues what earlier events began, in every API that streams."""


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
    """Every string below `value`, in its order, and with `numbers` every long number; nothing of the fields `quiet`,
    and of `without` at the top.

    Each is a text of its own, unless `channel` is given, or it stands below a `delta`: then it belongs to the channel
    of its path. Items of lists have their `index` in the path. Those without one are one text, because events have
    lists of their own. `known` is True where a description of the API knows these channels.
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
    """The tokens under `holder[key]`, the log probabilities of a text that its event does not have. The first string of
    each is a channel, so are those of the alternatives. A finding removes all of them.
    """
    for piece in loose(holder.get(key), f"{where}.{key}", frozenset(), channel=(*channel, key), known=False):
        piece.beside = (holder, key, None)
        yield piece


def _continued(line: tuple[Any, ...] | None, key: Any, item: Any, where: str) -> tuple[Any, ...] | None:
    """The channel of `item`, which stands under `key` of something with the channel `line`."""
    if line is None:
        return (where, DELTA) if key == DELTA else None
    if not isinstance(key, int):
        return (*line, key)
    index = item.get("index") if isinstance(item, dict) else None
    return (*line, index) if type(index) is int else line
