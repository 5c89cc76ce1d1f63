"""The invariants of budgets in any order of events: random histories of two processes and their store.

The numbers are the design's. The oracle keeps every charge by the count and window of its reservation, and adds it up
independently. `bench.soak` checks the same invariants live.
"""

import random
from collections import Counter, defaultdict
from decimal import Decimal
from itertools import cycle

import pytest

from extproc import prices
from extproc.accounting.books import Books
from extproc.accounting.settle import Settle
from extproc.budgets import BudgetSettings, Reserve, compile_budget
from extproc.stores import StoreError, window_at
from extproc.stores.memory import MemoryCounters
from extproc.stores.sqlite import SqliteCounters
from extproc.words.dialect import Report
from extproc.words.errors import STORE_UNAVAILABLE, Refusal
from extproc.words.exchange import Consumer, Price, Target, Usage
from tests.samples import examples

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


class Flaky:
    """A store that sometimes does not answer. The settle may have happened all the same."""

    def __init__(self, store, chance):
        self._store, self._chance = store, chance

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def reserve(self, *args, **kwargs):
        if self._chance.random() < 0.03:
            raise StoreError("no answer")
        return await self._store.reserve(*args, **kwargs)

    async def settle(self, *args, **kwargs):
        if self._chance.random() < 0.03:
            raise StoreError("not sent")
        settled = await self._store.settle(*args, **kwargs)
        if self._chance.random() < 0.03:
            raise StoreError("no answer")
        return settled


async def refused(stage, sent):
    """The refusal, or None."""
    try:
        await stage(sent)
    except Refusal as refusal:
        return refusal
    return None


class Queue:
    """A process's queue for the ledger. Queued rows are lost when the process dies."""

    def __init__(self, table):
        self.table, self.rows, self.on_written = table, [], lambda _ids: None

    def add(self, row):
        self.rows.append(row)
        return True

    def flush(self):
        for row in self.rows:
            known = self.table.get(row.id)
            if known is None or (known.usage_source == "expired" != row.usage_source):
                self.table[row.id] = row
        self.on_written([row.id for row in self.rows])
        self.rows = []


class Process:
    def __init__(self, world):
        self.world, self.live = world, {}
        self.queue, self.leases = Queue(world.table), set()
        store = Flaky(world.store(), world.chance)
        self.counters = store
        self.books = Books(store, self.queue, again=LEASE, now=world.clock)
        self.settle = Settle(store, self.leases, lambda *_: None, keep=lambda: True, owe=self.books.owe)
        self.configure()

    def configure(self):
        world = self.world
        self.reserve = Reserve(
            world.settings, self.counters, self.leases, DEFAULT, lambda *_: None, lease=LEASE, now=world.clock
        )


