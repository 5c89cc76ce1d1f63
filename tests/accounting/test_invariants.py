"""The invariants of budgets in any order of events: random histories of two processes and their store.

The numbers are the design's. The oracle keeps every charge by the count and window of its reservation, and adds it up
independently. `bench.soak` checks the same invariants live.
"""

import json
import random
import sqlite3
from collections import Counter, defaultdict
from decimal import Decimal
from itertools import cycle

import pytest

from extproc.money.accounting import books
from extproc.money.accounting.books import Books
from extproc.money.accounting.settle import Settle
from extproc.money.budgets import BudgetSettings, Leases, Reserve, compile_budget
from extproc.money.ledger import schema
from extproc.money.ledger.rows import COLUMNS, values
from extproc.money.ledger.sql import SQLITE, Cursor
from extproc.stores import Granted, StoreError, window_at
from extproc.stores.memory import MemoryCounters
from extproc.stores.sqlite import SqliteCounters
from extproc.upstream import prices
from extproc.words.dialect import Report
from extproc.words.errors import STORE_UNAVAILABLE, Refusal
from extproc.words.exchange import Consumer, Price, Target, Usage
from tests.samples import examples, exhaustive
from tests.stores.conftest import open_redis
from tests.stores.wire import TROUBLE, Died, Network, Wire

LEASE = 20.0
STEPS = 120
DEFAULT = 300  # tokens of output of a request that states none
TARGETS = (
    Target("dear", "a", "dear", 400, price=prices.price(10, 50)),
    Target("cheap", "b", "cheap", 1000, price=prices.price(1, 2)),
    Target("odd", "b", "odd", price=prices.price(0.123456, 7.654321, per_request=0.0001)),
)
BUDGETS = {
    "rate": {"unit": "requests", "limit": 12, "window": "minute", "per": ["consumer"]},
    "tokens": {"unit": "tokens", "limit": 6000, "window": "hour", "per": ["consumer"]},
    "money": {"unit": "usd", "limit": "0.15", "window": "day", "per": ["team"]},
    "run": {"unit": "usd", "limit": "0.05", "window": "total", "per": ["label.run"]},
    "written": {"unit": "output_tokens", "limit": 9000, "window": "total"},
    "read": {"unit": "input_tokens", "limit": 3000, "window": "minute", "match": {"provider": "b"}},
    "busy": {"unit": "concurrency", "limit": 6, "per": ["consumer"]},
    "watched": {"unit": "tokens", "limit": 10, "window": "minute", "mode": "shadow"},
}
UNITS = {
    "requests": lambda _in, _out: 1,
    "concurrency": lambda _in, _out: 1,
    "tokens": lambda tokens_in, tokens_out: tokens_in + tokens_out,
    "input_tokens": lambda tokens_in, _out: tokens_in,
    "output_tokens": lambda _in, tokens_out: tokens_out,
}


async def refused(stage, sent):
    """The refusal, or None."""
    try:
        await stage(sent)
    except Refusal as refusal:
        return refusal
    return None


class Table:
    """The ledger of all processes: the real statements on a database in memory."""

    def __init__(self):
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        schema.migrate(Cursor(self._db.cursor(), SQLITE))

    def write(self, rows):
        self._db.executemany(schema.INSERT, [values(row) for row in rows])
        ended = [(dict(zip(COLUMNS, values(row), strict=True)), row) for row in rows if row.usage_source == "expired"]
        self._db.executemany(schema.AMEND, [(of["charges"], row.id, of["complete"]) for of, row in ended])

    def rows(self):
        """Charges and source by id."""
        found = self._db.execute("SELECT id, charges, usage_source FROM exchanges").fetchall()
        return {id: (json.loads(charges or "{}"), source) for id, charges, source in found}

    def costs(self):
        """USD by consumer and model. Every row has its provider's usage, or none; one that died with its process has
        been made again from the charge that was settled.
        """
        query = "SELECT consumer, model, usage_source, complete, sum(cost) FROM exchanges GROUP BY 1, 2, 3, 4"
        booked = Counter()
        for consumer, model, source, complete, cost in self._db.execute(query):
            assert source in ("provider", "none") or (source, complete) == ("expired", 1), (consumer, model, source)
            booked[consumer, model] += Decimal(cost) / 10**9
        return booked

    def clear(self):
        self._db.execute("DELETE FROM exchanges")


