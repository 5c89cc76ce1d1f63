"""The contract of every store for counts without a window that are no longer used."""

import pytest

from extproc.stores import LATE_SETTLE, Denied, Expired, Granted, Hold, Level
from extproc.stores.memory import MemoryCounters
from tests.stores.sent import send

LEASE = 30.0
IDLE = 100.0
RUN = Hold("run:x=1", 0, 10, 4, idle=IDLE)


async def level(counters, scope=RUN.scope, window=0):
    [found] = await counters.levels([(scope, window)])
    return found.settled, found.reserved


async def spend(counters, id, hold, used=3):
    assert isinstance(await counters.reserve(id, [hold], LEASE), Granted)
    assert await counters.settle(id, [used])


async def test_an_idle_count_is_forgotten(counters, clock):
    await spend(counters, "r1", RUN)
    clock.now += IDLE - 1
    assert await counters.expire() == []
    assert await level(counters) == (3, 0)
    clock.now += 1
    assert await level(counters) == (3, 0)  # until `expire` forgets it
    assert await counters.expire() == []
    assert await level(counters) == (0, 0)
    assert await counters.reserve("r2", [Hold(RUN.scope, 0, 10, 10)], LEASE) == Granted((Level(0, 10, None),))


@pytest.mark.parametrize("touch", ["reserve", "extend", "settle"])
async def test_a_use_keeps_the_count(counters, clock, touch):
    await spend(counters, "r1", RUN)
    if touch != "reserve":
        await counters.reserve("r2", [RUN], 10 * IDLE)
    clock.now += IDLE - 1
    if touch == "reserve":
        await counters.reserve("r2", [Hold(RUN.scope, 0, 10, 0, idle=IDLE)], 10 * IDLE)
    elif touch == "extend":
        await counters.extend("r2", [RUN])
    else:
        await counters.settle("r2", [0])
    clock.now += IDLE - 1
    await counters.expire()
    assert (await level(counters))[0] == 3


async def test_a_denial_is_not_a_use(counters, clock):
    await spend(counters, "r1", RUN)
    clock.now += IDLE - 1
    assert await counters.reserve("r2", [RUN, Hold("b", 0, 1, 2)], LEASE) == Denied(1, 1, None)
    clock.now += 1
    await counters.expire()
    assert await level(counters) == (0, 0)


async def test_a_count_with_a_reservation_is_not_idle(counters, clock):
    await spend(counters, "r1", RUN)
    await counters.reserve("r2", [RUN], 10 * IDLE)
    for _ in range(3):
        clock.now += 2 * IDLE
        await counters.expire()
        assert await level(counters) == (3, 4)
    await counters.settle("r2", [2])
    clock.now += IDLE - 1
    await counters.expire()
    assert await level(counters) == (5, 0)
    clock.now += 1
    await counters.expire()
    assert await level(counters) == (0, 0)


async def test_a_count_that_may_be_corrected_is_not_forgotten(counters, clock):
    await send(counters, "r1", [RUN], LEASE)
    clock.now += LEASE
    assert len(await counters.expire()) == 1
    await spend(counters, "r2", RUN, 0)  # a use that would keep it for a shorter time
    clock.now += LATE_SETTLE - 1
    await counters.expire()
    assert await level(counters) == (4, 0)
    assert await counters.settle("r1", [1])
    assert await level(counters) == (1, 0)
    clock.now += IDLE
    await counters.expire()
    assert await level(counters) == (0, 0)


async def test_a_kept_settlement_does_not_keep_its_count(counters, clock):
    await counters.reserve("r1", [RUN], 2 * IDLE)
    await counters.settle("r1", [3], keep=True)
    clock.now += IDLE
    await counters.expire()
    assert await level(counters) == (0, 0)
    clock.now += IDLE
    assert await counters.expire() == [Expired("r1", False, (RUN.scope,), (3,), settled=True)]
    assert await level(counters) == (0, 0)


async def test_without_idle_a_count_is_kept_and_the_last_setting_applies(counters, clock):
    forever = Hold("c", 0, 10, 1)
    await spend(counters, "r1", forever, 1)
    await spend(counters, "r2", RUN)
    await spend(counters, "r3", Hold(RUN.scope, 0, 10, 0), 0)  # the settings changed
    clock.now += 1000 * IDLE
    await counters.expire()
    assert [await level(counters), await level(counters, "c")] == [(3, 0), (1, 0)]
    await spend(counters, "r4", RUN)  # and changed back
    clock.now += IDLE
    await counters.expire()
    assert [await level(counters), await level(counters, "c")] == [(0, 0), (1, 0)]


async def test_counts_with_a_window_are_not_affected(counters, clock):
    await spend(counters, "r1", Hold("a", -1, 10, 4, idle=1.0))
    await spend(counters, "r2", Hold("a", 0, 10, 4, idle=1.0))
    clock.now += 10
    await counters.expire()
    assert [await level(counters, "a", -1), await level(counters, "a")] == [(3, 0), (0, 0)]


async def test_a_returning_count_has_its_own_time(counters, clock):
    for number in range(5):
        await spend(counters, f"r{number}", RUN)
        clock.now += IDLE - 1
        await counters.expire()
        assert await level(counters) == (3, 0)
        clock.now += 1
        await counters.expire()
        assert await level(counters) == (0, 0)


async def test_many_counts_are_forgotten_beside_counts_in_use(counters, clock):
    for number in range(1100):
        await counters.reserve(f"used{number}", [Hold(f"used:{number}", 0, 10, 1, idle=IDLE)], 100 * IDLE)
    clock.now += 1
    for number in range(1100):
        await spend(counters, f"r{number}", Hold(f"run:{number}", 0, 10, 1, idle=IDLE), 1)
    clock.now += IDLE
    for _ in range(4):
        await counters.expire()
    assert list(await counters.fullest("run", 0)) == []
    assert len(await counters.fullest("used", 0, 2000)) == 1100


@pytest.mark.parametrize("idle", [-1.0, float("inf"), float("nan")])
def test_times_out_of_range_are_refused(idle):
    with pytest.raises(ValueError, match="idle"):
        Hold("a", 0, 1, 1, idle=idle)


async def test_memory_is_bounded(clock):
    counters = MemoryCounters(clock)
    for number in range(5000):
        holds = [Hold(f"run:{number}", 0, 10, 1, idle=IDLE), Hold("one", 0, 10, 0, idle=IDLE * (number % 2))]
        await counters.reserve(f"r{number}", holds, LEASE)
        await counters.settle(f"r{number}", [1, 0])
        clock.now += 1
        await counters.expire()
    assert len(counters._buckets[0, 0]) <= IDLE + 1
    assert len(counters._idle) <= IDLE + 1
    assert len(counters._idle_queue) <= 1210
