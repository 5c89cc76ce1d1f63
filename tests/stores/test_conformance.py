"""The contract of every store."""

import asyncio
import calendar
import pkgutil

import pytest

import extproc.stores
from extproc.stores import (
    CORRECTED,
    EXPIRE_BATCH,
    LATE_SETTLE,
    MAX_COUNT,
    MAX_FACTS,
    MAX_NOTE,
    Denied,
    Expired,
    Granted,
    Hold,
    Level,
    check_amounts,
    open_counters,
    window_at,
)
from extproc.stores.memory import MemoryCounters
from extproc.stores.sqlite import SqliteCounters
from tests.stores.sent import send

MINUTE = 60
LEASE = 30.0


def test_every_store_is_tested(stores):
    modules = {module.name for module in pkgutil.iter_modules(extproc.stores.__path__)}
    assert set(stores) == {name for name in modules if not name.startswith("_")}


def hold(amount=1, limit=10, scope="a", window=MINUTE, slot=False):
    return Hold(scope, window, limit, amount, slot)


async def level(counters, scope="a", window=MINUTE):
    [found] = await counters.levels([(scope, window)])
    return found.settled, found.reserved


async def expire(counters):
    return [expired async for batch in batches(counters) for expired in batch]


async def batches(counters):
    while batch := await counters.expire():
        yield batch


# --- reserve


async def test_an_unknown_scope_reads_as_zeros(counters):
    assert await counters.levels([("a", MINUTE), ("a", 0)]) == [Level(0, 0, 60.0), Level(0, 0, None)]
    assert await counters.levels([]) == []


async def test_reserve_returns_the_levels_after_it(counters, clock):
    await counters.reserve("r1", [hold(2)], LEASE)
    await counters.settle("r1", [2])
    clock.now += 20
    granted = await counters.reserve("r2", [hold(3), hold(4, scope="b", window=0)], LEASE)
    assert granted == Granted((Level(2, 3, 40.0), Level(0, 4, None)))
    assert list(await counters.levels([("a", MINUTE), ("b", 0)])) == list(granted.levels)


async def test_a_request_reserves_all_holds_or_none_and_the_denial_names_the_hold(counters, clock):
    await counters.reserve("r1", [hold(7, scope="b")], LEASE)
    clock.now += 15
    denied = await counters.reserve("r2", [hold(5), hold(4, scope="b"), hold(1, scope="c")], LEASE)
    assert denied == Denied(1, 3, 45.0)
    assert [await level(counters, scope) for scope in "abc"] == [(0, 0), (0, 7), (0, 0)]
    await counters.forward(["r2"])
    assert not await counters.settle("r2", [5, 4, 1])
    assert [await level(counters, scope) for scope in "abc"] == [(0, 0), (0, 7), (0, 0)]


async def test_a_denial_leaves_the_holds_of_other_budgets(counters):
    await counters.reserve("r1", [hold(3), hold(10, scope="b")], LEASE)
    assert isinstance(await counters.reserve("r2", [hold(5), hold(1, scope="b")], LEASE), Denied)
    assert await level(counters) == (0, 3)


async def test_a_denied_id_can_be_used_again(counters):
    assert await counters.reserve("r1", [hold(11)], LEASE) == Denied(0, 10, 60.0)
    assert isinstance(await counters.reserve("r1", [hold(10)], LEASE), Granted)


async def test_exactly_the_limit_fits(counters):
    assert await counters.reserve("r1", [hold(10)], LEASE) == Granted((Level(0, 10, 60.0),))
    assert await counters.reserve("r2", [hold(1)], LEASE) == Denied(0, 0, 60.0)
    await counters.settle("r1", [9])
    assert await counters.reserve("r3", [hold(1)], LEASE) == Granted((Level(9, 1, 60.0),))


async def test_two_holds_on_one_scope_add_up(counters):
    assert await counters.reserve("r1", [hold(6), hold(5)], LEASE) == Denied(1, 4, 60.0)
    assert await level(counters) == (0, 0)
    granted = await counters.reserve("r2", [hold(6), hold(4, limit=20)], LEASE)
    assert granted == Granted((Level(0, 10, 60.0), Level(0, 10, 60.0)))
    await counters.settle("r2", [1, 2])
    assert await level(counters) == (3, 0)


async def test_one_scope_under_two_windows_counts_apart(counters, clock):
    await counters.reserve("r1", [hold(2), hold(3, window=3600), hold(4, window=0)], LEASE)
    await counters.settle("r1", [2, 3, 4])
    assert [await level(counters, window=window) for window in (MINUTE, 3600, 0)] == [(2, 0), (3, 0), (4, 0)]
    clock.now += 3600
    assert [await level(counters, window=window) for window in (MINUTE, 3600, 0)] == [(0, 0), (0, 0), (4, 0)]


async def test_an_id_in_use_or_remembered_is_refused(counters, clock):
    await counters.reserve("r1", [hold(2)], LEASE)
    with pytest.raises(ValueError, match="r1"):
        await counters.reserve("r1", [hold(3)], LEASE)
    assert await level(counters) == (0, 2)
    clock.now += LEASE
    await expire(counters)
    with pytest.raises(ValueError, match="r1"):
        await counters.reserve("r1", [hold(3)], LEASE)
    assert await level(counters) == (0, 0)


