"""The contract of every store for extending a reservation in flight."""

import pytest
from msgspec.structs import replace

from extproc.stores import MAX_COUNT, Denied, Expired, Granted, Hold, Level
from tests.stores.sent import send

LEASE = 30.0


async def level(counters, scope="a", window=60):
    [found] = await counters.levels([(scope, window)])
    return found.settled, found.reserved


async def test_an_extension_is_reserved_and_settled(counters, clock):
    await counters.reserve("r1", [Hold("a", 60, 10, 2), Hold("b", 0, 10, 1)], LEASE)
    clock.now += 20
    more = [Hold("a", 60, 10, 3), Hold("b", 0, 10, 4)]
    assert await counters.extend("r1", more) == Granted((Level(0, 5, 40.0), Level(0, 5, None)))
    assert await counters.extend("r1", more) == Granted((Level(0, 8, 40.0), Level(0, 9, None)))
    assert await counters.settle("r1", [7, 9])
    assert [await level(counters), await level(counters, "b", 0)] == [(7, 0), (9, 0)]


async def test_all_holds_are_extended_or_none_and_the_denial_names_the_hold(counters):
    await counters.reserve("r1", [Hold("a", 60, 10, 2), Hold("b", 0, 10, 1), Hold("c", 0, 10, 1)], LEASE)
    await counters.reserve("r2", [Hold("b", 0, 10, 6)], LEASE)
    more = [Hold("a", 60, 10, 3), Hold("b", 0, 10, 4), Hold("c", 0, 10, 1)]
    assert await counters.extend("r1", more) == Denied(1, 3, None)
    assert [await level(counters), await level(counters, "b", 0), await level(counters, "c", 0)] == [
        (0, 2),
        (0, 7),
        (0, 1),
    ]
    assert await counters.settle("r1", [2, 1, 1])  # the reservation is unchanged
    assert await level(counters) == (2, 0)


async def test_exactly_the_limit_fits(counters):
    await counters.reserve("r1", [Hold("a", 60, 10, 2)], LEASE)
    await counters.reserve("r2", [Hold("a", 60, 10, 3)], LEASE)
    await counters.settle("r2", [1])
    assert await counters.extend("r1", [Hold("a", 60, 10, 8)]) == Denied(0, 7, 60.0)
    assert await counters.extend("r1", [Hold("a", 60, 10, 7)]) == Granted((Level(1, 9, 60.0),))


async def test_an_extension_counts_in_the_window_of_the_reservation(counters, clock):
    await counters.reserve("r1", [Hold("a", 60, 10, 5), Hold("a", -1, 100, 5)], 300.0)
    await counters.reserve("r2", [Hold("a", 60, 10, 3)], 300.0)
    clock.now += 90
    await counters.reserve("r3", [Hold("a", 60, 10, 10)], 300.0)  # the current window is full
    month = (await counters.levels([("a", -1)]))[0].resets_in
    more = [Hold("a", 60, 10, 2), Hold("a", -1, 100, 1)]
    assert await counters.extend("r1", more) == Granted((Level(0, 10, 0.0), Level(0, 6, month)))
    assert await counters.extend("r1", more) == Denied(0, 0, 0.0)
    assert await level(counters) == (0, 10)
    await counters.settle("r1", [7, 6])
    assert await level(counters) == (0, 10)
    clock.now -= 90
    assert await level(counters) == (7, 3)


async def test_two_holds_on_one_scope_add_up(counters):
    await counters.reserve("r1", [Hold("a", 60, 10, 2), Hold("a", 60, 10, 1)], LEASE)
    assert await counters.extend("r1", [Hold("a", 60, 10, 4), Hold("a", 60, 10, 4)]) == Denied(1, 3, 60.0)
    more = [Hold("a", 60, 10, 4), Hold("a", 60, 10, 3)]
    assert await counters.extend("r1", more) == Granted((Level(0, 10, 60.0), Level(0, 10, 60.0)))
    await counters.settle("r1", [1, 1])
    assert await level(counters) == (2, 0)


