"""Counters and ledger agree, whichever process ends at whichever moment."""

import asyncio
import dataclasses

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extproc.money.accounting import books as books_module
from extproc.money.accounting.books import Books, row_of_expired
from extproc.money.budgets import BudgetSettings, Facts, compile_budget, unpack_facts
from extproc.money.budgets.facts import pack_facts
from extproc.money.ledger import Row, open_ledger
from extproc.money.ledger.query import ExchangeQuery
from extproc.stores import CORRECTED, EXPIRE_BATCH, LATE_SETTLE, Expired, Hold, StoreError
from extproc.stores.memory import MemoryCounters
from extproc.stores.sqlite import SqliteCounters
from extproc.words.exchange import Usage
from tests.exchanges import new_exchange, write
from tests.samples import examples
from tests.stores.sent import send

LEASE = 60.0
HOUR = 3600


def compiled(name, unit="requests", **fields):
    window = None if unit == "concurrency" else "total"
    return compile_budget(BudgetSettings(**{"name": name, "unit": unit, "limit": 1000, "window": window, **fields}))


BUDGETS = {
    budget.settings.name: budget
    for budget in (
        *(compiled("requests"), compiled("tokens", "tokens"), compiled("in", "input_tokens")),
        *(compiled("out", "output_tokens"), compiled("usd", "usd"), compiled("slots", "concurrency")),
    )
}


class Ledger:
    """A ledger in memory, written by hand. Rows still queued when a process dies are lost."""

    def __init__(self, room=10**6):
        self.room, self.queue, self.rows = room, [], {}
        self.on_written = lambda _ids: None

    def add(self, row):
        if len(self.queue) >= self.room:
            return False
        self.queue.append(row)
        return True

    def write(self):
        written, self.queue[:] = list(self.queue), []
        for row in written:
            old = self.rows.get(row.id)
            ended = row.usage_source == "expired"
            if old is None or (old.usage_source == "expired" and (row.complete or not ended)):
                self.rows[row.id] = row
            elif ended and old.usage_source != "expired" and (row.complete or old.charges is None):
                self.rows[row.id] = msgspec.structs.replace(old, charges=row.charges)
        self.on_written([row.id for row in written])


class Store(MemoryCounters):
    """A store that records the order of calls, and fails or does not answer when told to."""

    def __init__(self, clock):
        super().__init__(clock)
        self.calls, self.down, self.mute = [], False, False

    async def settle(self, id, amounts, *, keep=False):
        return await self._call("settle", super().settle(id, amounts, keep=keep))

    async def recorded(self, ids, *, expired=False):
        return await self._call("recorded", super().recorded(ids, expired=expired))

    async def expire(self, *, keep=0.0):
        return await self._call("expire", super().expire(keep=keep))

    async def _call(self, name, work):
        self.calls.append(name)
        if self.down:
            work.close()
            raise StoreError("down")
        result = await work
        if self.mute:
            raise StoreError("no answer")
        return result


class World:
    def __init__(self, clock, exchange, *, ledger=None):
        self.clock, self.exchange = clock, exchange
        self.store, self.ledger, self.expired = Store(clock), ledger or Ledger(), []
        self.books = Books(self.store, self.ledger, self.expired.append, now=clock)

    async def hold(self, id, amount=10):
        await send(self.store, id, [Hold("b", 0, 10**6, amount)], LEASE)

    async def settle(self, id, amount=7):
        """The work of `Settle` and `Enter`."""
        try:
            await self.store.settle(id, [amount], keep=self.books.keeps)
        except StoreError:
            self.books.owe(id, [amount])
        ended = self.exchange()
        ended.id, ended.money.usage, ended.money.cost, ended.money.charges = id, Usage(5, 2), 9, {"b": amount}
        ended.route.forwarded, ended.answer.status = True, 200
        ended.end(whole=True)
        self.books.enter(ended)

    async def turn(self, seconds=0.0):
        self.clock.now += seconds
        await self.books.turn(BUDGETS, {"alice": "red"})

    async def level(self):
        [level] = await self.store.levels([("b", 0)])
        return level.settled, level.reserved


@pytest.fixture
def world(clocks, exchange):
    return lambda **more: World(clocks(), exchange, **more)


# --- order of the steps