async def test_a_reservation_may_have_no_holds(counters, clock):
    assert await counters.reserve("r1", [], LEASE) == Granted(())
    await counters.forward(["r1"])
    assert await counters.settle("r1", [])
    assert not await counters.settle("r1", [])
    await counters.reserve("r2", [], LEASE)
    clock.now += LEASE
    assert await expire(counters) == [Expired("r2", False, (), ())]


async def test_an_amount_of_zero_fits_a_full_scope_but_not_an_overdrawn_one(counters):
    await counters.reserve("r1", [hold(10)], LEASE)
    assert await counters.reserve("r2", [hold(0)], LEASE) == Granted((Level(0, 10, 60.0),))
    await counters.settle("r1", [11])
    assert await counters.reserve("r3", [hold(0)], LEASE) == Denied(0, 0, 60.0)
    assert await counters.settle("r2", [4])
    assert await level(counters) == (15, 0)


async def test_amounts_of_zero_work_throughout(counters):
    assert await counters.reserve("r1", [hold(0, limit=0)], LEASE) == Granted((Level(0, 0, 60.0),))
    assert await counters.reserve("r2", [hold(1, limit=0)], LEASE) == Denied(0, 0, 60.0)
    assert await counters.settle("r1", [0])
    assert not await counters.settle("r1", [0])
    assert await level(counters) == (0, 0)


async def test_a_lowered_limit_applies_from_the_next_request(counters):
    await counters.reserve("r1", [hold(8, limit=10)], LEASE)
    assert await counters.reserve("r2", [hold(1, limit=5)], LEASE) == Denied(0, 0, 60.0)
    assert await counters.reserve("r3", [hold(2, limit=10)], LEASE) == Granted((Level(0, 10, 60.0),))


# --- settle


async def test_a_reset_forgets_what_was_settled_and_keeps_what_is_held(counters, clock):
    for scope, window, idle in (("a", MINUTE, 0.0), ("b", 0, 0.0), ("c", 0, 90.0)):
        await counters.reserve(f"{scope}1", [Hold(scope, window, 10, 5, idle=idle)], LEASE)
        await counters.settle(f"{scope}1", [4])
        await counters.reserve(f"{scope}2", [Hold(scope, window, 10, 6, idle=idle)], LEASE)
        assert [await counters.reset(scope, window) for _ in range(2)] == [4, 0]
        assert await counters.reset("none", window) == 0
        await counters.settle(f"{scope}2", [3])
        [level] = await counters.levels([(scope, window)])
        assert (level.settled, level.reserved) == (3, 0)


async def test_a_late_settle_after_a_reset_leaves_no_negative_count(counters, clock):
    await counters.reserve("r", [hold(9)], LEASE)
    await counters.forward(["r"])
    clock.now += LEASE + 1
    await counters.expire()
    assert await counters.reset("a", MINUTE) == 9
    await counters.settle("r", [2])
    assert await level(counters, "a") == (0, 0)


@pytest.mark.parametrize("used", [0, 3, 5, 10, 25])
async def test_settle_records_the_true_amount(counters, used):
    await counters.reserve("r1", [hold(5), hold(1, scope="b")], LEASE)
    await counters.forward(["r1"])
    assert await counters.settle("r1", [used, 1])
    assert await level(counters) == (used, 0)
    assert await level(counters, "b") == (1, 0)
    left = max(10 - used, 0)
    assert await counters.reserve("r2", [hold(left + 1)], LEASE) == Denied(0, left, 60.0)


async def test_settling_twice_has_the_effect_of_once(counters):
    await counters.reserve("r1", [hold(5)], LEASE)
    await counters.reserve("r2", [hold(2)], LEASE)
    assert await counters.settle("r1", [4])
    assert not await counters.settle("r1", [4])
    assert not await counters.settle("r1", [9])
    await counters.forward(["r1"])
    assert await level(counters) == (4, 2)


async def test_unknown_ids_are_ignored(counters):
    await counters.forward(["nobody"])
    assert not await counters.settle("nobody", [5])
    assert await expire(counters) == []
    assert await level(counters) == (0, 0)


@pytest.mark.parametrize("amounts", [[], [1], [1, 2, 3], [1, -1], [MAX_COUNT + 1, 1]])
async def test_settle_refuses_amounts_that_do_not_match(counters, amounts):
    await counters.reserve("r1", [hold(5), hold(5, scope="b")], LEASE)
    with pytest.raises(ValueError):
        await counters.settle("r1", amounts)
    assert await level(counters) == (0, 5)
    assert await counters.settle("r1", [1, 2])
    assert [await level(counters, scope) for scope in "ab"] == [(1, 0), (2, 0)]


def test_values_out_of_range_are_refused():
    for amount, limit in ((-1, 10), (1, -1), (MAX_COUNT + 1, 10), (1, MAX_COUNT + 1), (float("nan"), 10)):
        with pytest.raises(ValueError):
            hold(amount, limit)
    check_amounts([0, MAX_COUNT], 2)


# --- windows


