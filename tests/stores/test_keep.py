"""The contract of every store between a settle and the report that its row is written."""

import asyncio
import random

import pytest

from extproc.stores import CORRECTED, EXPIRE_BATCH, Expired, Hold, Level
from tests.stores.sent import send

LEASE = 30.0
HOLDS = [Hold("a", 0, 100, 5), Hold("slots", 0, 10, 1, slot=True)]


async def level(counters, scope="a"):
    [found] = await counters.levels([(scope, 0)])
    return found.settled, found.reserved


@pytest.mark.parametrize("forwarded", [True, False])
async def test_a_settlement_that_was_never_recorded_is_reported_once_with_its_charge(counters, clock, forwarded):
    await counters.reserve("r1", HOLDS, LEASE)
    if forwarded:
        await counters.forward(["r1"])
    assert await counters.settle("r1", [3, 1], keep=True)
    clock.now += LEASE - 1
    assert await counters.expire() == []
    clock.now += 1
    assert await counters.expire() == [Expired("r1", forwarded, ("a", "slots"), (3, 0), settled=True)]
    assert await counters.expire() == []
    assert await level(counters) == (3, 0)
    assert await level(counters, "slots") == (0, 0)


async def test_a_recorded_settlement_is_not_reported(counters, clock):
    for number in range(4):
        await send(counters, f"r{number}", HOLDS, LEASE)
        await counters.settle(f"r{number}", [number, 1], keep=True)
    await counters.recorded(["r0", "r2"])
    await counters.recorded(["r0", "r3"])
    clock.now += LEASE
    assert [expired.id for expired in await counters.expire()] == ["r1"]
    assert await level(counters) == (6, 0)


async def test_a_kept_settlement_cannot_be_forwarded_extended_or_settled(counters, clock):
    await counters.reserve("r1", HOLDS, LEASE)
    await counters.settle("r1", [3, 1], keep=True)
    clock.now += LEASE - 1
    await counters.forward(["r1"])
    assert await counters.extend("r1", HOLDS) is None
    for keep in (True, False):
        assert not await counters.settle("r1", [9, 1], keep=keep)
    with pytest.raises(ValueError, match="r1"):
        await counters.reserve("r1", HOLDS, LEASE)
    assert await level(counters) == (3, 0)
    clock.now += 1  # the lease was not renewed
    assert len(await counters.expire()) == 1
    assert not await counters.settle("r1", [9, 1], keep=True)
    assert await level(counters) == (3, 0)


@pytest.mark.parametrize("settled", [True, False])
async def test_a_charge_is_reported_again_until_it_is_recorded(counters, clock, settled):
    """The process that got the report may have died before it wrote the row."""
    await send(counters, "r1", HOLDS, LEASE)
    if settled:
        await counters.settle("r1", [3, 1], keep=True)
    said = Expired("r1", True, ("a", "slots"), (3, 0) if settled else (5, 0), settled=settled)
    clock.now += LEASE
    for _ in range(3):
        assert await counters.expire(keep=LEASE) == [said]
        assert await counters.expire(keep=LEASE) == []
        assert await level(counters) == (said.amounts[0], 0)
        await counters.forward(["r1"])
        assert await counters.extend("r1", HOLDS) is None
        clock.now += LEASE
    await counters.recorded(["r1"])
    await counters.recorded(["r1"])
    clock.now += LEASE
    assert await counters.expire(keep=LEASE) == []
    assert await level(counters) == (said.amounts[0], 0)


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_charge_reported_again_can_still_be_settled_late(counters, clock, recorded):
    await send(counters, "r1", HOLDS, LEASE)
    clock.now += LEASE
    assert len(await counters.expire(keep=LEASE)) == 1
    if recorded:
        await counters.recorded(["r1"])
    with pytest.raises(ValueError, match="r1"):
        await counters.reserve("r1", HOLDS, LEASE)
    with pytest.raises(ValueError, match="2 holds"):
        await counters.settle("r1", [3])
    assert await counters.settle("r1", [2, 1], keep=True)
    assert await level(counters) == (2, 0)
    assert not await counters.settle("r1", [4, 1], keep=True)
    clock.now += LEASE
    assert await counters.expire(keep=LEASE) == []
    assert await level(counters) == (2, 0)


