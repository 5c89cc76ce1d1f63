"""Books: agreement of counters and ledger, whichever process ends, at any moment.

   settle(keep) ──► row in the ledger ──► recorded          a process died in between: the lease runs out, and
      └─ no answer from the store: owed, tried again        the process that ends it writes the row
                                                            (`usage_source: expired`), or the next one after it

A row is written after its charge is settled, and the store forgets a charge after its row is written. So a charge is
without its row, or a row without its charge, for a lease at most. A settle may come after the end of its lease, when
the store was away for longer. It corrects the charge, which then waits for its row as any other charge does.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from extproc.cache.caching import CACHING
from extproc.money.accounting.notes import Told, unpack_note
from extproc.money.budgets import LEASE, Budget, read_scope, unpack_facts
from extproc.money.ledger import EXPIRED, PENDING, Row
from extproc.money.texts import TRAITS
from extproc.routing.pools.pool import PLACED
from extproc.stores import LATE_SETTLE, Counters, Expired
from extproc.words.exchange import Exchange
from extproc.words.runs import named_by, run_of

if TYPE_CHECKING:
    from extproc.money.ledger.writer import Writer

MAX_OWED = 10_000
"""Most settles without an answer that are tried again; a further settle is left to the end of its lease."""
MAX_UNTAKEN = 100_000
"""Most charges that the store keeps because the ledger had no room for their rows. The rows of further charges are
lost.
"""
_BATCH = 1000  # most ids in one call of `recorded`
_OTHER = ("list_models", "usage", "budgets", "unknown")
"""Operations that use no model: they have no row in the books."""


@dataclass(slots=True)
class _Waiting:
    """Rows of one charge that are not written yet."""

    rows: int = 0
    settled: bool = False  # True: the latest row's charge is of a settle, not of an expired lease
    charged: bool = False  # True: a row has a charge, so not every row is pending


@dataclass(slots=True)
class _Owed:
    amounts: Sequence[int]
    since: float
    row: Row | None = None


class Books:
    """The books of one process. `expired` gets each expired lease again every `again` seconds, until its row is
    written.
    """

    def __init__(
        self,
        counters: Counters,
        ledger: Writer | None,
        expired: Callable[[Expired], None] = lambda _expired: None,
        *,
        again: float = LEASE,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._counters = counters
        self._again = again
        self._ledger = ledger
        self._expired = expired
        self._now = now
        self.told = Told()  # usage of earlier exchanges, read from clients' own calls
        self._owed: dict[str, _Owed] = {}
        self._charged: dict[str, _Waiting] = {}  # charges that the store keeps until their row is written, by id
        self._due: Mapping[bool, list[str]] = {True: [], False: []}  # ids to report as recorded, by `_Waiting.settled`
        self._full = False  # True: the ledger had no room for the latest row
        self._untaken = 0  # number of charges that the store keeps for lack of room for their rows
        self._written: deque[Sequence[str]] = deque()  # ids whose rows are written, from the ledger's thread
        # Ids whose rows failed, from the ledger's thread. When their leases end, rows are made of them.
        self._refused: deque[str] = deque()
        if ledger is not None:
            ledger.on_written = self._written.append
            ledger.on_refused = self._refused.append

    @property
    def keeps(self) -> bool:
        """True when the store has to remember charges until `recorded`. The store's memory has an end, too."""
        return self._ledger is not None and not (self._full and self._untaken >= MAX_UNTAKEN)

    def owe(self, id: str, amounts: Sequence[int]) -> bool:
        """Try `id` again later: the store gave no answer to its settle. False when too many are owed already."""
        if len(self._owed) >= MAX_OWED:
            return False
        self._owed[id] = _Owed(amounts, self._now())
        return True

    def enter(self, exchange: Exchange) -> None:
        """Enter an ended exchange: its row is written after its charge."""
        if self._ledger is None or exchange.request.operation in _OTHER or not hasattr(exchange, "consumer"):
            return
        row = row_of(exchange, self._now())
        if (owed := self._owed.get(exchange.id)) is not None:
            owed.row = row
            return
        self.add(row)

    def add(self, row: Row) -> None:
        """Enter the row of a settled charge."""
        if self._ledger is None:
            return
        if not self._add(row, settled=True) and row.charges is not None and self.keeps:
            self._untaken += 1

    def _add(self, row: Row, *, settled: bool) -> bool:
        assert self._ledger is not None
        self._full = not self._ledger.add(row)
        if not self._full and (row.charges is not None or row.usage_source == PENDING):
            waiting = self._charged.setdefault(row.id, _Waiting())
            waiting.rows += 1
            waiting.settled |= settled and row.charges is not None
            waiting.charged |= row.charges is not None
        return not self._full

    async def catch_up(self) -> None:
        """Settle the amounts owed, and report the written rows to the store. Raises StoreError; the next call continues
        where this call stopped.
        """
        await self._settle_owed()
        await self._tell_written()

    async def turn(self, budgets: Mapping[str, Budget], teams: Mapping[str, str]) -> None:
        """Catch up, and end expired leases, once a second. `teams` gives the team of each consumer. Raises StoreError.

        A row that finds no room in the ledger is reported later: `expired` gets its lease again.
        """
        await self.catch_up()
        room = True
        while ended := await self._counters.expire(keep=self._again if self._ledger is not None else 0.0):
            for expired in ended:
                waiting = self._charged.get(expired.id)
                if waiting is not None and waiting.settled >= expired.settled:  # the row still waits for the database
                    continue
                if self._ledger is not None and (expired.forwarded or expired.settled):
                    room = room and self._add(
                        row_of_expired(expired, budgets, teams, self._now()), settled=expired.settled
                    )
                    if not room:
                        continue
                    self._untaken = max(0, self._untaken - 1)
                self._expired(expired)
            await asyncio.sleep(0)  # a store in memory never yields to other tasks

    async def _settle_owed(self) -> None:
        for id, owed in list(self._owed.items()):
            known = await self._counters.settle(id, owed.amounts, keep=self.keeps)
            del self._owed[id]
            if owed.row is None:
                continue
            if not known and self._now() - owed.since > LATE_SETTLE - LEASE:  # the lease has decided the charge
                owed.row = msgspec.structs.replace(owed.row, charges=None)
            self.add(owed.row)

    async def _tell_written(self) -> None:
        while self._refused:
            self._charged.pop(self._refused.popleft(), None)
        while self._written:
            for id in self._written.popleft():
                waiting = self._charged.get(id)
                if waiting is None:
                    continue
                waiting.rows -= 1
                if not waiting.rows and waiting.charged:
                    self._due[waiting.settled].append(id)
                elif not waiting.rows:
                    del self._charged[id]
        for settled, ids in self._due.items():
            while batch := ids[:_BATCH]:
                await self._counters.recorded(batch, expired=not settled)
                del ids[: len(batch)]
                for id in batch:
                    self._charged.pop(id, None)