async def test_windows_roll_over(counters, clock):
    await counters.reserve("r1", [hold(10)], 300.0)
    clock.now += 59.5
    assert await counters.reserve("r2", [hold(1)], 300.0) == Denied(0, 0, 0.5)
    clock.now += 0.5
    assert await counters.reserve("r3", [hold(1)], 300.0) == Granted((Level(0, 1, 60.0),))


async def test_settle_charges_the_window_of_the_reservation(counters, clock):
    await counters.reserve("r1", [hold(5), hold(5, window=0)], 300.0)
    clock.now += 60
    await counters.reserve("r2", [hold(3)], 300.0)
    assert await counters.settle("r1", [4, 4])
    assert await level(counters) == (0, 3)
    assert await level(counters, window=0) == (4, 0)
    clock.now -= 60
    assert await level(counters) == (4, 0)


async def test_a_reservation_outlives_many_windows(counters, clock):
    await counters.reserve("r1", [hold(5)], 10_000.0)
    for _ in range(10):
        clock.now += 60
        await counters.reserve(f"r{clock.now}", [hold(1)], 10_000.0)
        await expire(counters)
    assert await counters.settle("r1", [4])
    assert await level(counters) == (0, 1)
    assert await expire(counters) == []


async def test_a_count_without_a_window_never_ends(counters, clock):
    await counters.reserve("r1", [hold(5, window=0)], LEASE)
    await counters.settle("r1", [5])
    for _ in range(3):
        clock.now += 400 * 86400
        await expire(counters)
    assert await counters.reserve("r2", [hold(6, window=0)], LEASE) == Denied(0, 5, None)


async def test_a_calendar_month_ends_at_its_end(counters, clock):
    clock.now = calendar.timegm((2024, 2, 28, 23, 0, 0))
    assert await counters.reserve("r1", [hold(10, window=-1)], 1e6) == Granted((Level(0, 10, 25 * 3600.0),))
    clock.now += 25 * 3600 - 1
    assert await counters.reserve("r2", [hold(1, window=-1)], 1e6) == Denied(0, 0, 1.0)
    clock.now += 1
    assert await counters.reserve("r3", [hold(1, window=-1)], 1e6) == Granted((Level(0, 1, 31 * 86400.0),))


def test_the_end_of_each_window_is_right():
    def ends(window, *moment):
        end = window_at(calendar.timegm((*moment, 0, 0, 0)), window)[1]
        return end - calendar.timegm((*moment, 0, 0, 0))

    assert ends(60, 2024, 1, 1) == 60
    assert ends(86400, 2024, 1, 1) == 86400
    assert ends(7 * 86400, 2024, 1, 1) == 7 * 86400  # a Monday
    assert ends(7 * 86400, 2024, 1, 7) == 86400
    assert ends(-1, 2023, 2, 28) == 86400
    assert ends(-3, 2024, 12, 31) == ends(-12, 2024, 12, 31) == ends(-1, 2024, 12, 31) == 86400
    assert ends(-3, 2024, 1, 1) == (31 + 29 + 31) * 86400
    numbers = [window_at(calendar.timegm((2023, month, 15, 0, 0, 0)), -3)[0] for month in range(1, 13)]
    assert [number - numbers[0] for number in numbers] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert window_at(0.0, 0) == (0, None)


async def test_a_clock_that_steps_back_keeps_the_count(counters, clock):
    clock.now += 61
    await counters.reserve("r1", [hold(6)], LEASE)
    await counters.settle("r1", [6])
    clock.now -= 2  # into the previous minute, and forward again
    assert await counters.reserve("r2", [hold(4)], LEASE) == Granted((Level(0, 4, 1.0),))
    clock.now += 2
    await expire(counters)
    assert await counters.reserve("r3", [hold(5)], LEASE) == Denied(0, 4, 59.0)


async def test_clock_steps_leave_no_negative_counts(counters, clock):
    steps = [0, 86400, -86400, -3600, 7200, 10 * 86400, -10 * 86400, 59, -61]
    for number, step in enumerate(steps):
        await counters.reserve(f"r{number}", [hold(1), hold(2, window=86400), hold(1, window=0)], 1e9)
        clock.now += step
        await expire(counters)
        for other in range(0, number, 2):
            await counters.settle(f"r{other}", [0, 1, 0])
        for found in await counters.levels([("a", MINUTE), ("a", 86400), ("a", 0)]):
            assert found.settled >= 0
            assert found.reserved >= 0
    for number in range(len(steps)):
        await counters.settle(f"r{number}", [0, 0, 0])
    assert await level(counters, window=0) == (0, 0)


# --- leases


async def test_a_lease_that_expires_before_forward_is_released(counters, clock):
    await counters.reserve("r1", [hold(5), hold(2, scope="b")], LEASE)
    clock.now += LEASE - 1
    assert await expire(counters) == []
    assert await level(counters) == (0, 5)
    clock.now += 1
    assert await expire(counters) == [Expired("r1", False, ("a", "b"), (0, 0))]
    assert [await level(counters, scope) for scope in "ab"] == [(0, 0), (0, 0)]
    assert await expire(counters) == []