async def test_the_store_forgets_a_charge_only_after_its_row_is_written(world):
    here = world()
    await here.hold("a")
    await here.settle("a")
    await here.turn()
    assert "recorded" not in here.store.calls
    here.ledger.write()
    await here.turn()
    assert here.store.calls.index("settle") < here.store.calls.index("recorded")
    await here.turn(LEASE + 1)
    assert here.expired == []
    [row] = here.ledger.rows.values()
    assert (row.consumer, row.team, row.input_tokens, row.cost, row.charges) == ("alice", "red", 5, 9, {"b": 7})
    assert (row.usage_source, row.status, row.model, row.operation) == ("provider", 200, "m", "chat")
    assert await here.level() == (7, 0)


async def test_a_row_that_the_database_refused_is_made_when_its_lease_ends(world):
    here = world()
    await here.hold("a")
    await here.settle("a")
    here.ledger.queue.clear()
    here.ledger.on_refused("a")
    await here.turn()
    await here.turn(LEASE + 1)
    here.ledger.write()
    assert (here.ledger.rows["a"].usage_source, here.ledger.rows["a"].charges) == ("expired", {"b": 7})
    assert await here.level() == (7, 0)


@pytest.mark.parametrize("trouble", ["down", "mute"])
async def test_a_settle_without_an_answer_is_repeated_and_its_row_follows(world, trouble):
    here = world()
    await here.hold("a")
    setattr(here.store, trouble, True)
    await here.settle("a")
    assert here.ledger.queue == []
    with pytest.raises(StoreError):
        await here.turn(1)
    assert here.ledger.queue == [], "nobody knows whether it was charged"
    setattr(here.store, trouble, False)
    await here.turn(1)
    here.ledger.write()
    await here.turn(LEASE + 1)
    assert here.ledger.rows["a"].charges == {"b": 7}
    assert await here.level() == (7, 0)
    assert here.expired == []


@pytest.mark.parametrize("trouble", ["down", "mute"])
async def test_a_lease_that_expired_meanwhile_is_corrected(world, trouble):
    here = world()
    other = Books(here.store, (second := Ledger()), now=here.clock)
    second.rows = here.ledger.rows
    await here.hold("a")
    setattr(here.store, trouble, True)
    await here.settle("a")
    setattr(here.store, trouble, False)
    here.clock.now += LEASE + 1
    await other.turn(BUDGETS, {})
    second.write()
    assert here.ledger.rows["a"].usage_source == "expired"
    await here.turn()
    here.ledger.write()
    assert here.ledger.rows["a"].charges == {"b": 7}
    assert await here.level() == (7, 0)


async def test_a_death_after_such_a_correction_leaves_its_row_to_others(world):
    here = world()
    other = Books(here.store, here.ledger, now=here.clock)
    await here.hold("a")
    here.store.down = True
    await here.settle("a")
    here.store.down = False
    here.clock.now += LEASE + 1
    await other.turn(BUDGETS, {})
    here.ledger.write()
    await other.turn(BUDGETS, {})
    assert here.ledger.rows["a"].charges == {"b": 10}
    await here.turn()
    here.ledger.queue.clear()  # the process dies before its row is written
    here.clock.now += CORRECTED + 1
    await other.turn(BUDGETS, {})
    here.ledger.write()
    assert here.ledger.rows["a"].charges == {"b": 7}
    assert await here.level() == (7, 0)
    await other.turn(BUDGETS, {})
    here.clock.now += CORRECTED + 1
    assert await here.store.expire(keep=LEASE) == [], "it is recorded"


async def test_after_too_long_the_charge_of_the_lease_stays(world):
    here = world()
    await here.hold("a")
    here.store.down = True
    await here.settle("a")
    here.store.down = False
    here.clock.now += LEASE + 1
    await MemoryCounters.expire(here.store)  # by another process
    here.clock.now += LATE_SETTLE + 1
    await MemoryCounters.expire(here.store)
    await here.turn()
    [row] = here.ledger.queue
    assert (row.charges, row.input_tokens) == (None, 5)
    assert await here.level() == (10, 0)


async def test_rows_that_the_store_did_not_hear_of_are_reported_again(world):
    here = world()
    for id in "abc":
        await here.hold(id)
        await here.settle(id)
    here.ledger.write()
    here.store.down = True
    with pytest.raises(StoreError):
        await here.turn()
    here.store.down = False
    await here.turn(LEASE + 1)
    assert here.expired == []


