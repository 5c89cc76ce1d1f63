"""Coroutines whose first step runs outside of a task, and which become one only if they wait.

A task for every message costs a quarter of what the transport costs; most handlers never wait.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Begun(Coroutine[Any, Any, T]):
    """A coroutine after its first step, which ended by waiting for `waits_for`: a task may go on from there.

    A class of its own, not a generator around the coroutine: a task that is cancelled before it ran throws into a
    generator that has not begun, and the coroutine inside would not learn that it was cancelled.
    """

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for: tuple[Any] | None = (waits_for,)

    def send(self, value: Any) -> Any:
        if (first := self._waits_for) is not None:
            self._waits_for = None
            return first[0]
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        self._waits_for = None
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        raise TypeError("only a task goes on with it")
