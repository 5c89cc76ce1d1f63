"""Forgotten consumers, in the memories of several processes that share a store."""

import pytest

from extproc.money.accounting.forgotten import BOARD, Forgotten
from extproc.operate.telemetry.recent import Recent
from extproc.stores import StoreError
from extproc.stores.memory import MemoryCounters


class Store(MemoryCounters):
    down = False

    async def share(self, *arguments):
        if self.down:
            raise StoreError("away")
        return await super().share(*arguments)


def process(store):
    """A process's memory with exchanges of zoe, of bob and of a stranger."""
    recent = Recent(10, 10)
    for consumer, known in (("zoe", True), ("bob", True), ("", False), ("zoe", True)):
        recent.add({"id": str(len(recent)), "consumer": consumer}, known=known)
    return Forgotten(store, recent.drop), recent


def consumers(recent):
    return [entry["consumer"] for entry in recent]


async def test_every_process_drops_the_exchanges_of_a_forgotten_consumer():
    store = Store()
    (here, ours), (there, theirs) = process(store), process(store)
    await there.refresh()
    assert consumers(theirs) == ["zoe", "bob", "", "zoe"]
    await here.add("zoe")
    assert consumers(ours) == ["bob", ""]
    await there.refresh()
    assert consumers(theirs) == ["bob", ""]
    theirs.add({"id": "9", "consumer": "zoe"}, known=True)
    await there.refresh()
    assert consumers(theirs) == ["bob", "", "zoe"], "later exchanges are new ones"
    await here.add("zoe")
    await there.refresh()
    assert consumers(theirs) == ["bob", ""], "it may be forgotten again"
    notes = b"".join(await store.share(BOARD, "", b"", 1.0))
    assert notes
    assert b"zoe" not in notes, "the board has no names; random hexadecimal ids cannot have this one"


async def test_a_store_that_does_not_answer_and_notes_of_another_release_break_nothing():
    store = Store()
    (here, _), (there, theirs) = process(store), process(store)
    store.down = True
    with pytest.raises(StoreError):
        await here.add("zoe")
    store.down = False
    await store.share(BOARD, "x", b"\xc1", 60.0)
    await there.refresh()
    assert consumers(theirs) == ["zoe", "bob", "", "zoe"]