async def test_written_rows_are_reported_in_batches(world, monkeypatch):
    monkeypatch.setattr(books_module, "_BATCH", 2)
    here = world()
    for id in "abcde":
        await here.hold(id)
        await here.settle(id)
    here.ledger.write()
    await here.turn()
    assert here.store.calls.count("recorded") == 3


async def test_settles_to_be_repeated_are_bounded(world, monkeypatch):
    monkeypatch.setattr(books_module, "MAX_OWED", 2)
    here = world()
    here.store.down = True
    for id in "abc":
        here.books.owe(id, [1])
    here.store.down, here.store.calls = False, []
    await here.turn()
    assert here.store.calls.count("settle") == 2


# --- a full ledger, and a stop


async def test_a_row_for_which_the_ledger_was_full_is_written_when_its_lease_ends(world):
    here = world(ledger=Ledger(room=0))
    await here.hold("a")
    await here.settle("a")
    here.ledger.room = 10
    await here.turn(LEASE + 1)
    here.ledger.write()
    await here.turn()
    [row] = here.ledger.rows.values()
    assert (row.usage_source, row.charges) == ("expired", {"b": 7})
    assert await here.level() == (7, 0)


async def test_leases_wait_while_the_ledger_has_no_room_for_their_rows(world):
    here = world(ledger=Ledger(room=0))
    for id in "abc":
        await here.hold(id)
    await here.turn(LEASE + 1)
    assert await here.level() == (30, 0)
    here.ledger.room = 2
    for _ in range(2):
        await here.turn(LEASE + 1)
        here.ledger.write()
    assert sorted(here.ledger.rows) == ["a", "b", "c"]
    await here.turn()
    told = len(here.expired)
    await here.turn(LEASE + 1)
    assert len(here.expired) == told
    assert await here.level() == (30, 0)


async def test_rows_that_wait_for_a_full_ledger_are_bounded_and_logged_once(world, monkeypatch):
    monkeypatch.setattr(books_module, "MAX_UNTAKEN", 3)
    here = world(ledger=Ledger(room=0))
    for number in range(6):
        await here.hold(str(number))
        await here.settle(str(number))
    assert not here.books.keeps
    assert len(here.store._live) == 3, "the store is no second ledger"
    for _ in range(3):
        await here.turn(LEASE + 1)
    assert here.expired == [], "nothing new is known"
    here.ledger.room = 10
    await here.turn(LEASE + 1)
    assert here.books.keeps
    here.ledger.write()
    await here.turn()
    assert sorted(here.ledger.rows) == ["0", "1", "2"]
    assert [told.id for told in here.expired] == ["0", "1", "2"]
    assert await here.level() == (42, 0), "all is charged, whatever has a row"
    assert here.store._live == {}


async def test_other_work_has_its_turn_while_many_leases_end(world):
    here = world(ledger=Ledger(room=0))
    for number in range(3 * EXPIRE_BATCH):
        await here.hold(str(number))
    turns = []

    async def other():
        while True:
            turns.append(len(here.store.calls))
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await here.turn(LEASE + 1)
    beside.cancel()
    assert len(turns) >= 3


async def test_at_a_stop_no_lease_ends_whose_row_could_not_be_written(world):
    here = world()
    await here.hold("a")
    here.clock.now += LEASE + 1
    here.ledger.room = 0  # stopped
    await here.books.catch_up()
    assert here.expired == []
    other = Books(here.store, (ledger := Ledger()), now=here.clock)
    await other.turn(BUDGETS, {})
    assert [row.id for row in ledger.queue] == ["a"]


# --- exchanges without a row


@pytest.mark.parametrize("operation", ["list_models", "usage", "budgets", "unknown"])
async def test_requests_without_a_model_have_no_row(world, operation):
    here = world()
    ended = here.exchange()
    ended.request.operation, ended.money.usage = operation, Usage(source="none")
    here.books.enter(ended)
    assert here.ledger.queue == []


async def test_requests_that_were_not_authenticated_have_no_row(world):
    here = world()
    unknown = new_exchange("id-1")
    write(unknown, operation="chat")
    here.books.enter(unknown)
    assert here.ledger.queue == []


async def test_without_a_ledger_no_settlement_is_kept(clocks, exchange):
    here = World(clocks(), exchange)
    here.books = Books(here.store, None, here.expired.append, now=here.clock)
    assert not here.books.keeps
    await here.hold("a")
    await here.settle("a")
    await here.hold("b")
    await here.turn(LEASE + 1)
    assert [expired.id for expired in here.expired] == ["b"]
    assert await here.level() == (17, 0)


