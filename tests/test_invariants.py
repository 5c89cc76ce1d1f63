"""What must hold of budgets, whatever happens in whatever order: two processes, one store, one ledger, random histories.

The numbers are the design's. The oracle keeps every charge by the count and window that its request was reserved in,
and adds it up anew. `bench.soak` holds the same live.
"""

import random
from collections import Counter, defaultdict

import pytest

from extproc import prices
from extproc.books import Books
from extproc.budgets import BudgetSettings, Reserve, compile_budget
from extproc.dialects import Report
from extproc.errors import Refusal
from extproc.exchange import Consumer, Price, Target, Usage
from extproc.settle import Settle
from extproc.stores import StoreError, window_at
from extproc.stores.memory import MemoryCounters
from extproc.stores.sqlite import SqliteCounters

LEASE = 20.0
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
    """A store that sometimes does not answer; a settle may have happened all the same."""

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


class Queue:
    """A process's way into the ledger: what is queued is lost when it dies."""

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
        self.settle = Settle(store, self.leases, lambda *_: None, keep=True, owe=self.books.owe)
        self.configure()

    def configure(self):
        world = self.world
        self.reserve = Reserve(
            world.settings, self.counters, self.leases, 300, lambda *_: None, lease=LEASE, now=world.clock
        )


class World:
    def __init__(self, clock, chance, store, make):
        self.clock, self.chance, self.store, self.make = clock, chance, store, make
        self.table, self.where, self.number = {}, {}, 0  # rows by id; by id and count: the window it was reserved in
        self.overdue = set()  # settled late
        self.set_limits(1.0)
        self.processes = [Process(self), Process(self)]
        self.seen = Counter()

    def set_limits(self, factor):
        self.settings = [
            BudgetSettings(
                name=name,
                **{
                    **given,
                    "limit": round(float(given["limit"]) * factor, 6)
                    if given["unit"] == "usd"
                    else int(given["limit"] * factor),
                },
            )
            for name, given in BUDGETS.items()
        ]
        self.budgets = {entry.name: compile_budget(entry) for entry in self.settings}

    async def levels(self, scopes):
        pairs = [(scope, self.budgets[scope.partition(":")[0]].window) for scope in scopes]
        return dict(zip(scopes, await self.store().levels(pairs), strict=True))

    # --- what can happen

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
            await process.reserve(sent)
        except Refusal as refusal:
            self.seen["refused"] += 1
            assert not sent.forwarded  # I6
            assert await self.levels(list(wanted)) == before  # I7: none of them took anything
            if refusal.kind.status != 503:
                short = [scope for scope, amount in wanted.items() if not self.fits(scope, amount, before[scope])]
                assert short, refusal.message  # I10
                assert sent.denied_by in {scope.partition(":")[0] for scope in short}
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
        """What a request needs at most of each count, the simplest way to say it."""
        most = sent.json.get("max_tokens", 300)
        found = defaultdict(int)
        for target in sent.targets:
            output = min(most, target.max_output_tokens or most) * sent.json.get("n", 1)
            if "max_tokens" not in sent.json:
                output = min(300, target.max_output_tokens or 300) * sent.json.get("n", 1)
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
        target = chance.choice(sent.targets)  # after a failover, not the first
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
        await process.settle(sent)
        if sent.id in self.overdue:
            process.books.enter(sent)
            process.queue.flush()
            return
        if chance.random() < 0.05:
            self.die(process)
            return
        process.books.enter(sent)
        if chance.random() < 0.3:  # I5
            settled = sent.charges
            await process.counters._store.settle(
                sent.id, [3] * len(sent.reservation.claims)
            ) if not process.books._owed else None
            assert sent.charges == settled

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
            self.set_limits(self.chance.choice([0.3, 0.7, 1.0, 1.5]))  # I14
            for process in self.processes:
                process.configure()

    # --- what must be

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


@pytest.mark.parametrize(("store", "histories", "steps"), [("memory", 150, 120), ("sqlite", 25, 80)])
async def test_random_histories(store, histories, steps, clocks, exchange, tmp_path):
    seen = Counter()
    for seed in range(histories):
        clock = clocks()
        if store == "memory":
            one = MemoryCounters(clock)
            open_store = lambda one=one: one  # noqa: E731
        else:
            opened = [SqliteCounters(tmp_path / f"{seed}.db", clock) for _ in range(2)]
            turns = iter(range(10**9))
            open_store = lambda opened=opened, turns=turns: opened[next(turns) % 2]  # noqa: E731
        world = World(clock, random.Random(seed), open_store, exchange)
        try:
            for _ in range(steps):
                await world.step()
            await world.rest()
            await world.check()
        except AssertionError as error:
            raise AssertionError(f"history {seed}: {error}") from error
        finally:
            for counters in [one] if store == "memory" else opened:
                await counters.close()
        seen += world.seen
        seen["expired"] += sum(row.usage_source == "expired" for row in world.table.values())
    for what in ("refused", "used", "liar", "cut", "left", "failed", "abandoned", "died", "expired"):
        assert seen[what] > 10, seen  # else the histories say little
