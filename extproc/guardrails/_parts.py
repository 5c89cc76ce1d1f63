"""Calls whose arguments come value by value, put together until they are complete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from extproc.words.said import ArgumentPart, Arguments, Called, Piece


@dataclass(slots=True)
class _Call:
    name: tuple[Any, ...]  # channel of the call; the channels of its arguments begin with it
    where: str
    tool: str
    arguments: Arguments = field(default_factory=Arguments)
    open: bool = True


class Parts:
    """The latest call of each choice. `size` is the number of judged characters; a call continued after its end counts
    again.
    """

    def __init__(self) -> None:
        self.size = 0
        self._calls: dict[tuple[Any, ...], _Call] = {}
        self._count = 0

    def longer(self, limit: int) -> bool:
        """True if the calls are longer than `limit` characters."""
        return self.size + max((call.arguments.size for call in self._calls.values()), default=0) > limit

    def add(self, part: ArgumentPart) -> Iterator[Piece]:
        """The pieces of a part, each with its channel."""
        call = self._calls.get(part.channel)
        if part.tool is not None or (call is None and part.values):
            self._count += 1
            name = (*part.channel, "call", self._count)
            call = self._calls[part.channel] = _Call(name, part.where, part.tool.value if part.tool else "")
        if call is None:
            return
        if part.tool is not None:
            yield replace(part.tool, of=call.name)
        for path, value, piece in part.values:
            call.open = True
            call.arguments.put(path, value)
            if piece is not None:
                yield replace(piece, channel=(*call.name, *path), of=call.name)

    def complete(self, prefix: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Called]]:
        """The open calls of the choice `prefix`, or of all. They end here, unless a later part continues one."""
        for channel, call in self._calls.items():
            if call.open and channel[: len(prefix)] == prefix:
                call.open = False
                self.size += call.arguments.size
                yield call.name, Called(call.where, call.tool, call.arguments.tree())