async def test_a_released_reservation_is_reported_once(counters, clock):
    await counters.reserve("r1", HOLDS, LEASE)
    clock.now += LEASE
    assert await counters.expire(keep=LEASE) == [Expired("r1", False, ("a", "slots"), (0, 0))]
    clock.now += LEASE
    assert await counters.expire(keep=LEASE) == []
    assert await counters.settle("r1", [2, 1])
    assert await level(counters) == (2, 0)


async def test_without_keep_a_waiting_charge_is_reported_once_more(counters, clock):
    for id, settled in (("r1", True), ("r2", False)):
        await send(counters, id, HOLDS, LEASE)
        if settled:
            await counters.settle(id, [3, 1], keep=True)
    clock.now += LEASE
    assert len(await counters.expire(keep=LEASE)) == 2
    clock.now += LEASE
    assert len(await counters.expire()) == 2
    clock.now += LEASE
    assert await counters.expire() == []
    assert await counters.settle("r2", [1, 1])
    assert not await counters.settle("r1", [1, 1])
    assert await level(counters) == (4, 0)


@pytest.mark.parametrize("end", ["recorded", "expire"])
async def test_its_id_can_be_used_again_at_last(counters, clock, end):
    await counters.reserve("r1", HOLDS, LEASE)
    await counters.settle("r1", [3, 1], keep=True)
    if end == "recorded":
        await counters.recorded(["r1"])
    else:
        clock.now += LEASE
        await counters.expire()
    await counters.reserve("r1", HOLDS, LEASE)
    assert await counters.settle("r1", [4, 1])
    assert await level(counters) == (7, 0)


async def test_recorded_does_not_affect_other_ids(counters, clock):
    await counters.recorded([])
    await counters.recorded(["unknown"] * 3)
    await counters.reserve("live", HOLDS, 2 * LEASE)
    await send(counters, "late", HOLDS, LEASE)
    clock.now += LEASE
    await counters.expire()
    await counters.recorded(["live", "late"])
    assert await level(counters) == (5, 5)
    await counters.forward(["live"])
    assert await counters.settle("late", [1, 1])
    assert await level(counters) == (1, 5)


async def test_a_settle_between_the_lease_and_its_expiry_is_kept(counters, clock):
    await send(counters, "r1", HOLDS, LEASE)
    clock.now += 2 * LEASE
    assert await counters.settle("r1", [3, 1], keep=True)
    assert await counters.expire() == [Expired("r1", True, ("a", "slots"), (3, 0), settled=True)]


async def test_a_late_settle_corrects_and_is_not_reported_again(counters, clock):
    await send(counters, "r1", HOLDS, LEASE)
    clock.now += LEASE
    assert await counters.expire() == [Expired("r1", True, ("a", "slots"), (5, 0))]
    assert await counters.settle("r1", [3, 1], keep=True)
    assert not await counters.settle("r1", [3, 1], keep=True)
    clock.now += LEASE
    assert await counters.expire() == []
    assert await level(counters) == (3, 0)


async def test_a_refused_settle_keeps_nothing(counters, clock):
    await counters.reserve("r1", HOLDS, LEASE)
    with pytest.raises(ValueError):
        await counters.settle("r1", [1], keep=True)
    assert await counters.settle("r1", [1, 1])
    clock.now += LEASE
    assert await counters.expire() == []


async def test_a_reservation_without_holds_is_kept(counters, clock):
    await send(counters, "r1", [], LEASE)
    assert await counters.settle("r1", [], keep=True)
    clock.now += LEASE
    assert await counters.expire() == [Expired("r1", True, (), (), settled=True)]


async def test_it_is_charged_and_reported_in_the_window_of_the_reservation(counters, clock):
    await counters.reserve("r1", [Hold("a", 60, 10, 5)], 90.0)
    clock.now += 60
    assert await counters.settle("r1", [4], keep=True)
    clock.now += 30
    assert await counters.expire() == [Expired("r1", False, ("a",), (4,), settled=True)]
    assert await counters.levels([("a", 60)]) == [Level(0, 0, 30.0)]
    clock.now -= 90
    assert await counters.levels([("a", 60)]) == [Level(4, 0, 60.0)]