class Queue:
    """A process's queue for the ledger. Queued rows are lost when the process dies."""

    def __init__(self, table):
        self.table, self.rows, self.on_written = table, [], lambda _ids: None

    def add(self, row):
        self.rows.append(row)
        return True

    def flush(self):
        self.table.write(self.rows)
        self.on_written([row.id for row in self.rows])
        self.rows = []


class Process:
    def __init__(self, world):
        self.world, self.live = world, {}
        self.queue = Queue(world.table)
        self.counters = Wire(world.store(), world.network)
        self.leases = Leases(self.counters)
        self.leases._wind = lambda _seconds: None  # the history says when
        self.books = Books(self.counters, self.queue, again=LEASE, now=world.clock)
        self.settle = Settle(self.counters, self.leases, lambda *_: None, keep=lambda: True, owe=self.books.owe)
        self.configure()

    def configure(self):
        world = self.world
        self.reserve = Reserve(
            world.settings, self.counters, self.leases, DEFAULT, lambda *_: None, lease=LEASE, now=world.clock
        )


class World:
    def __init__(self, clock, chance, store, make, table):
        self.clock, self.chance, self.store, self.make, self.table = clock, chance, store, make, table
        self.where, self.number = {}, 0  # by id and count: the window of the reservation
        self.network = Network(chance, self.ran)
        # What the store has done: holds by id, charges of settles by id and count, ids that it marked as forwarded.
        self.holds, self.settled, self.marked = {}, {}, set()
        self.left, self.unmarked = set(), set()  # ids that went to a provider; those whose process died before the mark
        self.set_limits("1")
        self.processes = [Process(self), Process(self)]
        self.seen = Counter()

    def ran(self, name, args, result):
        """The store ran a call."""
        if name == "reserve" and isinstance(result, Granted):
            id, holds, _ = args
            self.holds[id] = holds
            for hold in holds:
                self.where[id, hold.scope] = window_at(self.clock(), hold.window)[0]
        elif name == "settle" and result:
            id, amounts = args
            used = zip(self.holds[id], amounts, strict=True)
            self.settled[id] = {hold.scope: amount for hold, amount in used if not hold.slot}
        elif name == "forward":
            self.marked |= {*args[0]}

    def set_limits(self, factor):
        limits = {name: Decimal(given["limit"]) * Decimal(factor) for name, given in BUDGETS.items()}
        self.settings = [
            BudgetSettings(
                **given | {"name": name, "limit": limits[name] if given["unit"] == "usd" else int(limits[name])}
            )
            for name, given in BUDGETS.items()
        ]
        self.budgets = {entry.name: compile_budget(entry) for entry in self.settings}

    async def levels(self, scopes):
        pairs = [(scope, self.budgets[scope.partition(":")[0]].window) for scope in scopes]
        return dict(zip(scopes, await self.store().levels(pairs), strict=True))

    # --- the events

    async def request(self):
        chance, process = self.chance, self.chance.choice(self.processes)
        targets = tuple(chance.sample(TARGETS, chance.randint(1, 3)))
        body = {"model": "m", "messages": [{"role": "user", "content": "x" * chance.randrange(300)}]}
        if chance.random() < 0.8:
            body["max_tokens"] = chance.randint(1, 700)
        if chance.random() < 0.2:
            body["n"] = chance.randint(1, 3)
        team = chance.choice(["red", "blue"])
        labels = {"run": chance.choice(["1", "2", "a:b=c%"])} if chance.random() < 0.8 else {}
        sent = self.make(body, consumer=Consumer(f"{team}-{chance.randrange(2)}", team), labels=labels, targets=targets)
        self.number += 1
        sent.id = f"r{self.number}"
        wanted = self.wanted(sent)
        before = await self.levels(list(wanted))
        try:
            refusal = await refused(process.reserve, sent)
        except Died:
            self.die(process)
            return
        if refusal is not None:
            self.seen["refused"] += 1
            assert not sent.route.forwarded  # I6
            sent.answer.status = refusal.kind.status
            sent.end(refused=refusal.kind.code)
            await process.settle(sent)
            process.books.enter(sent)  # a row with the id that the store may hold amounts for
            if refusal.kind is not STORE_UNAVAILABLE:
                assert await self.levels(list(wanted)) == before  # I7: no budget reserved anything
                short = [scope for scope, amount in wanted.items() if not self.fits(scope, amount, before[scope])]
                assert sent.money.denied_by in {scope.partition(":")[0] for scope in short}  # I10
            return
        after = await self.levels(list(wanted))
        for scope, amount in wanted.items():
            assert self.fits(scope, amount, before[scope])  # I1, I14
            assert after[scope].reserved == before[scope].reserved + amount  # I7
        if chance.random() < 0.02:
            self.die(process)
            return
        process.live[sent.id] = sent
        if chance.random() < 0.95:  # otherwise its client leaves first
            sent.route.forwarded = True
            self.left.add(sent.id)
        if chance.random() < 0.02:
            self.die(process)

    def wanted(self, sent):
        """The most a request needs of each count, computed in the simplest way."""
        found = defaultdict(int)
        for target in sent.route.targets:
            ceiling = target.max_output_tokens
            output = min(
                sent.request.json.get("max_tokens", ceiling or DEFAULT), ceiling or 10**9
            ) * sent.request.json.get("n", 1)
            for budget in self.budgets.values():
                if budget.covers(sent, target):
                    unit = budget.settings.unit
                    tokens = (len(sent.request.body), output)
                    amount = prices.bound(target.price, *tokens) if unit == "usd" else UNITS[unit](*tokens)
                    scope = budget.scope(sent, target)
                    found[scope] = max(found[scope], amount)
        return found

    def fits(self, scope, amount, level):
        budget = self.budgets[scope.partition(":")[0]]
        return not budget.enforced or level.settled + level.reserved + amount <= budget.limit

    async def answer(self):
        chance, process = self.chance, self.chance.choice(self.processes)
        if not process.live:
            return
        sent = process.live.pop(chance.choice(list(process.live)))
        end = (
            chance.choice(["used", "used", "used", "liar", "cut", "left", "failed"])
            if sent.route.forwarded
            else "abandoned"
        )
        target = chance.choice(sent.route.targets)  # after a failover, not the first target
        room = sent.money.reservation.outputs[sent.route.targets.index(target)]
        output = chance.randint(1, max(1, room))
        if end == "failed":
            sent.answer.status, sent.answer.target = 500, target
        elif end in ("used", "liar", "cut"):
            sent.answer.status, sent.answer.target = 200, target
            usage = Usage(chance.randint(1, len(sent.request.body)), output) if end == "used" else None
            if end == "liar":
                usage = Usage(0, output)
            sent.answer.report = Report(usage=usage, output_bytes=output, output_events=min(output, 5))
        self.seen[end] += 1
        sent.end(whole=end == "failed")
        try:
            await process.settle(sent)
        except Died:
            self.die(process)
            return
        if chance.random() < 0.05:
            self.die(process)
            return
        process.books.enter(sent)
        if chance.random() < 0.3 and sent.id in self.settled:  # I5
            assert not await self.store().settle(sent.id, [3] * len(sent.money.reservation.claims))

    async def turn(self):
        process, chance = self.chance.choice(self.processes), self.chance
        try:
            if chance.random() < 0.8:
                await self.try_to(process.leases.renew(LEASE))
            if chance.random() < 0.8:
                await self.try_to(process.leases.turn())
            if chance.random() < 0.7:
                process.queue.flush()
            await self.try_to(process.books.turn(self.budgets, {}))
        except Died:
            self.die(process)

    async def try_to(self, work):
        try:
            await work
        except StoreError:
            self.seen["turn failed"] += 1

    def die(self, process):
        self.seen["died"] += 1
        self.unmarked |= process.leases._unmarked.keys()
        self.processes[self.processes.index(process)] = Process(self)

    async def step(self):
        what = self.chance.random()
        if what < 0.4:
            await self.request()
        elif what < 0.7:
            await self.answer()
        elif what < 0.85:
            await self.turn()
        elif what < 0.88:
            if self.network.late:
                await self.network.deliver()
        elif what < 0.95:
            self.clock.now += self.chance.choice([0.5, 3.0, 9.0, 25.0, 61.0])
        elif what < 0.965:
            self.clock.now -= self.chance.choice([1.0, 30.0])  # I13
        elif what < 0.98:
            self.die(self.chance.choice(self.processes))
        else:
            self.set_limits(self.chance.choice(["0.3", "0.7", "1", "1.5"]))  # I14
            for process in self.processes:
                process.configure()

    # --- the invariants

    async def rest(self):
        """All processes die, and new ones keep the books. Everything that is on its way arrives, between or after."""
        self.network.trouble = 0.0
        for process in list(self.processes):
            self.die(process)
        for turn in range(10):
            while self.network.late and (turn > 3 or self.chance.random() < 0.5):
                await self.network.deliver()
            self.clock.now += LEASE + 1
            for process in self.processes:
                await process.books.turn(self.budgets, {})
                process.queue.flush()
                await process.books.turn(self.budgets, {})

    def charges(self, id):
        """Charges that an exchange must have, by count."""
        if id in self.settled:
            return self.settled[id]
        if id in self.marked:
            return {hold.scope: hold.amount for hold in self.holds[id] if not hold.slot}
        assert id not in self.left or id in self.unmarked, f"{id} reached a provider and is free"
        return {}

    async def check(self):
        rows, counted = self.table.rows(), Counter()
        for id in {*self.holds, *rows}:
            due, (written, source) = self.charges(id), rows.get(id, ({}, ""))
            assert {scope: amount for scope, amount in written.items() if amount} == {
                scope: amount for scope, amount in due.items() if amount
            }, f"{id} {source}"
            if id not in self.left:
                assert not any(due.values()), f"{id} never left"
            elif id in self.settled or id in self.marked:
                assert id in rows, f"{id} has no row"
            for scope, amount in due.items():
                assert amount >= 0  # I2
                counted[scope, self.where[id, scope]] += amount
        scopes = sorted({scope for _, scope in self.where})
        for back in (0.0, 60.0):  # this minute, and the last one
            self.clock.now -= back
            levels = await self.levels(scopes)
            for scope, level in levels.items():
                number = window_at(self.clock(), self.budgets[scope.partition(":")[0]].window)[0]
                assert level.reserved == 0, scope  # I3
                assert level.settled == counted[scope, number], scope  # I4, I8


