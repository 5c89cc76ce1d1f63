"""Failed tries of exchanges. Envoy's access log reports each try up to a tenth of a second after its end, in any order,
so an exchange with failed tries is recorded once the log has reported all of them.

The record of an exchange with failed tries waits half a second at most; its charge does not wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from extproc.guardrails import is_watched
from extproc.words.actions import CONTINUE, Continue
from extproc.words.exchange import Ending, Exchange
from extproc.words.tries import DownstreamEnd, FailedTry, Try

PATIENCE = 0.5
"""Seconds that a record waits for the log: five of the log's flushes."""
MOST_TRIES = 16
"""Most tries in the record of one exchange; `retry.attempts` allows no more."""
MOST_EXCHANGES = 10_000
"""Most exchanges whose failed tries are kept until the exchange ends. Beyond it the oldest tries are missing in the
records.
"""

_NOT_FAILED = frozenset(("ok", "client_left"))
_LAST = frozenset(("4xx",))  # a 4xx is never tried again: it is the status of the exchange

log = logging.getLogger(__name__)

_Record = Callable[[Exchange], object]
"""A step of recording. A step that returns an action ends the list, as a stage does."""


@dataclass(slots=True)
class _Held:
    """An ended exchange. `missing` are the numbers of the tries that the log has not reported."""

    exchange: Exchange
    record: Sequence[_Record]
    missing: set[int]
    timer: asyncio.TimerHandle | None = field(default=None)


class FailedTries:
    """Failed tries of one process. `bug` is called when recording raises."""

    def __init__(self, bug: Callable[[str], None] = lambda _where: None) -> None:
        self._bug = bug
        self._failed: dict[str, dict[int, FailedTry]] = {}  # failed tries by the exchange's id, then by number
        self._held: dict[str, _Held] = {}
        self._ends: dict[str, asyncio.Future[DownstreamEnd | None]] = {}

    def tell(self, try_: Try) -> None:
        """Add an entry of a try's access log."""
        held = self._held.get(try_.exchange_id)
        if try_.outcome not in _NOT_FAILED and (held is not None or try_.outcome not in _LAST):
            self._note_failed(try_)
        if held is not None:
            held.missing.discard(try_.attempt)
            if not held.missing:
                self._finish(try_.exchange_id)

    def tell_end(self, end: DownstreamEnd) -> None:
        """Add an entry of the public listener's access log."""
        self._resolve_end(end.exchange_id, end)

    async def end_of(self, exchange: Exchange) -> DownstreamEnd | None:
        """The log's entry for a request that has just ended; None if no entry comes within `PATIENCE`."""
        loop = asyncio.get_running_loop()
        end: asyncio.Future[DownstreamEnd | None] = loop.create_future()
        self._ends[exchange.id] = end
        loop.call_later(PATIENCE, self._resolve_end, exchange.id, None)
        return await end

    def _resolve_end(self, id: str, end: DownstreamEnd | None) -> None:
        if (waiting := self._ends.pop(id, None)) is not None and not waiting.done():
            waiting.set_result(end)

    def _note_failed(self, try_: Try) -> None:
        tries = self._failed.setdefault(try_.exchange_id, {})
        if len(tries) < MOST_TRIES:
            tries[try_.attempt] = FailedTry(
                try_.target, try_.provider, try_.status, round(try_.seconds * 1000), try_.outcome, try_.start
            )
        while len(self._failed) > MOST_EXCHANGES:
            del self._failed[next(iter(self._failed))]

    def hold(self, exchange: Exchange, record: Sequence[_Record]) -> bool:
        """Write the `tries` of an ended exchange. True: some tries are not known yet, and `record` runs later."""
        missing = set(range(1, min(exchange.answer.attempts, _failed(exchange), MOST_TRIES) + 1))
        missing.difference_update(self._failed.get(exchange.id, ()))
        if not missing or exchange.id in self._held:
            self._write(exchange)
            return False
        self._held[exchange.id] = held = _Held(exchange, record, missing)
        held.timer = asyncio.get_running_loop().call_later(PATIENCE, self._finish, exchange.id)
        return True

    def flush(self) -> None:
        """Record all waiting exchanges now, because the process ends."""
        for id in list(self._ends):
            self._resolve_end(id, None)
        for id in list(self._held):
            self._finish(id)

    def _finish(self, id: str) -> None:
        held = self._held.pop(id)
        if held.timer is not None:
            held.timer.cancel()
        self._write(held.exchange)
        try:
            for step in held.record:
                if step(held.exchange) is not None:
                    break
        except Exception as error:
            self._bug("FailedTries")
            log.exception("an exchange could not be recorded", exc_info=error)

    def _write(self, exchange: Exchange) -> None:
        most = _failed(exchange)
        tries = self._failed.pop(exchange.id, {})
        exchange.answer.tries = [tries[number] for number in sorted(tries) if number <= most]


def _failed(exchange: Exchange) -> int:
    """The most tries of an exchange that can have failed. A try that a provider answered is not one of them, whatever
    its status: the exchange's own status and target record it. If the answer broke off, only the log knows which side
    ended it.
    """
    if exchange.ending is Ending.CLIENT_LEFT:  # Envoy reported no number of tries
        return MOST_TRIES
    answered = exchange.answer.target is not None and exchange.ending is not Ending.INCOMPLETE
    return exchange.answer.attempts - answered


class AwaitEnd:
    """Waits for Envoy's log of a broken-off answer of which the client may have got nothing: it has no text yet, or
    guardrails watch it and may have held back its head. If Envoy answered with an error in the provider's place, the
    exchange takes its status and ends as `UNREACHED`, and nothing is charged.
    """

    def __init__(self, failed: FailedTries) -> None:
        self._failed = failed

    async def __call__(self, exchange: Exchange) -> None:
        report = exchange.answer.report
        has_text = report is not None and report.output_bytes and not is_watched(exchange)
        if exchange.ending is not Ending.INCOMPLETE or exchange.attached or has_text:
            return
        end = await self._failed.end_of(exchange)
        if end is not None and end.reason != "client_left" and end.status >= 400:
            exchange.answer.status, exchange.answer.target, exchange.answer.report = end.status, None, None
            exchange.ending, exchange.error = Ending.UNREACHED, end.reason
            exchange.answer.unreached = end.reason


class AwaitTries:
    """Records the exchange at once, or later by `record` if tries have failed."""

    def __init__(self, failed: FailedTries, record: Sequence[_Record]) -> None:
        self._failed = failed
        self._record = record

    def __call__(self, exchange: Exchange) -> Continue | None:
        if _failed(exchange) <= 0 or exchange.attached:
            return None
        return CONTINUE if self._failed.hold(exchange, self._record) else None