async def test_a_request_that_was_never_forwarded_has_no_row(world):
    here = world()
    await here.store.reserve("a", [Hold("b", 0, 100, 10)], LEASE)
    await here.turn(LEASE + 1)
    assert here.ledger.queue == []
    assert await here.level() == (0, 0)


# --- the row of an exchange whose process died


def expired(amounts, *, settled=False):
    return Expired("x", forwarded=True, scopes=tuple(amounts), amounts=tuple(amounts.values()), settled=settled)


@pytest.mark.parametrize(
    ("amounts", "found"),
    [
        ({"requests": 1}, {"cost": None, "input_tokens": 0}),
        ({"usd": 5, "usd:team=a": 5}, {"cost": 5}),
        ({"usd": 0}, {"cost": 0}),
        ({"tokens": 30}, {"input_tokens": 30, "output_tokens": 0}),
        ({"tokens": 30, "in": 10}, {"input_tokens": 10, "output_tokens": 20}),
        ({"in": 10, "out": 4}, {"input_tokens": 10, "output_tokens": 4}),
        ({"tokens": 14, "in": 10, "out": 4}, {"input_tokens": 10, "output_tokens": 4}),
        ({"requests:consumer=alice": 1}, {"consumer": "alice", "team": "red"}),
        ({"requests:consumer=alice:team=blue": 1}, {"consumer": "alice", "team": "blue"}),
        ({"requests:label.run=a%3Ab:key=k%230": 1}, {"labels": {"run": "a:b"}, "key": "k#0"}),
        ({"requests:model=m:provider=p": 1}, {"target": "m", "provider": "p"}),
        ({"gone:consumer=bob": 12}, {"consumer": "bob", "charges": {"gone:consumer=bob": 12}}),
        ({"slots:consumer=alice": 0, "requests": 1}, {"consumer": "", "charges": {"requests": 1}}),
        ({}, {"charges": {}, "consumer": ""}),
    ],
)
def test_the_row_of_a_lost_exchange_is_filled_from_its_counts(amounts, found):
    row = row_of_expired(expired(amounts), BUDGETS, {"alice": "red"}, 5.0)
    assert (row.id, row.time, row.usage_source, row.error) == ("x", 5.0, "expired", "expired")
    assert {name: getattr(row, name) for name in found} == found


