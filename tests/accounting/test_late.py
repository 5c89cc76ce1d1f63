"""Late settlement in any order of events: two processes, their store behind a bad network, and a provider that ends,
fails and forgets. The counters are the ledger, every usage is settled once, and nothing stays held.
"""

import json
import random
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from extproc.dialects import client_apis
from extproc.money.accounting.books import Books
from extproc.money.accounting.late import FIRST, LONGEST, Park, pause_after
from extproc.money.accounting.notes import Note, Told, pack_note, unpack_note
from extproc.money.accounting.poller import Poller, Situation
from extproc.money.accounting.settle import Settle
from extproc.money.budgets import BudgetSettings, Leases, Reserve, compile_budget
from extproc.money.ledger import Row
from extproc.stores import MAX_FACTS, StoreError
from extproc.stores.memory import MemoryCounters
from extproc.upstream import prices
from extproc.upstream.credentials.asking import NotAskedError, TooLargeError
from extproc.words.dialect import Report
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, Target, Usage
from tests.accounting.test_invariants import LEASE, STORES, Queue, Table, play
from tests.stores.wire import Died, Network, Wire

STEPS = 80
HOLD = 40_000.0
TARGET = Target("m", "openai", "m", price=prices.price(2, 8))
BUDGETS = {
    "tokens": {"unit": "tokens", "limit": 10**9, "window": "total"},
    "money": {"unit": "usd", "limit": 10**6, "window": "total", "per": ["consumer"]},
    "calls": {"unit": "requests", "limit": 10**6, "window": "total"},
    "busy": {"unit": "concurrency", "limit": 1000},
}
SETTINGS = [BudgetSettings(name=name, **fields) for name, fields in BUDGETS.items()]
BODY = {"model": "m", "messages": [{"role": "user", "content": "x" * 50}], "max_tokens": 95}
COMPILED = {entry.name: compile_budget(entry) for entry in SETTINGS}
RESPONSES = client_apis()["openai_responses"]


class Provider:
    """Responses in the background, by id: when each ends and its usage. It does not answer every time."""

    def __init__(self, clock, chance):
        self.clock, self.chance, self.kept, self.billed = clock, chance, {}, {}
        self.trouble = 0.2

    def create(self, id):
        usage = Usage(self.chance.randint(1, 90), self.chance.randint(1, 90))
        self.kept[id] = self.clock() + self.chance.choice([0.0, 5.0, 300.0]), usage
        self.billed[id] = usage

    def answer(self, id):
        ends, usage = self.kept[id]
        if ends > self.clock():
            return b'{"id":"%b","object":"response","status":"in_progress","usage":null}' % id.encode()
        return (
            b'{"id":"%b","object":"response","status":"completed","usage":{"input_tokens":%d,"output_tokens":%d}}'
            % (
                id.encode(),
                usage.input_tokens,
                usage.output_tokens,
            )
        )

    async def get(self, name, path, **_options):
        if self.chance.random() < self.trouble:
            raise NotAskedError("it does not answer")
        return 200, self.answer(path.rpartition("/")[2])


class Process:
    def __init__(self, world):
        self.world, self.work = world, []
        self.queue = Queue(world.table)
        self.counters = Wire(world.store(), world.network)
        self.leases = Leases(self.counters)
        self.leases._wind = lambda _seconds: None
        self.books = Books(self.counters, self.queue, again=LEASE, now=world.clock)
        park = Park(self.counters, self.books.told, hold=HOLD, now=world.clock)
        self.reserve = Reserve(SETTINGS, self.counters, self.leases, 100, lambda *_: None, lease=LEASE, now=world.clock)
        self.settle = Settle(
            self.counters, self.leases, lambda *_: None, keep=lambda: True, owe=self.books.owe, park=park
        )
        situation = Situation(SimpleNamespace(target=lambda *_: TARGET), COMPILED, world.provider, 1 << 20)
        self.poller = Poller(
            self.counters, self.books, lambda: situation, lambda work, *_, **__: self.work.append(work), now=world.clock
        )