async def test_a_lease_that_expires_after_forward_charges_the_reservation(counters, clock):
    await counters.reserve("r1", [hold(5, window=0), hold(2, scope="b", window=0)], LEASE)
    await counters.forward(["r1"])
    clock.now += LEASE
    assert await expire(counters) == [Expired("r1", True, ("a", "b"), (5, 2))]
    assert [await level(counters, scope, 0) for scope in "ab"] == [(5, 0), (2, 0)]
    assert await expire(counters) == []


async def test_a_forward_after_the_lease_charges_what_was_released(counters, clock):
    """The call was on its way when the lease was ended, by another process."""
    holds = [hold(5, window=0), hold(1, scope="slots", window=0, slot=True)]
    await counters.reserve("r1", holds, LEASE, facts=b"facts")
    clock.now += LEASE
    assert await counters.expire(keep=LEASE) == [Expired("r1", False, ("a", "slots"), (0, 0), facts=b"facts")]
    for _ in range(2):
        await counters.forward(["r1", "unknown"])
        assert [await level(counters, scope, 0) for scope in ("a", "slots")] == [(5, 0), (0, 0)]
    for _ in range(2):  # until its row is written
        assert await counters.expire(keep=LEASE) == [Expired("r1", True, ("a", "slots"), (5, 0), facts=b"facts")]
        clock.now += LEASE
    await counters.recorded(["r1"], expired=True)
    assert await counters.expire(keep=LEASE) == []
    assert await counters.settle("r1", [3, 1])
    assert await level(counters, window=0) == (3, 0)


async def test_a_forward_after_the_settle_changes_nothing(counters, clock):
    for id, keep in (("gone", False), ("kept", True)):
        await counters.reserve(id, [hold(5, window=0)], LEASE)
        await counters.settle(id, [2], keep=keep)
    await counters.reserve("late", [hold(1, window=0)], LEASE)
    clock.now += LEASE
    assert {expired.id for expired in await counters.expire()} == {"kept", "late"}
    await counters.settle("late", [1])
    await counters.forward(["gone", "kept", "late"])
    assert await counters.expire() == []
    assert await level(counters, window=0) == (5, 0)


# --- void


async def test_a_void_reservation_is_released_and_its_id_is_refused(counters, clock):
    holds = [hold(5, window=0), hold(1, scope="slots", window=0, slot=True)]
    await counters.reserve("r1", holds, LEASE)
    for _ in range(2):
        await counters.void(["r1"])
        assert [await level(counters, scope, 0) for scope in ("a", "slots")] == [(0, 0), (0, 0)]
        with pytest.raises(ValueError, match="r1"):
            await counters.reserve("r1", holds, LEASE)
    clock.now += LEASE
    assert await counters.expire() == []
    assert await level(counters, window=0) == (0, 0)


async def test_a_reserve_that_arrives_after_its_void_holds_nothing(counters, clock):
    ids = [f"r{number}" for number in range(1201)]
    await counters.void([])
    await counters.void(ids)
    for id in (ids[0], ids[-1]):
        with pytest.raises(ValueError, match=id):
            await counters.reserve(id, [hold(5, window=0)], LEASE)
    assert await level(counters, window=0) == (0, 0)
    clock.now += LATE_SETTLE - 1
    assert await counters.expire() == []
    with pytest.raises(ValueError, match="r0"):
        await counters.reserve("r0", [hold(5, window=0)], LEASE)
    clock.now += 2
    await expire(counters)
    assert isinstance(await counters.reserve("r0", [hold(5, window=0)], LEASE), Granted)  # forgotten


async def test_a_void_leaves_what_is_forwarded_settled_or_over(counters, clock):
    for id in ("over", "charged"):
        await counters.reserve(id, [hold(1, window=0)], LEASE)
    await counters.forward(["charged"])
    clock.now += LEASE
    assert len(await counters.expire()) == 2
    for id in ("sent", "kept"):
        await counters.reserve(id, [hold(2, window=0)], LEASE)
    await counters.forward(["sent"])
    await counters.settle("kept", [2], keep=True)
    await counters.void(["over", "charged", "sent", "kept"])
    assert await level(counters, window=0) == (3, 2)
    assert await counters.settle("over", [1])
    assert await counters.settle("sent", [1])
    clock.now += LEASE
    assert await counters.expire() == [Expired("kept", False, ("a",), (2,), settled=True)]
    assert await level(counters, window=0) == (5, 0)


async def test_an_expiry_charges_the_window_of_the_reservation(counters, clock):
    await counters.reserve("r1", [hold(5)], LEASE)
    await counters.forward(["r1"])
    clock.now += 60
    assert await expire(counters) == [Expired("r1", True, ("a",), (5,))]
    assert await level(counters) == (0, 0)
    clock.now -= 60
    assert await level(counters) == (5, 0)


@pytest.mark.parametrize(("forwarded", "used"), [(True, 3), (True, 5), (True, 9), (True, 0), (False, 4), (False, 0)])
async def test_a_late_settle_corrects_once(counters, clock, forwarded, used):
    await counters.reserve("r1", [hold(5, window=0)], LEASE)
    if forwarded:
        await counters.forward(["r1"])
    await counters.reserve("r2", [hold(1, window=0)], 1000.0)
    clock.now += LEASE
    await expire(counters)
    assert await level(counters, window=0) == (5 if forwarded else 0, 1)
    assert await counters.settle("r1", [used])
    assert not await counters.settle("r1", [7])
    assert await level(counters, window=0) == (used, 1)