class Enter:
    """Enters the exchange into the books. The last stage."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(self, exchange: Exchange) -> None:
        self._books.enter(exchange)


def row_of(exchange: Exchange, now: float) -> Row:
    """The ledger's row of an exchange: never a body, never a credential."""
    consumer, target = exchange.consumer, exchange.answer.target
    if exchange.route.of_tools:  # a tool call names one server, even when it was refused
        target = next(iter(getattr(exchange.route, "targets", ())), None)
    ask = getattr(exchange.request, "ask", None)
    usage, caching = exchange.money.usage, exchange.features.get(CACHING)
    return Row(
        id=exchange.id,
        time=now - (time.perf_counter() - exchange.started),
        request_id=exchange.request.id,
        consumer=consumer.name,
        team=consumer.team,
        key=exchange.money.key,
        labels=exchange.money.labels,
        operation=exchange.request.operation,
        model=ask.model if ask is not None else "",
        target=target.name if target is not None else "",
        provider=target.provider if target is not None else "",
        provider_model=target.model if target is not None else "",
        attempts=exchange.answer.attempts,
        status=exchange.answer.status,
        error=exchange.error,
        outcome=exchange.ending.outcome,
        stream=ask is not None and ask.stream,
        complete=exchange.ending.complete,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        usage_source=usage.source,
        cost=exchange.money.cost,
        price_version=exchange.money.price_version
        or (target.price.version if target is not None and target.price is not None else ""),
        duration_ms=round(exchange.seconds * 1000),
        first_token_ms=None if exchange.answer.first_token is None else round(exchange.answer.first_token * 1000),
        guardrails=exchange.findings.guardrails,
        denied_by=exchange.money.denied_by,
        charges=exchange.money.charges,
        levels=None if (held := getattr(exchange.money, "reservation", None)) is None else held.levels,
        cache="" if caching is None else caching.outcome,
        saved=0 if caching is None else caching.saved or 0,
        prompt_saved=exchange.money.prompt_saved,
        prompt_extra=exchange.money.prompt_extra,
        run=run_of(exchange),
        traits=exchange.features.get(TRAITS),
        endpoint=placed.served if (placed := exchange.features.get(PLACED)) is not None else "",
        tries=exchange.answer.tries,
    )