class World:
    def __init__(self, clock, chance, stores, make, table):
        self.clock, self.chance, self.stores, self.make, self.table = clock, chance, stores, make, table
        self.network = Network(chance, lambda *_: None)
        self.provider = Provider(clock, chance)
        self.pending, self.made = {}, 0  # client's exchanges by object
        self.seen = Counter()
        self.processes = [Process(self), Process(self)]

    def store(self):
        return self.chance.choice(self.stores)

    def exchange(self, body):
        sent = self.make(body, consumer=Consumer(f"c{self.chance.randrange(2)}"), labels={}, targets=(TARGET,))
        sent.request.dialect, sent.request.ask.lasting = RESPONSES, True
        return sent

    async def create(self):
        process = self.chance.choice(self.processes)
        sent = self.exchange(dict(BODY))
        self.made += 1
        sent.id = id = f"resp_{self.made}"
        try:
            await process.reserve(sent)
        except Refusal:  # the store did not answer
            return
        sent.route.forwarded = True
        self.provider.create(id)
        sent.answer.status, sent.answer.target, sent.answer.report = 200, TARGET, Report(pending=id)
        sent.end(whole=True)
        await process.settle(sent)
        self.seen[sent.money.usage.source] += 1
        if self.chance.random() < 0.9:  # otherwise the process dies before the row
            process.books.enter(sent)

    async def read(self):
        """A client asks for an object."""
        process, id = self.chance.choice(self.processes), self.chance.choice([*self.provider.kept, None])
        if id is None:
            return
        sent = self.exchange(dict(BODY))
        sent.id, sent.route.kept.made_by, sent.request.ask.free = f"get-{self.chance.random()}", id, True
        sent.route.forwarded, sent.answer.status, sent.answer.target = True, 200, TARGET
        sent.answer.report = Report()
        RESPONSES.observe(self.provider.answer(id), sent.answer.report)
        sent.end(whole=True)
        await process.settle(sent)

    async def turn(self, process):
        for work in (process.poller.turn, lambda: process.books.turn(COMPILED, {}), process.leases.turn):
            try:
                await work()
            except StoreError:
                self.seen["turn failed"] += 1
            while process.work:
                await process.work.pop()
        if self.chance.random() < 0.7:
            process.queue.flush()

    def die(self, process):
        self.seen["died"] += 1
        for work in process.work:
            work.close()
        self.processes[self.processes.index(process)] = Process(self)

    async def step(self):
        what, process = self.chance.random(), self.chance.choice(self.processes)
        try:
            if what < 0.25:
                await self.create()
            elif what < 0.35:
                await self.read()
            elif what < 0.75:
                await self.turn(process)
            elif what < 0.8 and self.network.late:
                await self.network.deliver()
            elif what < 0.95:
                self.clock.now += self.chance.choice([0.5, 3.0, 61.0])
            else:
                self.die(process)
        except Died:
            self.die(process)

    async def rest(self):
        self.network.trouble = self.provider.trouble = 0.0
        for process in list(self.processes):
            self.die(process)
        for turn in range(30):
            while self.network.late and turn > 3:
                await self.network.deliver()
            self.clock.now += LONGEST + 1
            for process in self.processes:
                await self.turn(process)
                process.queue.flush()
                await process.books.turn(COMPILED, {})

    async def check(self):
        charged, sources = Counter(), Counter()
        found = self.table._db.execute(
            "SELECT id, usage_source, input_tokens, output_tokens, cost FROM exchanges"
        ).fetchall()
        rows = {id: rest for id, *rest in found}
        for id, (charges, source) in self.table.rows().items():
            charged.update(charges)
            sources[source] += 1
            assert source != "pending", id
            if source == "provider":
                usage = self.provider.billed[id]
                assert rows[id][1:] == [usage.input_tokens, usage.output_tokens, prices.cost(TARGET.price, usage)], id
                assert sorted(charges.values()) == sorted([1, usage.total_tokens, rows[id][3]]), id
        scopes = [*charged, "busy"]
        levels = await self.stores[0].levels([(scope, 0) for scope in scopes])
        for scope, level in zip(scopes, levels, strict=True):
            assert (level.settled, level.reserved) == (charged[scope], 0), scope
        self.seen += sources