async def test_a_late_settle_corrects_the_window_of_the_reservation(counters, clock):
    await counters.reserve("r1", [hold(5)], LEASE)
    await counters.forward(["r1"])
    clock.now += 60
    await expire(counters)
    assert await counters.settle("r1", [2])
    assert await level(counters) == (0, 0)
    clock.now -= 60
    assert await level(counters) == (2, 0)


async def test_a_refused_late_settle_can_be_repeated(counters, clock):
    await counters.reserve("r1", [hold(5, window=0)], LEASE)
    clock.now += LEASE
    await expire(counters)
    with pytest.raises(ValueError):
        await counters.settle("r1", [1, 2])
    assert await counters.settle("r1", [1])


@pytest.mark.parametrize("recorded", [False, True])
async def test_a_late_settle_is_kept_and_reported_again(counters, clock, recorded):
    await counters.reserve("r1", [hold(5, window=0)], LEASE)
    await counters.forward(["r1"])
    clock.now += LEASE
    assert [ended.settled for ended in await counters.expire(keep=LEASE)] == [False]
    if recorded:
        await counters.recorded(["r1"])
    assert await counters.settle("r1", [2], keep=True)
    assert not await counters.settle("r1", [3], keep=True)
    await counters.forward(["r1"])
    clock.now += CORRECTED - 1
    assert await counters.expire(keep=LEASE) == []
    clock.now += 1
    for _ in range(2):
        assert await counters.expire(keep=LEASE) == [Expired("r1", True, ("a",), (2,), True)]
        clock.now += LEASE
    await counters.recorded(["r1"])
    assert await counters.expire(keep=LEASE) == []
    assert not await counters.settle("r1", [3])
    assert await level(counters, window=0) == (2, 0)


async def test_an_expired_reservation_is_forgotten_after_a_while(counters, clock):
    await counters.reserve("r1", [hold(5, window=0)], LEASE)
    await counters.forward(["r1"])
    clock.now += LEASE
    await expire(counters)
    clock.now += LATE_SETTLE - 1
    await expire(counters)
    clock.now += 2
    await expire(counters)
    assert not await counters.settle("r1", [1])
    assert await level(counters, window=0) == (5, 0)


async def test_an_expired_reservation_is_remembered_until_then(counters, clock):
    await counters.reserve("r1", [hold(5, window=0)], LEASE)
    await counters.forward(["r1"])
    clock.now += LEASE + LATE_SETTLE  # the time counts from the expiry, however late that is
    assert len(await expire(counters)) == 1
    clock.now += LATE_SETTLE - 1
    await expire(counters)
    assert await counters.settle("r1", [1])
    assert await level(counters, window=0) == (1, 0)


async def test_a_lease_is_renewed(counters, clock):
    await send(counters, "r1", [hold(5)], LEASE)
    for _ in range(6):
        clock.now += LEASE / 3
        await counters.renew(["r1"], LEASE)
        assert await expire(counters) == []
    clock.now += LEASE - 1
    assert await expire(counters) == []
    clock.now += 1
    assert await expire(counters) == [Expired("r1", True, ("a",), (5,))]


async def test_an_overdue_lease_that_was_not_ended_is_renewed(counters, clock):
    await counters.reserve("r1", [hold(5)], LEASE)
    clock.now += LEASE + 1
    await counters.renew(["r1"], LEASE)
    assert await expire(counters) == []


@pytest.mark.parametrize("facts", [b"", b"\x00\xff\x93 {tag}", b"f" * MAX_FACTS])
async def test_facts_come_back_when_the_lease_runs_out(counters, clock, facts):
    await send(counters, "held", [hold(1)], LEASE, facts=facts)
    await send(counters, "grown", [hold(1)], LEASE, facts=facts)
    await counters.extend("grown", [hold(2)])
    await send(counters, "kept", [hold(1)], LEASE, facts=facts)
    await counters.renew(["held", "grown", "kept"], LEASE)
    await counters.settle("kept", [1], keep=True)
    for _ in range(2):  # reported again, until it is recorded
        clock.now += LEASE
        ended = await counters.expire(keep=LEASE)
        assert {expired.id: expired.facts for expired in ended} == dict.fromkeys(("held", "grown", "kept"), facts)


async def test_facts_have_a_longest_size(counters):
    with pytest.raises(ValueError, match="4097 bytes"):
        await counters.reserve("r1", [hold(1)], LEASE, facts=b"f" * (MAX_FACTS + 1))
    assert await level(counters) == (0, 0)


async def test_many_leases_are_renewed_at_once(counters, clock):
    ids = [f"r{number}" for number in range(1201)]
    for id in ids:
        await send(counters, id, [hold(1, limit=2000)], LEASE)
    await counters.settle("r7", [1], keep=True)
    await counters.reserve("left", [hold(1, limit=2000)], LEASE)
    clock.now += LEASE - 1
    await counters.renew([*ids, "unknown"], LEASE)
    await counters.renew([], LEASE)
    clock.now += 1
    assert {expired.id for expired in await expire(counters)} == {"left", "r7"}
    clock.now += LEASE
    ended = [*await expire(counters), *await expire(counters), *await expire(counters)]
    assert {expired.id for expired in ended} == {*ids} - {"r7"}