def row_of_expired(expired: Expired, budgets: Mapping[str, Budget], teams: Mapping[str, str], now: float) -> Row:
    """The row of an exchange whose process died: its charges, with the facts from its reservation and the names of its
    counts.
    """
    facts, note = unpack_facts(expired.facts), unpack_note(expired.facts)
    charges: dict[str, int] = {}
    fields: dict[str, str] = {}
    tokens = {"input_tokens": 0, "output_tokens": 0, "tokens": 0}
    cost: int | None = None
    for scope, amount in zip(expired.scopes, expired.amounts, strict=True):
        name, found = read_scope(scope)
        budget = budgets.get(name)
        unit = "" if budget is None else budget.settings.unit
        if unit == "concurrency":
            continue
        charges[scope] = amount
        fields |= found
        if unit == "usd":
            cost = max(cost or 0, amount)
        elif unit in tokens:
            tokens[unit] = max(tokens[unit], amount)
    if note is not None:
        row = note.row
        if not note.is_final:  # the usage did not become known in time
            row = msgspec.structs.replace(row, usage_source=EXPIRED, complete=expired.settled, cost=cost)
            row = msgspec.structs.replace(row, input_tokens=note.held[0], output_tokens=note.held[1])
        return msgspec.structs.replace(row, charges=charges)
    output = max(tokens["output_tokens"], tokens["tokens"] - tokens["input_tokens"]) if tokens["input_tokens"] else 0
    labels = {name.removeprefix("label."): value for name, value in fields.items() if name.startswith("label.")}
    return Row(
        id=expired.id,
        time=now,
        request_id=facts.request_id,
        consumer=facts.consumer or fields.get("consumer", ""),
        team=facts.team or fields.get("team") or teams.get(fields.get("consumer", ""), ""),
        key=facts.key or fields.get("key", ""),
        labels={**labels, **facts.labels},
        run=named_by({**labels, **facts.labels}),
        operation=facts.operation,
        model=facts.model,
        stream=facts.stream,
        target=facts.target or fields.get("model", ""),
        provider=facts.provider or fields.get("provider", ""),
        provider_model=facts.provider_model,
        error="expired",
        outcome="error",
        complete=expired.settled,
        input_tokens=max(tokens["input_tokens"], 0 if output else tokens["tokens"]),
        output_tokens=output or tokens["output_tokens"],
        usage_source="expired",
        cost=cost,
        charges=charges,
    )
