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
"""Most usage reports in preparation, as many as the ledger prepares at a time. One more is refused: 503 overloaded."""
_LOOKS = 4
"""Most budget reports in preparation. One more is refused: 503 overloaded."""
REPORTS = 30
"""Default of `limits.reports`: reports of one consumer in a minute."""
_MINUTE = 60.0  # seconds
_MOST_CONSUMERS = 10_000  # consumers whose reports are counted; above it, the first are forgotten
_MOST_PARAMETERS = 64


class Rate:
    """The rate of reports for each consumer: a burst of `most`, then one each time 1/`most` of a minute has passed."""

    def __init__(self, most: int, now: Callable[[], float]) -> None:
        self._share = _MINUTE / most
        self._now = now
        # The time at which a consumer has its full burst again; the longest silent consumer is first.
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
    """Answers the consumer's own usage and budgets, whatever consumer the query names; leaves other requests alone."""

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
            return await asyncio.shield(work)  # the thread continues and counts when the client disconnects
        except ValueError as error:
            raise Refusal(INVALID_REQUEST, f"{error}.") from None
        except LedgerError:
            raise Refusal(STORE_UNAVAILABLE, "The ledger cannot be read now: try again in a moment.") from None

    def _done(self, work: asyncio.Future[Any]) -> None:
        self._busy -= 1
        if not work.cancelled():
            work.exception()  # reads the exception, so that asyncio does not log it


def _check_room(busy: int, most: int) -> None:
    if busy >= most:
        message = "The gateway is preparing too many reports: try again in a moment."
        raise Refusal(OVERLOADED, message, headers={"retry-after": "1"})


def _json(value: object) -> LocalReply:
    return LocalReply(200, msgspec.json.encode(value), {"content-type": "application/json"}, "answered")
