"""The poller: learns the usage of parked exchanges, and settles them. See `late`.

Every process looks for reservations that are due; the store gives each to one of them. An object is asked for less
often as it gets older. A provider that does not answer, or has no key now, is asked again later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec

from extproc.dialects import client_apis
from extproc.money.accounting.books import Books
from extproc.money.accounting.late import pause_after
from extproc.money.accounting.notes import Note, pack_note, unpack_note
from extproc.money.budgets import Budget, costs, read_scope
from extproc.money.ledger import Row
from extproc.routing.catalog import Catalog
from extproc.stores import Counters, Parked, StoreError
from extproc.upstream import prices
from extproc.upstream.credentials.asking import Asking, NotAskedError, TooLargeError
from extproc.words.dialect import ID, Report
from extproc.words.exchange import Kinds, Price, Target, Usage
from extproc.words.late import Late, Progress

log = logging.getLogger(__name__)

AGAIN = 60.0
"""Seconds for which the store gives a reservation to one process alone."""
LONGEST = 900.0
"""Seconds for which a process has a reservation to itself while it reads a file of results."""
INSIDE = 16 << 20
"""Most bytes of an object with its results in it, which is read as a whole."""
AT_ONCE = 8
"""Objects whose usage one process asks for at a time."""
_GONE = (404, 410)
_OK = 200


@dataclass(slots=True, frozen=True)
class Situation:
    """The settings at work."""

    catalog: Catalog
    budgets: Mapping[str, Budget]
    asking: Asking
    most: int  # most bytes of a file of results


class Poller:
    """Settles parked exchanges. `spawn` begins background work under a name; `ends`: the work ends by itself. `settled`
    gets each row, with the consumer's name in metrics.
    """

    def __init__(
        self,
        counters: Counters,
        books: Books,
        situation: Callable[[], Situation],
        spawn: Callable[..., object],
        settled: Callable[[Row, str], None] = lambda _row, _spender: None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._counters = counters
        self._books = books
        self._situation = situation
        self._spawn = spawn
        self._settled = settled
        self._now = now
        self._looks = 0  # number of looks under way

    async def turn(self) -> None:
        """Begin to look at due exchanges, and at those whose usage clients' calls showed, up to `AT_ONCE`. Raises
        StoreError.
        """
        told = self._books.told.reports
        while told and self._looks < AT_ONCE:
            id = next(iter(told))
            for parked in await self._counters.parked(again=AGAIN, id=id):
                self._look_at(parked, told[id])
            told.pop(id, None)
        while room := max(0, AT_ONCE - self._looks):
            due = await self._counters.parked(again=AGAIN, most=room)
            if not due:
                return
            for parked in due:
                self._look_at(parked)

    def _look_at(self, parked: Parked, told: Report | None = None) -> None:
        self._looks += 1
        self._spawn(self._run(parked, told), "late settlement", ends=True)

    async def _run(self, parked: Parked, told: Report | None) -> None:
        try:
            await self._look(parked, told)
        except StoreError:  # the exchange becomes due again
            return
        finally:
            self._looks -= 1

    async def _look(self, parked: Parked, told: Report | None) -> None:
        """Ask for the usage of one exchange, and settle the exchange if its usage is known. Raises StoreError."""
        note = unpack_note(parked.facts)
        if note is None:  # a note of a newer release, left to processes of that release
            return
        if not note.is_final:
            row = None
            try:
                row = await self._final(parked, note, told)
            except NotAskedError as error:
                log.warning("exchange %s: its usage is not known yet: %s; it is asked for again", parked.id, error)
            if row is None:
                await self._park(parked, note, pause_after(self._now() - note.begun))
                return
            note = msgspec.structs.replace(note, row=row)
            if not await self._park(parked, note, AGAIN):
                return  # another process has settled it
        await self._settle(parked, note)

    async def _park(self, parked: Parked, note: Note, again: float) -> bool:
        facts = pack_note(note)
        lease = max(note.ends - self._now(), 2 * again if note.is_final else 0.0)
        return facts is not None and await self._counters.park(parked.id, facts, lease=lease, again=again)

    async def _settle(self, parked: Parked, note: Note) -> None:
        row, budgets = note.row, self._situation().budgets
        usage = Usage(row.input_tokens, row.output_tokens)
        amounts, charges = [], {}
        for index, (scope, held) in enumerate(zip(parked.scopes, parked.amounts, strict=True)):
            budget = budgets.get(read_scope(scope)[0])
            amount = held  # the budget is no longer in the settings
            if index in note.uncounted or (budget is not None and budget.is_slot):
                amount = 0
            elif budget is not None:
                amount = budget.charge(usage, row.cost)
            amounts.append(amount)
            if budget is None or not budget.is_slot:
                charges[scope] = amount
        if await self._counters.settle(parked.id, amounts, keep=self._books.keeps):
            self._books.add(msgspec.structs.replace(row, charges=charges))
            self._settled(row, note.spender)

    # --- the usage

    async def _final(self, parked: Parked, note: Note, told: Report | None) -> Row | None:
        """The row with its usage; None while the object has not ended. Raises NotAskedError."""
        now = self._situation()
        api = client_apis().get(note.api)
        late = None if api is None else api.offers.stored.late
        target = now.catalog.target(note.row.target, note.row.provider)
        if late is None or target is None or target.provider != note.row.provider:
            raise NotAskedError("its model is not in the settings")
        bill = _Bill(note, target)
        if told is not None:
            bill.add(told)
            return bill.row()
        try:
            status, body = await _ask(now, target.provider, late, note.object)
        except TooLargeError:
            return bill.estimated()
        if status in _GONE:
            log.warning("exchange %s: %s is gone, and charged as held", parked.id, note.object)
            return bill.estimated()
        progress = late.progress(body) if status == _OK else None
        if progress is None:
            raise NotAskedError(f"provider {target.provider} answered with status {status}")
        if not progress.ended:
            return None
        await self._park(parked, note, LONGEST)
        return await self._billed(bill, late, progress, now)

    async def _billed(self, bill: _Bill, late: Late, progress: Progress, now: Situation) -> Row:
        """The row of an object that has ended. A sum of several requests does not show which requests have the price of
        long prompts, so the results are read one by one.
        """
        if progress.answered == 0 and progress.report is None:
            return bill.row()
        for report in progress.reports:
            bill.add(report)
        if bill.requests:
            return bill.row() if progress.answered in (None, bill.requests) else bill.estimated()
        if progress.report is not None and (bill.is_flat or late.line is None or not progress.results):
            bill.add(progress.report, progress.answered or 1)
            return bill.row()
        if late.line is None or not progress.results:
            return bill.estimated()
        read, whole = _Bill(bill.note, bill.target), True
        try:
            for path in progress.results:
                lines = _Lines(late.line, read)
                status, _ = await now.asking.get(bill.target.provider, path, sink=lines.feed, most=now.most)
                lines.end()
                if status not in (_OK, *_GONE):
                    raise NotAskedError(f"provider {bill.target.provider} answered with status {status}")
        except TooLargeError:
            whole = False
        if whole and (read.requests == progress.answered or (progress.answered is None and read.requests)):
            return read.row()
        if progress.report is not None:
            bill.add(progress.report, progress.answered or 1)
            return bill.row()
        return bill.estimated()


async def _ask(now: Situation, provider: str, late: Late, id: str) -> tuple[int, bytes]:
    """The status and body of an object. Raises NotAskedError and TooLargeError."""
    path = late.path.replace(ID, id)
    if not late.inside:
        return await now.asking.get(provider, path)
    read = bytearray()
    status, problem = await now.asking.get(provider, path, sink=read.extend, most=min(now.most, INSIDE))
    return status, bytes(read) or problem


class _Lines:
    """The lines of a file of results, as its pieces arrive."""

    def __init__(self, read: Callable[[bytes], Report | None], bill: _Bill) -> None:
        self._read, self._bill = read, bill
        self._rest = bytearray()

    def feed(self, piece: bytes) -> None:
        first, *others = piece.split(b"\n")
        self._rest += first
        for line in others:
            self.end()
            self._rest += line

    def end(self) -> None:
        line = bytes(self._rest)
        self._rest.clear()
        if line.strip() and (report := self._read(line)) is not None:
            self._bill.add(report)


class _Bill:
    """The sum of the usage of an exchange's requests, each at its price."""

    def __init__(self, note: Note, target: Target) -> None:
        self.target = target
        self.requests = 0
        self.note = note
        self._usage = Usage()
        self._cost: int | None = 0
        self._saved = self._extra = 0
        self._version = ""

    @property
    def is_flat(self) -> bool:
        """True where the price of a sum of requests equals the sum of their prices."""
        price = self._price(None)
        return price is None or not (price.tiers or price.per_request)

    def _price(self, report: Report | None) -> Price | None:
        price = self.target.price if report is None else costs.price_of_answer(self.target, report.model)
        return self._with_options(price, report)

    def _with_options(self, price: Price | None, report: Report | None) -> Price | None:
        options = {**self.note.options, **({} if report is None else report.options)}
        if price is None:
            return None
        if self.note.batch:
            return prices.for_batch(price, options)
        return prices.with_options(price, options) if options else price

    def add(self, report: Report, requests: int = 1) -> None:
        """Add the usage of one answer, or of several summed."""
        usage, price = report.usage, self._price(report)
        if usage is None:
            return
        if report.units:
            usage.kinds = replace(usage.kinds or Kinds(), **report.units)
        self.requests += requests
        most_in, most_out = (most + usage.beyond for most in self.note.most)
        if not self.note.batch and (usage.input_tokens > most_in or usage.output_tokens > most_out):
            usage = replace(
                usage, input_tokens=min(usage.input_tokens, most_in), output_tokens=min(usage.output_tokens, most_out)
            ).clamped()
            self._usage.source = "disputed"
        for name in ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"):
            setattr(self._usage, name, getattr(self._usage, name) + getattr(usage, name))
        if price is None:
            self._cost = None
        elif self._cost is not None:
            cost = costs.sum_of(
                usage, price, lambda model: self._with_options(costs.price_of(self.target, model), report)
            )
            self._cost = min(self._cost + cost, prices.MOST)
            self._version = self._version or price.version
            saved, extra = prices.prompt_cache(price, usage)
            self._saved, self._extra = self._saved + saved, self._extra + extra

    def row(self) -> Row:
        usage = self._usage
        return msgspec.structs.replace(
            self.note.row,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            usage_source=usage.source,
            cost=self._cost,
            price_version=self._version or self.note.row.price_version,
            prompt_saved=self._saved,
            prompt_extra=self._extra,
        )

    def estimated(self) -> Row:
        """The row with the held tokens as its usage, because the real usage is unknown."""
        bill = _Bill(self.note, self.target)
        bill.add(Report(usage=Usage(*self.note.held)))
        bill._usage.source = "estimated"
        return bill.row()
