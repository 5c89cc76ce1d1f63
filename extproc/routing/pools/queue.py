"""Requests that wait for room at an endpoint: the highest priority first, and consumers of one priority in turn.

A full queue gives way to a request of a higher priority, and to one of a consumer with fewer waiting requests: the
latest request of the consumer with most leaves. So no consumer can keep others out by asking first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Ticket:
    """A waiting request. `wake` gets True when there is room, False when another request takes its place."""

    consumer: str
    priority: int
    wake: Callable[[bool], None]


class Queue:
    """Up to `most` waiting requests."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._count = 0
        self._turns: dict[int, dict[str, deque[Ticket]]] = {}  # by priority, then by consumer in the order of turns

    def __len__(self) -> int:
        return self._count

    def join(self, ticket: Ticket) -> bool:
        """Add a request at the end of its consumer's. False when there is no place for it."""
        if self._count >= self.most and not self._displace(ticket):
            return False
        self._turns.setdefault(ticket.priority, {}).setdefault(ticket.consumer, deque()).append(ticket)
        self._count += 1
        return True

    def leave(self, ticket: Ticket) -> None:
        """Remove a request that waits no longer. A request that has left before stays so."""
        mine = self._turns.get(ticket.priority, {}).get(ticket.consumer)
        if mine is not None and ticket in mine:
            mine.remove(ticket)
            self._drop(ticket)

    def serve(self) -> bool:
        """Wake the request whose turn it is. False when none waits."""
        if not self._count:
            return False
        turns = self._turns[max(self._turns)]
        consumer, mine = next(iter(turns.items()))
        ticket = mine.popleft()
        del turns[consumer]
        turns[consumer] = mine  # the consumer's next turn comes after those of all others
        self._drop(ticket)
        ticket.wake(True)
        return True

    def _drop(self, ticket: Ticket) -> None:
        self._count -= 1
        turns = self._turns[ticket.priority]
        if not turns[ticket.consumer]:
            del turns[ticket.consumer]
        if not turns:
            del self._turns[ticket.priority]

    def _displace(self, ticket: Ticket) -> bool:
        """Send the latest request of the consumer with most away, if `ticket` deserves its place more."""
        if not self._turns:
            return False
        lowest = min(self._turns)
        turns = self._turns[lowest]
        mine = max(turns.values(), key=len)
        own = len(turns.get(ticket.consumer, ()))
        if lowest > ticket.priority or (lowest == ticket.priority and len(mine) <= own + 1):
            return False
        victim = mine.pop()
        self._drop(victim)
        victim.wake(False)
        return True