async def test_an_extension_by_zero_is_never_denied(counters):
    """A lowered limit, or a scope overdrawn by another request, applies from the next request."""
    await counters.reserve("r1", [Hold("slots", 0, 5, 1, slot=True), Hold("a", 60, 10, 1)], LEASE)
    await counters.reserve("r2", [Hold("slots", 0, 5, 1, slot=True)], LEASE)
    more = [Hold("slots", 0, 1, 0, slot=True), Hold("a", 60, 10, 4)]
    assert await counters.extend("r1", more) == Granted((Level(0, 2, None), Level(0, 5, 60.0)))
    assert await counters.extend("r1", [replace(more[0], amount=1), more[1]]) == Denied(0, 0, None)


async def test_a_lowered_limit_denies_an_extension(counters):
    await counters.reserve("r1", [Hold("a", 60, 10, 6)], LEASE)
    assert await counters.extend("r1", [Hold("a", 60, 5, 1)]) == Denied(0, 0, 60.0)


async def test_an_unknown_id_is_not_extended(counters, clock):
    holds = [Hold("a", 60, 10, 1)]
    await counters.reserve("settled", holds, LEASE)
    await counters.settle("settled", [1])
    await counters.reserve("ended", holds, LEASE)
    clock.now += LEASE
    await counters.expire()
    for id in ("unknown", "settled", "ended"):
        assert await counters.extend(id, holds) is None
    assert await level(counters) == (1, 0)


async def test_different_holds_are_refused(counters):
    held = [Hold("a", 60, 10, 1), Hold("b", 0, 10, 1, slot=True)]
    await counters.reserve("r1", held, LEASE)
    for others in (
        [],
        held[:1],
        [*held, held[0]],
        held[::-1],
        [replace(held[0], scope="c"), held[1]],
        [replace(held[0], window=3600), held[1]],
        [held[0], replace(held[1], slot=False)],
    ):
        with pytest.raises(ValueError, match="holds"):
            await counters.extend("r1", others)
    assert [await level(counters), await level(counters, "b", 0)] == [(0, 1), (0, 1)]
    assert await counters.extend("unknown", []) is None


async def test_a_reservation_without_holds_can_be_extended(counters):
    await counters.reserve("r1", [], LEASE)
    assert await counters.extend("r1", []) == Granted(())


async def test_the_lease_is_unchanged_and_charges_the_extended_amount(counters, clock):
    await send(counters, "r1", [Hold("a", 0, 10, 2), Hold("slots", 0, 5, 1, slot=True)], LEASE)
    clock.now += LEASE - 1
    await counters.extend("r1", [Hold("a", 0, 10, 3), Hold("slots", 0, 5, 1, slot=True)])
    clock.now += 1
    assert await counters.expire() == [Expired("r1", True, ("a", "slots"), (5, 0))]
    assert [await level(counters, "a", 0), await level(counters, "slots", 0)] == [(5, 0), (0, 0)]
    assert await counters.settle("r1", [4, 1])
    assert await level(counters, "a", 0) == (4, 0)


async def test_a_reservation_with_an_overdue_lease_can_be_extended(counters, clock):
    await counters.reserve("r1", [Hold("a", 0, 10, 2)], LEASE)
    clock.now += LEASE + 1
    assert await counters.extend("r1", [Hold("a", 0, 10, 3)]) == Granted((Level(0, 5, None),))
    assert await counters.expire() == [Expired("r1", False, ("a",), (0,))]
    assert await level(counters, "a", 0) == (0, 0)


async def test_a_reservation_can_grow_from_zero_to_the_largest_integer(counters):
    await counters.reserve("r1", [Hold("a", 60, MAX_COUNT, 0)], LEASE)
    assert await counters.extend("r1", [Hold("a", 60, MAX_COUNT, 0)]) == Granted((Level(0, 0, 60.0),))
    assert await counters.extend("r1", [Hold("a", 60, MAX_COUNT, 2**53 + 1)]) == Granted((Level(0, 2**53 + 1, 60.0),))
    rest = MAX_COUNT - 2**53 - 1
    assert await counters.extend("r1", [Hold("a", 60, MAX_COUNT, rest + 1)]) == Denied(0, rest, 60.0)
    assert await counters.extend("r1", [Hold("a", 60, MAX_COUNT, rest)]) == Granted((Level(0, MAX_COUNT, 60.0),))
    assert await counters.settle("r1", [1], keep=True)
    assert await level(counters) == (1, 0)
