"""The cost of own hardware in each minute. Reports subtract the cost of requests from it, and the rest is the idle
share: both add up to hours times price at any moment, whenever a row arrives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from extproc.money.ledger.sql import Cursor
from extproc.upstream.prices import decimal

MINUTE = 60_000_000
"""Microseconds."""
MOST_GAP = 7 * 24 * 60
"""Minutes without a gateway, after which the hardware counts as switched off."""


@dataclass(slots=True, frozen=True)
class Minute:
    """The hardware of a provider in the minute that begins at `time`, in microseconds. `replicas` are thousandths, the
    `cost` is in nano-USD.
    """

    provider: str
    time: int
    replicas: int
    cost: int


def keep(cursor: Cursor, minutes: Sequence[Minute]) -> None:
    """Keep minutes that no other process has kept. Minutes before them in which no gateway ran cost what the latest
    known one did.
    """
    for minute in sorted(minutes, key=lambda each: each.time):
        for each in (*_missed(cursor, minute), minute):
            cursor.execute(
                "INSERT INTO capacity (provider, time, replicas, cost) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (provider, time) DO NOTHING",
                (each.provider, each.time, each.replicas, each.cost),
            )


def _missed(cursor: Cursor, minute: Minute) -> Iterator[Minute]:
    rows = cursor.rows(
        "SELECT time, replicas, cost FROM capacity WHERE provider = ? AND time >= ? AND time < ? "
        "ORDER BY time DESC LIMIT 1",
        (minute.provider, minute.time - MOST_GAP * MINUTE, minute.time),
    )
    for before, replicas, cost in [*rows]:
        for at in range(before + MINUTE, minute.time, MINUTE):
            yield Minute(minute.provider, at, replicas, cost)


def costs(cursor: Cursor, start: int, end: int) -> Mapping[str, int]:
    """Nano-USD by provider, of the minutes that begin from `start` to before `end`."""
    rows = cursor.rows(
        "SELECT provider, sum(cost) FROM capacity WHERE time >= ? AND time < ? GROUP BY provider ORDER BY provider",
        (start, end),
    )
    return {provider: int(cost) for provider, cost in rows}


def shown(cost: int, used: int) -> Mapping[str, str]:
    """A provider's hardware and the part that requests used, as JSON. The idle part is below zero where requests cost
    more than the hardware: it does more than its settings say.
    """
    return {"usd": decimal(cost), "used_usd": decimal(used), "idle_usd": decimal(cost - used)}
