"""The latest exchanges in memory, for operators."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from operator import itemgetter
from typing import Any

Entry = Mapping[str, Any]


class Recent:
    """The latest `most` exchanges of consumers, and the latest `strangers` of clients without a valid key, in order.

    It is written on the event loop and read on any thread.
    """

    def __init__(self, most: int, strangers: int) -> None:
        self._number = count()
        self._known: deque[tuple[int, Entry]] = deque(maxlen=most)
        self._strangers: deque[tuple[int, Entry]] = deque(maxlen=strangers)

    def add(self, entry: Entry, *, known: bool) -> None:
        (self._known if known else self._strangers).append((next(self._number), entry))

    def drop(self, which: Callable[[Entry], bool]) -> None:
        """Forget the entries for which `which` returns True."""
        for name in ("_known", "_strangers"):
            kept = getattr(self, name)
            setattr(self, name, deque((each for each in kept if not which(each[1])), kept.maxlen))

    def __len__(self) -> int:
        return len(self._known) + len(self._strangers)

    def __iter__(self) -> Iterator[Entry]:
        """All entries, the oldest first."""
        both = sorted([*list(self._known), *list(self._strangers)], key=itemgetter(0))  # list() of a deque is atomic
        return iter([entry for _, entry in both])