async def test_renewing_does_not_forward(counters, clock):
    await counters.reserve("r1", [hold(5)], LEASE)
    await counters.renew(["r1"], LEASE)
    clock.now += LEASE
    assert await expire(counters) == [Expired("r1", False, ("a",), (0,))]


async def test_forwarding_does_not_renew(counters, clock):
    await counters.reserve("r1", [hold(5)], LEASE)
    clock.now += LEASE - 1
    await counters.forward(["r1"])
    clock.now += 1
    assert await expire(counters) == [Expired("r1", True, ("a",), (5,))]


async def test_a_renewal_may_shorten_the_lease(counters, clock):
    await send(counters, "r1", [hold(5)], 1000.0)
    await counters.renew(["r1"], 10.0)
    clock.now += 10
    assert await expire(counters) == [Expired("r1", True, ("a",), (5,))]
    clock.now += 1000
    assert await expire(counters) == []


async def test_a_settled_reservation_does_not_expire(counters, clock):
    await counters.reserve("r1", [hold(5)], LEASE)
    await counters.settle("r1", [5])
    clock.now += LEASE
    assert await expire(counters) == []


async def test_expire_takes_the_longest_overdue_first_and_a_limited_number(counters, clock):
    total = EXPIRE_BATCH + 20
    for number in range(total):
        await counters.reserve(f"r{number}", [hold(1, limit=total, window=0)], float(2 * total - number))
    clock.now += 2 * total
    first = await counters.expire()
    assert [expired.id for expired in first] == [f"r{number}" for number in reversed(range(20, total))]
    assert await level(counters, window=0) == (0, 20)
    assert [expired.id for expired in await counters.expire()] == [f"r{number}" for number in reversed(range(20))]
    assert await counters.expire() == []


async def test_a_slot_is_released_however_the_request_ends(counters, clock):
    slots = [hold(1, limit=2, scope="slots", window=0, slot=True), hold(5, window=0)]
    await counters.reserve("r1", slots, LEASE)
    await counters.reserve("r2", slots, LEASE)
    assert await counters.reserve("r3", slots, LEASE) == Denied(0, 0, None)
    await counters.settle("r1", [1, 4])
    assert await level(counters, "slots", 0) == (0, 1)
    await counters.forward(["r2"])
    clock.now += LEASE
    assert await expire(counters) == [Expired("r2", True, ("slots", "a"), (0, 5))]
    assert await counters.settle("r2", [1, 3])
    assert await level(counters, "slots", 0) == (0, 0)
    assert await level(counters, "a", 0) == (7, 0)


# --- values


async def test_large_integers_are_exact(counters):
    large = 2**62 - 1
    await counters.reserve("r1", [hold(large - 1, limit=large)], LEASE)
    assert await level(counters) == (0, large - 1)
    assert await counters.reserve("r2", [hold(2, limit=large)], LEASE) == Denied(0, 1, 60.0)
    assert await counters.reserve("r3", [hold(1, limit=large)], LEASE) == Granted((Level(0, large, 60.0),))
    assert await counters.reserve("r4", [hold(large, limit=large)], LEASE) == Denied(0, 0, 60.0)
    await counters.settle("r1", [2**53 + 1])
    assert await level(counters) == (2**53 + 1, 1)


async def test_a_count_stops_at_the_largest_integer(counters):
    for number in range(3):
        await counters.reserve(f"r{number}", [hold(0, limit=MAX_COUNT)], LEASE)
        await counters.settle(f"r{number}", [2**62])
    assert await level(counters) == (MAX_COUNT, 0)
    assert await counters.reserve("r", [hold(1, limit=MAX_COUNT)], LEASE) == Denied(0, 0, 60.0)
    assert await counters.reserve("s", [hold(MAX_COUNT, limit=MAX_COUNT)], LEASE) == Denied(0, 0, 60.0)


@pytest.mark.parametrize(
    "scope",
    [
        "",
        "é日本語🦜",
        'it\'s "quoted" `so`',
        "a:b=c d\t\n\r",
        "{tag}*?[x]%s%d\\",
        "x" * 1024,
        "'; DROP TABLE counts; --",
    ],
)
async def test_unusual_names_work(counters, clock, scope):
    await counters.reserve(scope, [hold(3, scope=scope), hold(1, scope=scope + "!")], LEASE)
    assert await level(counters, scope) == (0, 3)
    await counters.forward([scope])
    clock.now += LEASE
    assert await expire(counters) == [Expired(scope, True, (scope, scope + "!"), (3, 1))]
    assert await counters.settle(scope, [2, 2])
    assert await level(counters, scope) == (2, 0)
    assert await level(counters, scope + "!") == (2, 0)


# --- boards


