"""Exchanges whose answer passes unread, from the request until the try's access log has settled them.

The log entry and the answer's headers arrive in either order: the first waits for the other. Envoy reports every
`log_interval` that an answer goes on; after three intervals of silence nothing more is expected, and the exchange is
settled like one of which nothing is known.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from extproc.exchange.unread.windows import Reading
from extproc.words.exchange import Exchange
from extproc.words.tries import Try, UnderWay

log = logging.getLogger(__name__)

SILENCE = 3
"""Intervals without a word of Envoy's after which an answer is given up."""
_MOST_TRIES = 64
"""Entries of one exchange that wait for its headers."""
_LOOK_EVERY = 0.5  # seconds
_GONE = 2.0  # seconds without any access log stream after which a drain waits no longer

Settle = Callable[[Exchange], Awaitable[None]]


@dataclass(slots=True)
class _Slot:
    tries: dict[int, Try] = field(default_factory=dict)  # by number; those that came before the headers
    exchange: Exchange | None = None  # whose headers came
    settle: Settle | None = None
    patience: float = 0.0
    event_limit: int = 0
    answered: float = 0.0  # seconds from the request's headers to the answer's
    deadline: float = 0.0


class Waiting:
    """Of one process. `count` is told how each ended: `told` by the log, or `untold`; `bug` when settling failed."""

    def __init__(
        self,
        count: Callable[[str], None] = lambda _outcome: None,
        bug: Callable[[str], None] = lambda _where: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._bug = bug
        self._now = now
        self._slots: dict[str, _Slot] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.logs = 0
        """Access log streams that are open."""

    def expect(self, id: str) -> None:
        """An exchange is on its way whose answer may pass unread."""
        self._slots[id] = _Slot()

    def forget(self, id: str) -> None:
        """Its answer did not."""
        self._slots.pop(id, None)

    def wait(self, exchange: Exchange, settle: Settle, *, interval: float, event_limit: int) -> None:
        """The headers of an unread answer came: settle the exchange with `settle` when the log tells of it, at once if
        it has.
        """
        slot = self._slots.setdefault(exchange.id, _Slot())
        slot.exchange, slot.settle, slot.event_limit = exchange, settle, event_limit
        slot.answered = time.perf_counter() - exchange.started
        slot.patience = SILENCE * interval
        slot.deadline = self._now() + slot.patience
        if (try_ := slot.tries.get(exchange.answer.attempts)) is not None:
            self._end(exchange.id, slot, try_)

    def tell(self, entry: Try | UnderWay) -> None:
        """Take an entry of a try's access log. Entries of exchanges that nobody waits for are dropped."""
        slot = self._slots.get(entry.exchange_id)
        if slot is None:
            return
        if isinstance(entry, UnderWay):
            slot.deadline = self._now() + slot.patience
        elif slot.exchange is None:
            if len(slot.tries) < _MOST_TRIES:
                slot.tries[entry.attempt] = entry
        elif entry.attempt == slot.exchange.answer.attempts:
            self._end(entry.exchange_id, slot, entry)

    async def run(self) -> None:
        """Give up answers that Envoy says nothing about any more."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self.give_up()

    def give_up(self, *, all_: bool = False) -> None:
        now = self._now()
        for id, slot in list(self._slots.items()):
            if slot.exchange is not None and (all_ or now >= slot.deadline):
                self._end(id, slot, None)

    async def drain(self, grace: float) -> None:
        """Wait for the log to tell of all answers, up to `grace` seconds and while Envoy is there; then settle the
        rest.
        """
        deadline = self._now() + grace
        seen = self._now()
        while any(slot.exchange is not None for slot in self._slots.values()):
            now = self._now()
            seen = now if self.logs else seen
            if now >= deadline or now - seen >= _GONE:
                break
            await asyncio.sleep(min(0.05, grace))
        self.give_up(all_=True)
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _end(self, id: str, slot: _Slot, try_: Try | None) -> None:
        exchange, settle = slot.exchange, slot.settle
        assert exchange is not None
        assert settle is not None
        del self._slots[id]
        self._count("untold" if try_ is None or try_.seen is None else "told")
        task = asyncio.get_running_loop().create_task(self._settle(exchange, slot, try_, settle))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, exchange: Exchange, slot: _Slot, try_: Try | None, settle: Settle) -> None:
        try:
            write_end(exchange, try_, slot.answered, slot.event_limit)
            await settle(exchange)
        except Exception as error:
            self._bug("Waiting")
            log.exception("an unread answer could not be settled: its lease will end", exc_info=error)


def write_end(exchange: Exchange, try_: Try | None, answered: float, event_limit: int) -> None:
    """Write how an exchange ended whose answer passed unread: `report`, `first_token`, and its ending.

    Its seconds are those until the answer's headers, by our clock, and then those of the try, by Envoy's.
    """
    if try_ is None:
        exchange.end()
        return
    seconds = answered + max(0.0, try_.seconds - (try_.first_byte or 0.0))
    if try_.seen is not None:
        reading = Reading(try_.seen, try_.answer_bytes, exchange.request.dialect, event_limit)
        exchange.answer.report = reading.report
        if (first := reading.first_token(try_.seen)) is not None:
            exchange.answer.first_token = answered + first
    exchange.end(whole=try_.outcome == "ok", seconds=seconds)