def test_the_facts_of_its_reservation_win(exchange):
    lost = exchange({"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
    lost.request.id, lost.money.key, lost.money.labels = "r-1", "main", {"agent": "x", "run": "b"}
    found = msgspec.structs.replace(expired({"requests:label.run=a%3Ab": 1}), facts=pack_facts(lost))
    row = row_of_expired(found, BUDGETS, {}, 5.0)
    assert (row.consumer, row.team, row.key) == (lost.consumer.name, lost.consumer.team, "main")
    assert (row.request_id, row.operation, row.model, row.stream) == ("r-1", lost.request.operation, "m", True)
    assert row.labels == {"agent": "x", "run": "b"}
    [target] = lost.route.targets
    assert (row.target, row.provider, row.provider_model) == (target.name, target.provider, target.model)
    assert (row.usage_source, row.charges) == ("expired", {"requests:label.run=a%3Ab": 1})


def test_facts_of_several_targets_name_none(exchange):
    lost = exchange({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    lost.route.targets = [lost.route.targets[0], dataclasses.replace(lost.route.targets[0], name="other")]
    facts = unpack_facts(pack_facts(lost))
    assert (facts.model, facts.target, facts.provider, facts.provider_model) == ("m", "", "", "")


def test_facts_stay_small_and_odd_ones_are_left_out(exchange):
    lost = exchange({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    lost.money.labels = {f"label-{number}": "v" * 200 for number in range(32)}
    assert unpack_facts(pack_facts(lost)).labels == {}
    assert unpack_facts(pack_facts(lost)).model == "m"
    lost.money.labels = {"agent": "\ud800"}
    assert pack_facts(lost) == b""
    assert unpack_facts(b"") == unpack_facts(b"\xff\x00") == Facts()


# --- any order of events, any death of a process


class Process:
    """One process. When it dies, its reservations stay, and the unwritten rows of its ledger are lost."""

    def __init__(self, path, rows, clock):
        self.counters = SqliteCounters(path, clock, timeout=5)
        self.ledger = Ledger()
        self.ledger.rows = rows
        self.books = Books(self.counters, self.ledger, now=clock)
        self.held = {}

    async def die(self):
        await self.counters.close()


STEP = st.tuples(
    st.integers(0, 1),  # which process
    st.sampled_from(["hold", "settle", "settle", "forget", "write", "write", "turn", "turn", "die", "wait", "long"]),
    st.integers(0, 50),
)


SETTLED_LATE = [(1, "hold", 1), (0, "long", 0), (0, "turn", 0), (1, "settle", 0), (1, "die", 0)]
"""Process 0 has the row of a lease that ran out; process 1 settles late, and dies before its own row is written."""


@settings(max_examples=examples(60))
@given(steps=st.lists(STEP, max_size=40))
@example(steps=SETTLED_LATE)
@example(steps=[*SETTLED_LATE, (1, "long", 0), (1, "turn", 0), (1, "write", 0), (0, "write", 0)])
def test_counters_and_ledger_agree_once_all_leases_have_ended(clocks, exchange, tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("books") / "counters.db"
    asyncio.run(interleave(clocks(), exchange, path, steps))


async def interleave(clock, exchange, path, steps):
    rows, sent = {}, 0
    processes = [Process(path, rows, clock), Process(path, rows, clock)]
    for which, what, number in steps:
        process = processes[which]
        if what == "hold":
            sent += 1
            scopes = ("tokens", f"requests:label.run={number % 3}")
            holds = [Hold(scopes[0], 0, 10**6, number), Hold(scopes[1], HOUR, 10**6, 1)]
            await send(process.counters, id := f"e{sent}", holds, LEASE)
            process.held[id] = scopes, number
        elif what in ("settle", "forget") and process.held:
            id, (scopes, held) = process.held.popitem()
            amounts = [min(held, number), 1]
            if what == "forget":  # the store did not receive it
                process.books.owe(id, amounts)
            else:
                await process.counters.settle(id, amounts, keep=True)
            ended = exchange()
            ended.id, ended.money.usage, ended.money.charges = id, Usage(1, 1), dict(zip(scopes, amounts, strict=True))
            ended.end()
            process.books.enter(ended)
        elif what == "write":
            process.ledger.write()
        elif what == "turn":
            await process.books.turn(BUDGETS, {})
        elif what == "die":
            await process.die()
            processes[which] = Process(path, rows, clock)
        elif what in ("wait", "long"):
            clock.now += 5 if what == "wait" else LEASE + 1
    for process in processes:
        process.held.clear()
    for _ in range(4):
        clock.now += LEASE + 1
        for process in processes:
            await process.books.turn(BUDGETS, {})
            process.ledger.write()
    charged = {}
    for row in rows.values():
        for scope, amount in row.charges.items():
            charged[scope] = charged.get(scope, 0) + amount
    for scope, window in (("tokens", 0), *((f"requests:label.run={run}", HOUR) for run in range(3))):
        [level] = await processes[0].counters.levels([(scope, window)])
        assert (level.settled, level.reserved) == (charged.get(scope, 0), 0), scope
    assert len(rows) == sent, "every request that left is in the ledger once"
    assert await processes[0].counters.expire() == []
    for process in processes:
        await process.die()


def test_a_real_ledger_has_each_exchange_once_whichever_process_wrote_it(tmp_path):
    one, two = (open_ledger(f"sqlite:{tmp_path}/ledger.db") for _ in range(2))
    for ledger in (one, two):
        ledger.writer.start()
    mine = Row(id="a", time=5.0, input_tokens=3, usage_source="provider", charges={"tokens": 3})
    ended = row_of_expired(expired({"tokens": 10}), BUDGETS, {}, 65.0)
    for number, order in enumerate([(mine, ended), (ended, mine), (mine, mine), (ended, ended)]):
        for ledger, row in zip((one, two), order, strict=True):
            assert ledger.writer.add(
                Row(**{**{name: getattr(row, name) for name in Row.__struct_fields__}, "id": f"{number}"})
            )
            while ledger.writer.queued:
                pass
    for ledger in (one, two):
        assert ledger.writer.stop() == 0
    found = {row["id"]: row["usage_source"] for row in one.exchanges(ExchangeQuery())}
    assert found == {"0": "provider", "1": "provider", "2": "provider", "3": "expired"}
    assert one.charges_by_scope("tokens") == {"tokens": 3 + 3 + 3 + 10}
    for ledger in (one, two):
        ledger.close()
