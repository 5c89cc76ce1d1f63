"""The text of an answer: pieces, each of a text that goes on from event to event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_LONG = 1_000_000  # smaller numbers hide nothing

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
    call: bool = False  # of a call of a tool
    name: bool = False  # the name of the tool that is called
    json: bool = False  # the text is JSON
    again: bool = False  # it repeats what other events said
    beside: tuple[Any, str, Any] | None = None  # holder and key of the same text in another form, and its replacement
    of: tuple[Any, ...] | None = None  # the call, where its name and its arguments come in several events
    # ANSWER: its channel, or the piece where it has none, is the answer itself, with no reasoning, refusal or call.
    # CALL: it is all arguments of a call
    whole: str = ""

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


def loose(
    value: Any,
    where: str,
    quiet: frozenset[str],
    *,
    without: tuple[str, ...] = (),
    call: bool = False,
    again: bool = False,
    numbers: bool = False,
) -> Iterator[Piece]:
    """Every string below `value` as a text of its own, and with `numbers` every long number; nothing of the fields
    `quiet`, and of `without` at the top.
    """
    stack: list[tuple[Any, str]] = [(value, where)]
    while stack:
        node, path = stack.pop()
        items: Sequence[tuple[Any, Any]]
        if isinstance(node, dict):
            items = [
                item for item in node.items() if item[0] not in quiet and not (node is value and item[0] in without)
            ]
        elif isinstance(node, list):
            items = list(enumerate(node))
        else:
            continue
        for key, item in items:
            if isinstance(item, dict | list):
                if item:
                    stack.append((item, f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"))
            elif (isinstance(item, str) and item) or (numbers and type(item) in (int, float) and abs(item) >= _LONG):
                yield Piece(f"{path}.{key}", node, key, call=call, again=again)