async def test_charges_beyond_the_reservation_and_large_amounts_are_reported_exactly(counters, clock):
    await counters.reserve("r1", HOLDS, LEASE)
    await counters.settle("r1", [2**53 + 1, 1], keep=True)
    clock.now += LEASE
    assert (await counters.expire())[0].amounts == (2**53 + 1, 0)


async def test_kept_and_live_reservations_expire_in_one_order_and_in_batches(counters, clock):
    total = EXPIRE_BATCH + 20
    for number in range(total):
        await send(counters, f"r{number}", [Hold("a", 0, total, 1)], float(2 * total - number))
        if number % 2:
            await counters.settle(f"r{number}", [1], keep=True)
    clock.now += 2 * total
    reports = [*await counters.expire(), *await counters.expire()]
    assert [expired.id for expired in reports] == [f"r{number}" for number in reversed(range(total))]
    assert [expired.settled for expired in reports] == [number % 2 == 1 for number in reversed(range(total))]
    assert await level(counters) == (total, 0)
    assert await counters.expire() == []


async def test_a_large_batch_is_recorded_at_once(counters, clock):
    ids = [f"r{number}" for number in range(1200)]
    for id in ids:
        await counters.reserve(id, [], LEASE)
        await counters.settle(id, [], keep=True)
    await counters.recorded(ids)
    clock.now += LEASE
    assert await counters.expire() == []


async def test_every_charge_is_recorded_or_reported_exactly_once(counters, clock):
    """Some of a hundred exchanges are recorded, some lose their process before. Several processes collect them."""
    chance = random.Random(5)
    used, written = {}, {}
    for number in range(100):
        id = f"r{number}"
        await send(counters, id, [Hold("a", 0, 10**6, 9)], LEASE + chance.randrange(10))
        if chance.random() < 0.8:
            used[id] = chance.randrange(20)
            await counters.settle(id, [used[id]], keep=True)
            if chance.random() < 0.6:
                written[id] = used[id]
        else:
            used[id] = 9  # the reserved amount
    await counters.recorded(list(written))
    clock.now += LEASE + 10
    for report in await asyncio.gather(*[counters.expire() for _ in range(4)]):
        for expired in report:
            assert expired.id not in written
            written[expired.id] = expired.amounts[0]
    assert written == used
    assert await level(counters) == (sum(written.values()), 0)


@pytest.mark.parametrize("id", ["", "é日本語🦜", "'; DROP TABLE holdings; --", "a b\t\n\r", "{tag}*?[x]%s\\"])
async def test_unusual_names_work(counters, clock, id):
    await counters.reserve(id, [Hold(id, 0, 10, 3)], LEASE)
    await counters.settle(id, [2], keep=True)
    clock.now += LEASE
    assert await counters.expire() == [Expired(id, False, (id,), (2,), settled=True)]
    await counters.reserve(id, [Hold(id, 0, 10, 3)], LEASE)
    await counters.settle(id, [2], keep=True)
    await counters.recorded([id])
    clock.now += LEASE
    assert await counters.expire() == []


async def test_the_row_of_a_lease_does_not_stand_for_a_later_settle(counters, clock):
    """The settle corrected the charge, so the store keeps it until the row of that charge is written."""
    for id in ("late", "lost"):
        await send(counters, id, HOLDS, LEASE)
    clock.now += LEASE
    assert {one.id for one in await counters.expire(keep=LEASE)} == {"late", "lost"}
    assert await counters.settle("late", [3, 1], keep=True)
    await counters.recorded(["late", "lost"], expired=True)
    clock.now += CORRECTED
    [kept] = await counters.expire(keep=LEASE)
    assert (kept.id, kept.amounts, kept.settled) == ("late", (3, 0), True)
    await counters.recorded(["late"])
    clock.now += CORRECTED
    assert await counters.expire(keep=LEASE) == []