async def test_authors_read_each_other_and_not_themselves(counters):
    assert list(await counters.share("board", "a", b"from a", 60.0)) == []
    assert list(await counters.share("board", "b", b"from b", 60.0)) == [b"from a"]
    assert list(await counters.share("board", "a", b"from a", 60.0)) == [b"from b"]


async def test_a_note_replaces_the_previous_one(counters):
    await counters.share("board", "a", b"first", 60.0)
    await counters.share("board", "a", b"second", 60.0)
    assert list(await counters.share("board", "b", b"", 60.0)) == [b"second"]


async def test_notes_are_ordered_by_author(counters):
    for author in ("b", "é", "a", "B", "10", "日", "\U0001f99c", "\uffee", "9", ""):
        await counters.share("board", author, author.encode() + b"!", 60.0)
    notes = await counters.share("board", "reader", b"", 60.0)
    assert [note.decode()[:-1] for note in notes] == ["", "10", "9", "B", "a", "b", "é", "日", "\uffee", "\U0001f99c"]


async def test_boards_are_independent(counters):
    await counters.share("one", "a", b"on one", 60.0)
    await counters.share("two", "a", b"on two", 60.0)
    assert list(await counters.share("one", "b", b"", 60.0)) == [b"on one"]
    await counters.share("one", "a", b"", 60.0)
    assert list(await counters.share("one", "b", b"", 60.0)) == []
    assert list(await counters.share("two", "b", b"", 60.0)) == [b"on two"]


async def test_an_empty_note_removes_the_author(counters):
    await counters.share("board", "a", b"from a", 60.0)
    await counters.share("board", "b", b"from b", 60.0)
    assert list(await counters.share("board", "a", b"", 60.0)) == [b"from b"]
    assert list(await counters.share("board", "a", b"", 60.0)) == [b"from b"]  # no author is left to remove
    assert list(await counters.share("board", "b", b"from b", 60.0)) == []


async def test_a_note_expires(counters, clock):
    await counters.share("board", "a", b"short", 10.0)
    await counters.share("board", "b", b"long", 20.0)
    clock.now += 9.5
    assert list(await counters.share("board", "c", b"", 60.0)) == [b"short", b"long"]
    clock.now += 0.5
    assert list(await counters.share("board", "c", b"", 60.0)) == [b"long"]
    clock.now += 10
    assert list(await counters.share("board", "c", b"", 60.0)) == []


async def test_a_renewed_note_lasts_from_then(counters, clock):
    for _ in range(5):
        await counters.share("board", "a", b"here", 10.0)
        clock.now += 9
        assert list(await counters.share("board", "b", b"", 60.0)) == [b"here"]
    await counters.share("board", "a", b"here", 2.0)  # shorter than the remaining time
    clock.now += 2
    assert list(await counters.share("board", "b", b"", 60.0)) == []


@pytest.mark.parametrize("ttl", [0.0, -1.0])
async def test_a_note_without_a_lifetime_is_never_read(counters, ttl):
    await counters.share("board", "a", b"before", 60.0)
    await counters.share("board", "a", b"nothing", ttl)
    assert list(await counters.share("board", "b", b"", 60.0)) == []


@pytest.mark.parametrize("forget", ["expire", "share"])
async def test_an_expired_note_is_forgotten_on_every_board(counters, clock, forget):
    await counters.share("board", "a", b"gone", 10.0)
    clock.now += 10
    if forget == "expire":
        await counters.expire()
    else:
        await counters.share("another", "b", b"", 60.0)
    clock.now -= 5
    assert list(await counters.share("board", "b", b"", 60.0)) == []


async def test_expire_leaves_valid_notes(counters, clock):
    await counters.share("board", "a", b"here", 10.0)
    clock.now += 9
    assert await expire(counters) == []
    assert list(await counters.share("board", "b", b"", 60.0)) == [b"here"]


