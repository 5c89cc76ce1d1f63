"""The contract of every store for listing the fullest counts of a budget."""

import asyncio

import pytest

from extproc.stores import PAGE, Hold, Level, fuller

LEASE = 30.0


async def spend(counters, scope, used, held=0, window=60):
    await counters.reserve(f"{scope} used", [Hold(scope, window, 10**9, used)], LEASE)
    await counters.settle(f"{scope} used", [used])
    await counters.reserve(f"{scope} held", [Hold(scope, window, 10**9, held)], LEASE)


async def test_the_fullest_come_first(counters, clock):
    for scope, used, held in (("b:x=1", 3, 0), ("b:x=2", 1, 4), ("b", 2, 2), ("b:x=3", 0, 3), ("b:x=0", 3, 0)):
        await spend(counters, scope, used, held)
    clock.now += 20
    expected = [
        ("b:x=2", Level(1, 4, 40.0)),
        ("b", Level(2, 2, 40.0)),
        ("b:x=0", Level(3, 0, 40.0)),
        ("b:x=1", Level(3, 0, 40.0)),
        ("b:x=3", Level(0, 3, 40.0)),
    ]
    assert list(await counters.fullest("b", 60)) == expected
    for limit in (0, 1, 3):
        assert list(await counters.fullest("b", 60, limit)) == expected[:limit]
    assert list(await counters.fullest("b:x=1", 60)) == [expected[3]]


async def test_other_budgets_and_windows_are_left_out(counters, clock):
    for scope in (
        "b",
        "bb",
        "b-1",
        "b-1:x=1",
        "b;",
        "b9",
        "B:x=1",
        "ab:x=1",
        "b:",
        "b::",
        "b:\U0001f99c",
        "\U0001f99c",
    ):
        await spend(counters, scope, 1)
    await spend(counters, "b:x=month", 5, window=-1)
    await spend(counters, "b:x=ever", 5, window=0)
    found = ["b", "b:", "b::", "b:\U0001f99c"]
    assert [scope for scope, _ in await counters.fullest("b", 60)] == found
    assert list(await counters.fullest("b", 0)) == [("b:x=ever", Level(5, 0, None))]
    assert [scope for scope, _ in await counters.fullest("b", -1)] == ["b:x=month"]
    assert list(await counters.fullest("b", 3600)) == []
    clock.now += 60
    assert list(await counters.fullest("b", 60)) == []


async def test_empty_counts_are_left_out(counters):
    await spend(counters, "b:x=1", 0)
    await counters.reserve("slot", [Hold("b:x=2", 60, 5, 1, slot=True)], LEASE)
    assert [scope for scope, _ in await counters.fullest("b", 60)] == ["b:x=2"]
    await counters.settle("slot", [1])
    await counters.reserve("idle", [Hold("b:x=3", 0, 5, 0, idle=60.0)], LEASE)
    assert list(await counters.fullest("b", 60)) == list(await counters.fullest("b", 0)) == []


async def test_sums_beyond_the_largest_integer_are_ordered(counters):
    large = 2**63 - 1
    for scope, used in (("b:x=1", large), ("b:x=2", large - 5)):
        await counters.reserve(scope, [Hold(scope, 60, large, 5)], LEASE)
        await counters.reserve(f"{scope} used", [Hold(scope, 60, large, 0)], LEASE)
        await counters.settle(f"{scope} used", [used])
    assert list(await counters.fullest("b", 60)) == [
        ("b:x=1", Level(large, 5, 60.0)),
        ("b:x=2", Level(large - 5, 5, 60.0)),
    ]


@pytest.mark.parametrize("name", ["", "*", "?", "[a]", "a\\", "a'b", "%", "_", "a\nb", "é日", "a.b-c"])
async def test_unusual_names_work(counters, name):
    for scope in (name, f"{name}:x=1", f"{name}!", "abc", "abc:x=1"):
        await spend(counters, scope, 1)
    assert [scope for scope, _ in await counters.fullest(name, 60)] == [name, f"{name}:x=1"]


async def test_more_counts_than_a_page_are_all_read(counters):
    """Other calls have their turn between the pages."""
    total = 3 * PAGE + 10
    for number in range(total):
        await counters.reserve(f"r{number}", [Hold(f"b:x={number}", 60, 10**9, 1 + number * 7919 % total)], 1000.0)
        if number % 3 == 0:
            await counters.reserve(f"o{number}", [Hold(f"other:x={number}", 60, 10**9, 10**6)], 1000.0)
    turns = 0

    async def others():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    found = await counters.fullest("b", 60, 10)
    task.cancel()
    assert [level.reserved for _, level in found] == list(range(total, total - 10, -1))
    assert turns >= 3


def test_the_fullest_of_all_pages_are_returned():
    best = fuller([], [("a", 1, 1), ("b", 0, 3), ("zero", 0, 0)], 2)
    assert best == [("b", 0, 3), ("a", 1, 1)]
    assert fuller(best, [("c", 2, 0), ("b", 0, 0)], 2) == [("a", 1, 1), ("c", 2, 0)]  # read again, and empty by then
    assert fuller(best, [], 0) == []