class World:
    def __init__(self, clock, chance, store, make):
        self.clock, self.chance, self.store, self.make = clock, chance, store, make
        self.table, self.where, self.number = {}, {}, 0  # rows by id; by id and count: the window of the reservation
        self.overdue = set()  # ids whose lease expired
        self.set_limits("1")
        self.processes = [Process(self), Process(self)]
        self.seen = Counter()

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
        if (refusal := await refused(process.reserve, sent)) is not None:
            self.seen["refused"] += 1
            assert not sent.forwarded  # I6
            assert await self.levels(list(wanted)) == before  # I7: no budget reserved anything
            if refusal.kind is not STORE_UNAVAILABLE:
                short = [scope for scope, amount in wanted.items() if not self.fits(scope, amount, before[scope])]
                assert sent.denied_by in {scope.partition(":")[0] for scope in short}  # I10
            return
        after = await self.levels(list(wanted))
        for scope, amount in wanted.items():
            assert self.fits(scope, amount, before[scope])  # I1, I14
            assert after[scope].reserved == before[scope].reserved + amount  # I7
            budget = self.budgets[scope.partition(":")[0]]
            self.where[sent.id, scope] = window_at(self.clock(), budget.window)[0]
        process.live[sent.id] = sent
        sent.forwarded = True

    def wanted(self, sent):
        """The most a request needs of each count, computed in the simplest way."""
        found = defaultdict(int)
        for target in sent.targets:
            ceiling = target.max_output_tokens
            output = min(sent.json.get("max_tokens", ceiling or DEFAULT), ceiling or 10**9) * sent.json.get("n", 1)
            for budget in self.budgets.values():
                if budget.covers(sent, target):
                    unit = budget.settings.unit
                    tokens = (len(sent.body), output)
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
        end = chance.choice(["used", "used", "used", "liar", "cut", "left", "failed", "abandoned"])
        target = chance.choice(sent.targets)  # after a failover, not the first target
        room = sent.reservation.outputs[sent.targets.index(target)]
        output = chance.randint(1, max(1, room))
        if end == "abandoned":
            sent.forwarded = False
        elif end == "failed":
            sent.status, sent.target = 500, target
        elif end != "left":
            sent.status, sent.target = 200, target
            usage = Usage(chance.randint(1, len(sent.body)), output) if end == "used" else None
            if end == "liar":
                usage = Usage(0, output)
            sent.report = Report(usage=usage, output_bytes=output, output_events=min(output, 5))
        self.seen[end] += 1
        sent.end(whole=end == "failed")
        await process.settle(sent)
        if chance.random() < 0.05 and sent.id not in self.overdue:
            self.die(process)
            return
        process.books.enter(sent)
        if chance.random() < 0.3 and not process.books._owed:  # I5
            assert not await process.counters._store.settle(sent.id, [3] * len(sent.reservation.claims))

    async def turn(self):
        process = self.chance.choice(self.processes)
        if self.chance.random() < 0.8:
            for id in list(process.leases):
                await process.counters.forward(id, LEASE)
        if self.chance.random() < 0.7:
            process.queue.flush()
        await self.keep_books(process)

    async def keep_books(self, process):
        try:
            await process.books.turn(self.budgets, {})
        except StoreError:
            self.seen["turn failed"] += 1
        for id in {row.id for row in process.queue.rows if row.usage_source == "expired"}:
            self.overdue.add(id)

    def die(self, process):
        late = {row.id for row in process.queue.rows if row.usage_source != "expired"} | process.books._owed.keys()
        if (
            late & self.overdue
        ):  # a process that settles after the lease and then dies at once: the correction has no row
            return
        self.seen["died"] += 1
        self.processes[self.processes.index(process)] = Process(self)

    async def step(self):
        what = self.chance.random()
        if what < 0.4:
            await self.request()
        elif what < 0.7:
            await self.answer()
        elif what < 0.85:
            await self.turn()
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
        for process in self.processes:
            process.live.clear()
            process.leases.clear()
        for _ in range(6):
            self.clock.now += LEASE + 1
            for process in self.processes:
                await self.keep_books(process)
                process.queue.flush()
                await self.keep_books(process)

    async def check(self):
        scopes = sorted({scope for _, scope in self.where})
        charged = Counter()
        for row in self.table.values():
            for scope, amount in (row.charges or {}).items():
                assert amount >= 0  # I2
                charged[scope, self.where[row.id, scope]] += amount
        for back in (0.0, 60.0):  # this minute, and the last one
            self.clock.now -= back
            levels = await self.levels(scopes)
            for scope, level in levels.items():
                number = window_at(self.clock(), self.budgets[scope.partition(":")[0]].window)[0]
                assert level.reserved == 0, scope  # I3
                assert level.settled == charged[scope, number], scope  # I4, I8


@pytest.fixture(params=["memory", "sqlite"])
def open_stores(request, tmp_path):
    """Call it with a number and a clock. Returns the stores that two processes use in turn, and the number of steps."""

    def open_(number, clock):
        if request.param == "memory":
            return [MemoryCounters(clock)]
        return [SqliteCounters(tmp_path / f"{number}.db", clock) for _ in range(2)]

    open_.histories = examples(300 if request.param == "memory" else 40)
    return open_


@pytest.mark.hypothesis
async def test_invariants_hold_in_random_histories(open_stores, clocks, exchange):
    seen = Counter()
    for seed in range(open_stores.histories):
        clock = clocks()
        stores = open_stores(seed, clock)
        world = World(clock, random.Random(seed), cycle(stores).__next__, exchange)
        try:
            for _ in range(STEPS):
                await world.step()
            await world.rest()
            await world.check()
        except AssertionError as error:
            raise AssertionError(f"history {seed}: {error}") from error
        finally:
            for store in stores:
                await store.close()
        seen += world.seen
        seen["expired"] += sum(row.usage_source == "expired" for row in world.table.values())
    for what in ("refused", "used", "liar", "cut", "left", "failed", "abandoned", "died", "expired"):
        assert seen[what] > 10, seen  # otherwise the histories show little


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
    leases = set()
    assert await refused(Reserve([budget], counters, leases, 4096, lambda *_: None), sent) is None
    [held] = await counters.levels([("b", 0)])
    assert held.reserved >= 31 + min(WRITTEN, sent.ask.max_output_tokens or WRITTEN)
    sent.forwarded, sent.status, sent.target = True, 200, sent.targets[0]
    words = min(WRITTEN, sent.ask.max_output_tokens or WRITTEN)
    sent.report = Report(output_bytes=5 * words, output_events=words)
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
