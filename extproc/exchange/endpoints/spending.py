"""`GET /v1/usage` and `GET /v1/budgets`: a consumer's own spending, and the room left in its budgets."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from extproc.money.budgets import BudgetSettings
from extproc.money.ledger import LedgerError
from extproc.operate.reports.reports import Reporter
from extproc.stores import StoreError
from extproc.words.actions import LocalReply
from extproc.words.errors import INVALID_REQUEST, OVERLOADED, RATE_LIMITED, STORE_UNAVAILABLE, Refusal
from extproc.words.exchange import Exchange

_REPORTS = 2
"""Usage reports in preparation, as many as the ledger prepares; one more is refused: 503 overloaded."""
_LOOKS = 4
"""Budget reports in preparation; one more is refused likewise."""
REPORTS = 30
"""Reports of one consumer in a minute, unless the settings say otherwise (`limits.reports`)."""
_MINUTE = 60.0  # seconds
_MOST_CONSUMERS = 10_000  # consumers whose reports are counted; beyond them the first are forgotten
_MOST_PARAMETERS = 64


class Rate:
    """The reports that each consumer may ask for in a minute: `most` at once, and then one each time its share of the
    minute has passed.
    """

    def __init__(self, most: int, now: Callable[[], float]) -> None:
        self._share = _MINUTE / most
        self._now = now
        # By consumer, the time when its minute is as good as unused; the longest silent consumer first.
        self._until: dict[str, float] = {}

    def check(self, consumer: str) -> None:
        """Count a report. Raises Refusal."""
        now = self._now()
        until = max(now, self._until.get(consumer, now)) + self._share
        if until - now > _MINUTE + self._share / 2:
            wait = math.ceil(until - now - _MINUTE)
            most = round(_MINUTE / self._share)
            message = f"There were more than {most} reports in a minute (limits.reports): try again in {wait} s."
            raise Refusal(RATE_LIMITED, message, headers={"retry-after": str(wait)})
        self._until.pop(consumer, None)
        self._until[consumer] = until
        while self._until[first := next(iter(self._until))] <= now or len(self._until) > _MOST_CONSUMERS:
            del self._until[first]


class Own:
    """Answers the two paths; leaves every other request alone. The report is the consumer's own, whatever the query
    asks for.
    """

    def __init__(
        self,
        reporter: Reporter,
        budgets: Sequence[BudgetSettings],
        most: int = REPORTS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reporter = reporter
        self._budgets = budgets
        self._rate = Rate(most, now)
        self._busy = 0
        self._looking = 0

    async def __call__(self, exchange: Exchange) -> LocalReply | None:
        if exchange.request.operation not in ("usage", "budgets"):
            return None
        self._rate.check(exchange.consumer.name)
        if exchange.request.operation == "usage":
            return _json(await self._usage(exchange))
        return _json(await self._counts(exchange))

    async def _counts(self, exchange: Exchange) -> object:
        _check_room(self._looking, _LOOKS)
        self._looking += 1
        try:
            return await self._reporter.budgets(self._budgets, who=exchange.consumer)
        except StoreError:
            raise Refusal(STORE_UNAVAILABLE, "The counters cannot be read now: try again in a moment.") from None
        finally:
            self._looking -= 1

    async def _usage(self, exchange: Exchange) -> object:
        _check_room(self._busy, _REPORTS)
        query = exchange.request.head.path.partition("?")[2]
        try:
            asked = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
            parameters = [(name, value) for name, value in asked if name not in ("consumer", "team", "format")]
        except ValueError:
            raise Refusal(INVALID_REQUEST, f"The query has more than {_MOST_PARAMETERS} parameters.") from None
        self._busy += 1
        work = asyncio.ensure_future(asyncio.to_thread(self._reporter.usage, parameters, exchange.consumer))
        work.add_done_callback(self._done)
        try:
            return await asyncio.shield(work)  # a thread goes on when the client disconnects, and counts until it ends
        except ValueError as error:
            raise Refusal(INVALID_REQUEST, f"{error}.") from None
        except LedgerError:
            raise Refusal(STORE_UNAVAILABLE, "The ledger cannot be read now: try again in a moment.") from None

    def _done(self, work: asyncio.Future[Any]) -> None:
        self._busy -= 1
        if not work.cancelled():
            work.exception()  # reads the exception, which nothing else awaits any more


def _check_room(busy: int, most: int) -> None:
    if busy >= most:
        message = "The gateway is preparing too many reports: try again in a moment."
        raise Refusal(OVERLOADED, message, headers={"retry-after": "1"})


def _json(value: object) -> LocalReply:
    return LocalReply(200, msgspec.json.encode(value), {"content-type": "application/json"}, "answered")
