"""Units of budgets in a fleet: no process counts in another unit than those that share its store."""

from extproc.money.accounting.units import BOARD, STAYS, Units
from extproc.stores.memory import MemoryCounters

TOKENS, MONEY = {"a": "tokens", "b": "usd"}, {"a": "usd", "b": "usd", "c": "tokens"}


async def test_a_process_knows_the_units_of_the_others_until_they_have_left():
    store = MemoryCounters()
    here, there = Units(store), Units(store)
    await here.tell(TOKENS)
    assert here.differ(MONEY) == [], "its own units are no others"
    assert there.differ(MONEY) == [], "not read yet"
    await there.leave()
    assert there.differ(MONEY) == ["a"]
    assert there.differ(TOKENS) == []
    await here.leave()
    await there.leave()
    assert there.differ(MONEY) == []


async def test_a_process_that_was_killed_is_forgotten():
    now = 1000.0
    store = MemoryCounters(lambda: now)
    here, there = Units(store), Units(store)
    await here.tell(TOKENS)
    now += STAYS + 1
    await there.leave()
    assert there.differ(MONEY) == []


async def test_notes_of_another_release_and_too_many_budgets_break_nothing():
    store = MemoryCounters()
    here, there = Units(store), Units(store)
    for note in (b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa1a\x01"):
        await store.share(BOARD, "x", note, 60.0)
        await here.leave()
        assert here.differ(MONEY) == []
    await here.tell({str(number): "tokens" for number in range(20_000)})
    await there.leave()
    assert there.differ({"1": "usd"}) == []