STORES = {
    "memory": lambda _directory, _number, clock: [MemoryCounters(clock)],
    "sqlite": lambda directory, number, clock: [SqliteCounters(directory / f"{number}.db", clock) for _ in range(2)],
    "redis": lambda directory, number, clock: [open_redis(directory / f"{number}", clock) for _ in range(2)],
}
"""Stores that two processes use in turn."""


async def play(world, stores, name, steps):
    """Play one history of so many steps to its end. The differences that it shows; the stores are closed."""
    try:
        for _ in range(steps):
            await world.step()
        await world.rest()
        await world.check()
    except AssertionError as error:
        return [f"{name}: {error}"]
    finally:
        for each in stores:
            await each.close()
    return []


WHOLE = {"memory": 20_000, "sqlite": 1000, "redis": 500}
"""Histories of an exhaustive run."""


@pytest.mark.parametrize(
    ("store", "histories"),
    [
        ("memory", 60),
        ("sqlite", 15),
        ("redis", 5),
        *(pytest.param(*whole, marks=exhaustive) for whole in WHOLE.items()),
    ],
)
async def test_invariants_hold_in_random_histories(store, histories, *, clocks, exchange, tmp_path, monkeypatch):
    seen, table, troubles, differ = Counter(), Table(), Counter(), []
    for seed in range(histories):
        clock, chance = clocks(), random.Random(seed)
        stores = STORES[store](tmp_path, seed, clock)
        world = World(clock, chance, cycle(stores).__next__, exchange, table)
        world.network.trouble = chance.choice([0.0, 0.05, 0.2, 0.4])
        monkeypatch.setattr(books, "MAX_OWED", chance.choice([10_000, 1]))
        differ += await play(world, stores, f"history {seed}", STEPS)
        seen += world.seen
        troubles += world.network.seen
        seen["expired"] += sum(source == "expired" for _, source in table.rows().values())
        seen["free"] += sum(id in world.left and not world.charges(id) for id in world.unmarked)
        table.clear()
    counts = f"{histories} histories, {sum(troubles.values())} calls, {len(differ)} differences"
    print(f"{store}: {counts}; {dict(troubles)}; {dict(seen)}")  # noqa: T201 - the result of an exhaustive run
    assert not differ, differ[:5]
    if histories >= 100:  # otherwise the histories show little
        for what in ("refused", "used", "liar", "cut", "left", "failed", "abandoned", "died", "expired", "free"):
            assert seen[what] > 10, seen
        assert min(troubles[what] for what in TROUBLE) > 10, troubles