@pytest.mark.parametrize(("store", "histories"), [("memory", 60), ("sqlite", 12), ("redis", 4)])
async def test_every_usage_is_settled_once_whatever_dies(store, histories, *, clocks, exchange, tmp_path):
    seen, differ = Counter(), []
    for seed in range(histories):
        clock, chance, table = clocks(), random.Random(seed), Table()
        stores = STORES[store](tmp_path, seed, clock)
        world = World(clock, chance, stores, exchange, table)
        world.network.trouble = chance.choice([0.0, 0.1, 0.3])
        differ += await play(world, stores, f"history {seed}", STEPS)
        seen += world.seen
    assert not differ, (len(differ), differ[:5], seen)
    assert seen["provider"] > 5 * histories, seen
    assert seen["died"] > histories, seen


def test_the_looks_become_seldom():
    assert [pause_after(age) for age in (0, 16, 80, 10**6)] == [FIRST, FIRST, 10, LONGEST]


def test_a_note_has_room_in_the_facts_of_a_reservation_whatever_clients_wrote():
    row = Row(id="1", time=1.0, usage_source="pending", labels={str(number): "x" * 250 for number in range(32)})
    note = Note(row, "c", "openai_batches", "batch_1", 1.0, 2.0, (1, 2), (3, 4))
    packed = pack_note(note)
    assert len(packed) <= MAX_FACTS
    assert (unpack_note(packed).object, unpack_note(packed).row.labels) == ("batch_1", {})
    for odd in (b"", b"\x90", b"nonsense", pack_note(note)[:-1]):
        assert unpack_note(odd) is None


