"""Reservations that have left, and those without an answer, as the store learns of them."""

import asyncio

import pytest

from extproc.money.budgets import BudgetSettings, Leases, Reserve, leases
from extproc.stores import Hold, NotSentError, StoreError
from extproc.stores.memory import MemoryCounters
from extproc.words.errors import Refusal


class Store(MemoryCounters):
    """A store that records calls, and raises `trouble` in those that a test names."""

    def __init__(self, clock, trouble=StoreError, fails=()):
        super().__init__(clock)
        self.calls, self.trouble, self.fails = [], trouble, set(fails)

    async def reserve(self, id, holds, lease, *, facts=b""):
        granted = await super().reserve(id, holds, lease, facts=facts)
        if "reserve" in self.fails:  # it ran, and its answer is lost
            raise self.trouble("no answer")
        return granted

    async def forward(self, ids):
        self._called("forward", ids)
        await super().forward(ids)

    async def void(self, ids):
        self._called("void", ids)
        await super().void(ids)

    def _called(self, name, ids):
        self.calls.append((name, *ids))
        if name in self.fails:
            raise self.trouble("no answer")


@pytest.fixture
def asked(exchange):
    def make(id, *, forwarded=False):
        made = exchange()
        made.id, made.route.forwarded = id, forwarded
        return made

    return make


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_requests_that_left_are_marked_by_one_call_and_settled_ones_by_none(clocks, asked):
    store = Store(clocks())
    held = Leases(store)
    for number in range(4):
        held.add(asked(f"r{number}", forwarded=True))
    held.discard("r2")
    held.settled("r2")
    held.add(waiting := asked("waits"))
    await until(lambda: store.calls)
    assert store.calls == [("forward", "r0", "r1", "r3")]
    waiting.route.forwarded = True
    await until(lambda: len(store.calls) == 2)
    assert store.calls[1] == ("forward", "waits")
    assert set(held) == {"r0", "r1", "r3", "waits"}


async def test_a_request_that_never_left_is_not_marked(clocks, asked):
    store = Store(clocks())
    held = Leases(store)
    held.add(asked("r1"))
    held.discard("r1")
    await until(lambda: not held._unmarked)
    assert store.calls == []


async def test_a_request_whose_settle_got_no_answer_is_still_marked(clocks, asked):
    store = Store(clocks())
    held = Leases(store)
    held.add(asked("r1", forwarded=True))
    held.discard("r1")
    await held.turn()
    assert store.calls == [("forward", "r1")]


@pytest.mark.parametrize("fails", ["forward", "void"])
async def test_a_store_without_an_answer_is_called_again(clocks, asked, monkeypatch, fails):
    monkeypatch.setattr(leases, "AGAIN", 0.01)
    store = Store(clocks(), fails=[fails])
    held = Leases(store)
    if fails == "forward":
        held.add(asked("r1", forwarded=True))
    else:
        held.give_up("r1")
    await until(lambda: len(store.calls) > 2)
    store.fails.clear()
    await until(lambda: not held._unmarked and not held._void)
    assert set(store.calls) == {(fails, "r1")}


async def test_voids_that_wait_have_a_bound(clocks, monkeypatch):
    monkeypatch.setattr(leases, "MAX_VOID", 3)
    store = Store(clocks())
    held = Leases(store)
    for number in range(5):
        held.give_up(f"r{number}")
    await held.turn()
    assert store.calls == [("void", "r0", "r1", "r2")]


BUDGET = BudgetSettings(name="b", unit="requests", limit=10, window="total")


@pytest.mark.parametrize(("trouble", "calls"), [(StoreError, [("void", "r1")]), (NotSentError, [])])
async def test_a_refused_request_whose_reserve_got_no_answer_is_released(clocks, asked, trouble, calls):
    store = Store(clocks(), trouble, fails=["reserve"])
    held = Leases(store)
    with pytest.raises(Refusal):
        await Reserve([BUDGET], store, held, None, lambda *_: None)(asked("r1"))
    await held.turn()
    assert (store.calls, list(held)) == (calls, [])
    if calls:
        assert [(level.settled, level.reserved) for level in await store.levels([("b", 0)])] == [(0, 0)]


async def test_a_client_that_leaves_while_the_store_is_asked_holds_nothing(clocks, asked):
    class Slow(Store):
        async def reserve(self, id, holds, lease, *, facts=b""):
            await super().reserve(id, holds, lease, facts=facts)
            await asyncio.Event().wait()

    store = Slow(clocks())
    held = Leases(store)
    task = asyncio.create_task(Reserve([BUDGET], store, held, None, lambda *_: None)(asked("r1")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await held.turn()
    assert [(level.settled, level.reserved) for level in await store.levels([("b", 0)])] == [(0, 0)]


async def test_a_process_that_dies_after_a_refusal_charges_nothing(clocks, asked):
    """The answer of the store is lost, the request is refused, and the process is killed before it can say so."""
    clock = clocks()
    store = Store(clock, fails=["reserve"])
    with pytest.raises(Refusal):
        await Reserve([BUDGET], store, Leases(store), None, lambda *_: None)(asked("r1"))
    clock.now += 61
    [expired] = await store.expire(keep=60)
    assert (expired.forwarded, expired.amounts) == (False, (0,))
    assert [(level.settled, level.reserved) for level in await store.levels([("b", 0)])] == [(0, 0)]


async def test_leases_are_renewed(clocks, asked):
    clock = clocks()
    store = Store(clock)
    held = Leases(store)
    for id in ("lives", "over"):
        await store.reserve(id, [Hold("b", 0, 10, 1)], 60)
        held.add(asked(id, forwarded=True))
    held.discard("over")
    clock.now += 59
    await held.renew(60)
    clock.now += 2
    assert [expired.id for expired in await store.expire()] == ["over"]
