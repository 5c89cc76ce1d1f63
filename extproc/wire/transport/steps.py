"""Coroutines whose first step runs outside of a task.

They become a task only if they wait, and most handlers never wait. A task for every message would cost a quarter of the
transport's time.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Begun(Coroutine[Any, Any, T]):
    """A coroutine after its first step, which waits for `waits_for`. A task runs its later steps.

    A class, not a generator around the coroutine: a task cancelled before its first step would throw into a generator
    not yet started, and the coroutine inside would not be cancelled.
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
