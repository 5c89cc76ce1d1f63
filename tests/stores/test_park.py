"""The contract of every store for reservations whose use is known after the end of their exchange."""

import asyncio

import pytest

from extproc.stores import CORRECTED, LATE_SETTLE, MAX_FACTS, Expired, Hold, Parked
from tests.stores.sent import send

LEASE, DAY = 30.0, 86400.0
HOLDS = [Hold("a", 60, 100, 5), Hold("slots", 0, 1, 1, slot=True)]
SCOPES = ("a", "slots")


async def level(counters, scope="a", window=60):
    [found] = await counters.levels([(scope, window)])
    return found.settled, found.reserved


async def park(counters, id="r1", **options):
    return await counters.park(id, b"facts", **{"lease": DAY, "again": 10.0} | options)


async def test_it_holds_all_but_slots_for_its_lease_whoever_renews_extends_or_voids(counters, clock):
    await counters.reserve("r1", HOLDS, LEASE, facts=b"before")
    assert await park(counters)
    assert await level(counters) == (0, 5)
    assert await level(counters, "slots", 0) == (0, 0)
    await counters.renew(["r1"], LEASE)
    await counters.void(["r1"])
    await counters.forward(["r1"])
    await counters.recorded(["r1"])
    assert await counters.extend("r1", HOLDS) is None
    with pytest.raises(ValueError, match="r1"):
        await counters.reserve("r1", HOLDS, LEASE)
    clock.now += DAY - 1
    assert await counters.expire(keep=LEASE) == []
    assert await counters.parked(again=10.0) == [Parked("r1", SCOPES, (5, 0), b"facts")]


async def test_it_is_given_to_one_caller_at_a_time_the_longest_overdue_first(counters, clock):
    for number in range(4):
        await send(counters, f"r{number}", HOLDS[:1], LEASE)
        assert await park(counters, f"r{number}", again=9.0 - number)
    assert await counters.parked(again=10.0) == []
    clock.now += 8
    given = await asyncio.gather(*[counters.parked(again=10.0) for _ in range(4)])
    assert sorted(len(some) for some in given) == [0, 1, 1, 1]
    assert [one.id for some in given for one in some] == ["r3", "r2", "r1"]
    clock.now += 2
    assert [one.id for one in await counters.parked(again=10.0, most=9)] == ["r0"]
    assert [one.id for one in await counters.parked(again=10.0, id="r1")] == ["r1"]
    clock.now += 8
    assert {one.id for one in await counters.parked(again=10.0, most=9)} == {"r2", "r3"}
    assert await counters.parked(again=10.0, id="unknown") == []


async def test_it_can_be_parked_anew(counters, clock):
    await send(counters, "r1", HOLDS, LEASE)
    assert await park(counters)
    assert await counters.park("r1", b"others", lease=LEASE, again=1.0, most=0)
    clock.now += 1
    assert await counters.parked(again=100.0) == [Parked("r1", SCOPES, (5, 0), b"others")]
    clock.now += LEASE - 1
    assert await counters.expire() == [Expired("r1", True, SCOPES, (5, 0), facts=b"others")]
    assert await counters.parked(again=1.0, id="r1") == []


@pytest.mark.parametrize("keep", [True, False])
async def test_it_is_settled_once_in_its_own_window_and_reported_until_it_is_recorded(counters, clock, keep):
    await counters.reserve("r1", HOLDS, LEASE)
    assert await park(counters)
    clock.now += 60
    with pytest.raises(ValueError, match="2 holds"):
        await counters.settle("r1", [1], keep=keep)
    assert await counters.settle("r1", [3, 1], keep=keep)
    assert not await counters.settle("r1", [4, 1], keep=keep)
    assert not await park(counters)
    assert await counters.parked(again=1.0, most=9) == await counters.parked(again=1.0, id="r1") == []
    clock.now -= 60
    assert await level(counters) == (3, 0)
    clock.now += 60 + CORRECTED - 1
    assert await counters.expire(keep=LEASE) == []
    clock.now += 1
    said = [Expired("r1", True, SCOPES, (3, 0), settled=True, facts=b"facts")] if keep else []
    assert await counters.expire(keep=LEASE) == said
    await counters.recorded(["r1"])
    clock.now += DAY
    assert await counters.expire(keep=LEASE) == []


async def test_its_lease_ends_with_a_charge_in_full_that_a_late_settle_corrects(counters, clock):
    await counters.reserve("r1", [Hold("a", 0, 100, 5), *HOLDS[1:]], LEASE)
    assert await park(counters)
    clock.now += DAY
    assert await counters.expire(keep=LEASE) == [Expired("r1", True, SCOPES, (5, 0), facts=b"facts")]
    assert await level(counters, window=0) == (5, 0)
    assert await counters.parked(again=1.0, most=9) == []
    assert not await park(counters)
    clock.now += LATE_SETTLE - 1
    assert await counters.settle("r1", [2, 1])
    assert await level(counters, window=0) == (2, 0)


async def test_nothing_else_is_parked(counters, clock):
    assert not await park(counters, "unknown")
    for id in ("settled", "kept", "voided", "ended"):
        await send(counters, id, HOLDS[:1], LEASE)
    await counters.settle("settled", [1])
    await counters.settle("kept", [1], keep=True)
    await counters.reserve("void", HOLDS[:1], LEASE)
    await counters.void(["void"])
    clock.now += LEASE
    await counters.expire()
    for id in ("settled", "kept", "void", "ended"):
        assert not await park(counters, id)
    assert await counters.parked(again=1.0, most=9) == []


async def test_no_more_are_parked_than_the_most(counters):
    for number in range(3):
        await send(counters, f"r{number}", [], LEASE)
    assert await park(counters, "r0", most=2)
    assert await park(counters, "r1", most=2)
    assert not await park(counters, "r2", most=2)
    await counters.settle("r0", [])
    assert await park(counters, "r2", most=2)
    with pytest.raises(ValueError, match="4097"):
        await counters.park("r2", b"x" * (MAX_FACTS + 1), lease=1.0, again=1.0)