class Batch:
    """A batch of two requests that has ended, as a provider tells it; `fail` is raised in the middle of its results."""

    def __init__(self, *, usage=None, lines=2, completed=2, status=200, fail=None):
        told = {"id": "batch_1", "object": "batch", "status": "completed", "output_file_id": "file-1"}
        told |= {"request_counts": {"completed": completed}, "usage": usage}
        self.batch, self.status, self.lines, self.fail = json.dumps(told).encode(), status, lines, fail

    async def get(self, _name, path, *, sink=None, most=0):
        if sink is None:
            return self.status, self.batch
        assert path == "/v1/files/file-1/content"
        body = {"object": "chat.completion", "model": "m", "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
        line = json.dumps({"response": {"status_code": 200, "body": body}}).encode() + b"\n"
        for cut in (line * self.lines).partition(b"10"):
            sink(cut)
        if self.fail is not None:
            raise self.fail
        return 200, b""


class Inside:
    """A batch of Gemini's, which has its answers in it, as pieces."""

    api = "gemini_batches"

    def __init__(self, *, counted=2, told=2, fail=None):
        answer = {"response": {"usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5}}}
        batch = {"state": "BATCH_STATE_SUCCEEDED", "batchStats": {"successfulRequestCount": str(counted)}}
        batch["output"] = {"inlinedResponses": {"inlinedResponses": [answer] * told + [{"error": {}}]}}
        self.batch, self.fail = json.dumps({"name": "batches/1", "metadata": batch}).encode(), fail

    async def get(self, _name, path, *, sink, most):
        assert (path, most) == ("/v1/batches/1", 1 << 20)
        if self.fail is not None:
            raise self.fail
        sink(self.batch[:50])
        sink(self.batch[50:])
        return 200, b""


SUM = {"input_tokens": 21, "output_tokens": 11}
FEES = replace(TARGET, price=prices.price(2, 8, per_request=0.001))


@pytest.mark.parametrize(
    ("provider", "target", "expected"),
    [
        (Batch(usage=SUM), TARGET, (21, 11, "provider")),
        (Batch(usage=SUM), FEES, (20, 10, "provider")),
        (Batch(), TARGET, (20, 10, "provider")),
        (Batch(lines=1), TARGET, (300, 200, "estimated")),
        (Batch(lines=1, usage=SUM), FEES, (21, 11, "provider")),
        (Batch(fail=TooLargeError()), TARGET, (300, 200, "estimated")),
        (Batch(fail=TooLargeError(), usage=SUM), FEES, (21, 11, "provider")),
        (Inside(), TARGET, (20, 10, "provider")),
        (Inside(), FEES, (20, 10, "provider")),
        (Inside(counted=0, told=0), TARGET, (0, 0, "provider")),
        (Inside(counted=3), TARGET, (300, 200, "estimated")),
        (Inside(fail=TooLargeError()), TARGET, (300, 200, "estimated")),
        (Batch(status=404), TARGET, (300, 200, "estimated")),
        (Batch(completed=0), TARGET, (0, 0, "provider")),
        (Batch(status=503), TARGET, None),
        (Batch(fail=NotAskedError()), TARGET, None),
    ],
)
async def test_the_usage_of_a_batch_is_read_where_it_is_whole(provider, target, expected, clocks):
    clock, rows, work = clocks(), [], []
    counters = MemoryCounters(clock)
    books = Books(counters, SimpleNamespace(add=lambda row: rows.append(row) or True), now=clock)
    row = Row(id="r", time=1.0, target="m", provider="openai", usage_source="pending")
    api, id = getattr(provider, "api", "openai_batches"), "batches/1" if isinstance(provider, Inside) else "batch_1"
    note = Note(row, "c", api, id, clock(), clock() + HOLD, (300, 200), (1, 1), batch=True)
    await counters.reserve("r", [COMPILED["tokens"].hold("tokens", 500), COMPILED["money"].hold("money", 10**6)], LEASE)
    await counters.park("r", pack_note(note), lease=HOLD, again=0.0)
    situation = Situation(SimpleNamespace(target=lambda *_: target), COMPILED, provider, 1 << 20)
    poller = Poller(counters, books, lambda: situation, lambda one, *_, **__: work.append(one), now=clock)
    await poller.turn()
    await work.pop()
    levels = await counters.levels([("tokens", 0), ("money", 0)])
    if expected is None:
        assert (rows, [level.reserved for level in levels]) == ([], [500, 10**6])
        return
    [found] = rows
    assert (found.input_tokens, found.output_tokens, found.usage_source) == expected
    if target is TARGET:  # half of the plain price
        assert found.cost == expected[0] * 1000 + expected[1] * 4000
    assert [level.settled for level in levels] == [sum(expected[:2]), found.cost]
    assert [level.reserved for level in levels] == [0, 0]


@pytest.mark.parametrize("options", [{"most": 0}, {"able": lambda _provider: False}])
async def test_one_that_cannot_be_parked_is_charged_as_held_when_it_is_created(options, clocks, exchange):
    clock = clocks()
    world = World(clock, random.Random(1), [MemoryCounters(clock)], exchange, Table())
    for process in world.processes:
        process.settle._park = Park(process.counters, process.books.told, hold=HOLD, now=clock, **options)
    while not world.seen:
        await world.create()
    assert world.seen == {"estimated": 1}
    [level] = await world.stores[0].levels([("tokens", 0)])
    assert level.settled > 0
    assert level.reserved == 0


@pytest.mark.parametrize(
    ("dialect", "going", "ended"),
    [
        ("openai_batches", {"object": "batch", "status": "in_progress"}, {"status": "expired"}),
        ("anthropic_batches", {"type": "message_batch"}, {"processing_status": "ended"}),
        ("gemini_batches", {"metadata": {"state": "JOB_STATE_RUNNING"}}, {"metadata": {"state": "JOB_STATE_FAILED"}}),
    ],
)
def test_a_clients_look_at_a_batch_that_has_ended_brings_the_next_look_forward(dialect, going, ended, exchange):
    told, api = Told(), client_apis()[dialect]
    for answer, expected in ((going, {}), (going | ended, {"made": None})):
        sent = exchange(dict(BODY))
        sent.request.dialect, sent.answer.report, sent.answer.status = api, Report(), 200
        sent.route.forwarded, sent.route.kept.made_by = True, "made"
        api.observe(json.dumps({"id": "batch_1", "name": "batches/1"} | answer).encode(), sent.answer.report)
        sent.end(whole=True)
        told.add(sent)
        assert told.reports == expected