async def test_a_note_that_is_too_long_changes_nothing(counters, clock):
    longest = bytes(range(256)) * (MAX_NOTE // 256)
    await counters.share("board", "a", longest, 10.0)
    clock.now += 5
    with pytest.raises(ValueError, match=str(MAX_NOTE)):
        await counters.share("board", "a", longest + b"!", 60.0)
    assert list(await counters.share("board", "b", b"", 60.0)) == [longest]
    clock.now += 5
    assert list(await counters.share("board", "b", b"", 60.0)) == []


@pytest.mark.parametrize(
    "name", ["", "é日本語🦜", 'it\'s "x" `y`', "a:b\t\n", "{tag}*?%s\\", "'; DROP TABLE notes; --"]
)
async def test_unusual_boards_authors_and_notes_work(counters, name):
    await counters.share(name, name, b"\x00" + name.encode() + b"\xff", 60.0)
    assert list(await counters.share(name, name + "!", b"\x00", 60.0)) == [b"\x00" + name.encode() + b"\xff"]
    assert list(await counters.share(name, name, b"", 60.0)) == [b"\x00"]
    assert list(await counters.share(name + "!", "a", b"", 60.0)) == []


async def test_boards_and_budgets_do_not_affect_each_other(counters, clock):
    await send(counters, "a", [hold(4, scope="a", window=0)], LEASE)
    await counters.share("a", "a", b"here", 2 * LEASE)
    assert await level(counters, window=0) == (0, 4)
    clock.now += LEASE
    assert await expire(counters) == [Expired("a", True, ("a",), (4,))]
    assert await counters.settle("a", [3])
    assert list(await counters.share("a", "b", b"", 60.0)) == [b"here"]
    assert await level(counters, window=0) == (3, 0)


# --- concurrency


async def test_concurrent_reservations_never_exceed_the_limit(counters):
    async def request(number):
        granted = await counters.reserve(f"r{number}", [hold(3, limit=100), hold(1, limit=1000, scope="b")], LEASE)
        if isinstance(granted, Denied):
            return None
        assert granted.levels[0].settled + granted.levels[0].reserved <= 100
        await asyncio.sleep(0)
        await counters.forward([f"r{number}"])
        await asyncio.sleep(0)
        used = number % 4
        assert sorted(await asyncio.gather(*[counters.settle(f"r{number}", [used, 1]) for _ in range(3)])) == [0, 0, 1]
        return used

    used = [
        charge for charge in await asyncio.gather(*[request(number) for number in range(200)]) if charge is not None
    ]
    assert 33 <= len(used) < 200
    assert await level(counters) == (sum(used), 0)
    assert await level(counters, "b") == (len(used), 0)


async def test_concurrent_expiries_report_each_once(counters, clock):
    for number in range(50):
        await counters.reserve(f"r{number}", [hold(1, limit=50)], LEASE)
    clock.now += LEASE
    reports = await asyncio.gather(*[counters.expire() for _ in range(5)])
    assert sorted(expired.id for report in reports for expired in report) == sorted(f"r{n}" for n in range(50))


async def test_concurrent_authors_lose_no_note(counters):
    async def worker(author):
        for turn in range(10):
            notes = list(await counters.share("board", author, f"{author} {turn}".encode(), 60.0))
            assert author not in {note.decode().split()[0] for note in notes}
            assert notes == sorted(notes)
            await asyncio.sleep(0)

    await asyncio.gather(*[worker(f"w{number}") for number in range(8)])
    assert list(await counters.share("board", "reader", b"", 60.0)) == [f"w{number} 9".encode() for number in range(8)]


# --- housekeeping


async def test_memory_is_bounded(clock):
    counters = MemoryCounters(clock)
    for number in range(5000):
        await counters.reserve(f"r{number}", [hold(scope=str(number)), hold(scope=str(number), window=0)], 600.0)
        await counters.settle(f"r{number}", [1, 0])
        clock.now += 1
    assert len(counters._live) == len(counters._expired) == 0
    assert len(counters._leases) <= 1001
    assert sum(len(bucket) for bucket in counters._buckets.values()) <= 120
    clock.now += 120
    await expire(counters)
    assert not [bucket for (window, _), bucket in counters._buckets.items() if window or bucket]


async def test_denials_cost_no_memory(clock):
    counters = MemoryCounters(clock)
    for number in range(10):
        await counters.reserve(f"r{number}", [hold(scope=str(number)), hold(11, scope=f"{number}!")], LEASE)
    assert not any(counters._buckets.values())
    assert not counters._live
    assert not counters._leases


async def test_short_lived_authors_cost_no_memory(clock):
    counters = MemoryCounters(clock)
    for number in range(3000):
        notes = await counters.share(f"board-{number % 2}", f"author-{number}", b"x" * 100, 20.0)
        assert len(notes) <= 10
        assert len(counters._notes) <= 20
        clock.now += 1
    clock.now += 20
    await expire(counters)
    assert not counters._notes


async def test_memory_remembers_a_limited_number_of_expired_reservations(clock, monkeypatch):
    monkeypatch.setattr("extproc.stores.memory.MAX_EXPIRED", 3)
    counters = MemoryCounters(clock)
    for number in range(5):
        await counters.reserve(f"r{number}", [hold(1)], LEASE + number)
    clock.now += 2 * LEASE
    await expire(counters)
    assert [await counters.settle(f"r{number}", [1]) for number in range(5)] == [False, False, True, True, True]


# --- examination


async def test_an_examination_finds_a_good_store_in_order_and_leaves_nothing(counters, clock):
    await counters.reserve("r1", [hold(4)], LEASE)
    before = await level(counters)
    assert [await counters.examine() for _ in range(3)] == [""] * 3
    assert await level(counters) == before
    assert await counters.settle("r1", [4])
    clock.now += 2 * LEASE
    assert await expire(counters) == []


# --- urls


async def test_a_url_opens_its_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    memory, sqlite = open_counters("memory:"), open_counters("sqlite:var/counters.db")
    assert isinstance(memory, MemoryCounters)
    assert isinstance(sqlite, SqliteCounters)
    assert (tmp_path / "var" / "counters.db").exists()
    for counters in (memory, sqlite):
        assert isinstance(await counters.reserve("r1", [hold()], LEASE), Granted)
        await counters.close()


@pytest.mark.parametrize("url", ["", "memory", "etcd://host", "mysql:x", "../x:y", "memory:x", "sqlite:", "__init__:"])
def test_unknown_urls_are_refused(url):
    with pytest.raises(ValueError, match=r"memory:|sqlite:"):
        open_counters(url)