# --- I9: a client cannot lower its charge

LIMITS = [-1, 0, 1, "5", 1e308, 5.5, None, True, [], 10**9, 10**30]
CHOICES = [1, 0, -1, 10**9, "3", None, 1e308]
WRITTEN = 40  # words of an answer before its client disconnects


@pytest.mark.parametrize("asked", LIMITS)
@pytest.mark.parametrize("choices", CHOICES)
async def test_no_hostile_field_lowers_a_charge(clocks, exchange, asked, choices):
    """The request is refused, or a client that disconnects before any usage is charged at least 90 % of the true
    tokens.
    """
    counters = MemoryCounters(clocks())
    budget = BudgetSettings(name="b", unit="tokens", limit=10**15, window="total")
    body = {"model": "m", "messages": [{"role": "user", "content": "word " * 30}], "max_tokens": asked, "n": choices}
    try:
        sent = exchange(body)
    except Refusal:
        return
    leases = Leases(counters)
    assert await refused(Reserve([budget], counters, leases, 4096, lambda *_: None), sent) is None
    [held] = await counters.levels([("b", 0)])
    assert held.reserved >= 31 + min(WRITTEN, sent.request.ask.max_output_tokens or WRITTEN)
    sent.route.forwarded, sent.answer.status, sent.answer.target = True, 200, sent.route.targets[0]
    words = min(WRITTEN, sent.request.ask.max_output_tokens or WRITTEN)
    sent.answer.report = Report(output_bytes=5 * words, output_events=words)
    sent.end()
    await Settle(counters, leases, lambda *_: None)(sent)
    [level] = await counters.levels([("b", 0)])
    assert level.reserved == 0
    assert 0.9 * (30 + words) <= level.settled <= held.reserved


# --- I15: money is exact


@pytest.mark.hypothesis
def test_no_charge_is_off_by_a_unit():
    """Random prices and usages, in whole numbers: rounded up, by less than a nano-USD."""
    chance = random.Random(15)
    femto = 10**6  # parts of a nano-USD
    for _ in range(examples(300_000)):
        plain, output = chance.randrange(10**9), chance.randrange(10**9)
        tokens = chance.randrange(10**6), chance.randrange(10**5)
        price = Price(plain, output, plain, plain, output, chance.randrange(10**9))
        exact = tokens[0] * plain + tokens[1] * output + price.per_request
        assert 0 <= prices.cost(price, Usage(*tokens)) * femto - exact < femto
        assert prices.bound(price, *tokens) * femto >= exact
