"""The board: messages of clients that came to another process than their calls."""

import pytest

from extproc.stores.memory import MemoryCounters
from extproc.tools.mcp.board import BOARD, Board
from tests.mcp.test_sessions import Clock


class Process:
    def __init__(self, clock):
        self.heard = []
        self.board = Board(lambda session, body: self.heard.append((session, body)), clock)


@pytest.fixture
def clock():
    return Clock()


async def test_each_message_is_heard_once_by_every_other_process(clock):
    store = MemoryCounters(clock)
    one, two, three = processes = [Process(clock) for _ in range(3)]
    one.board.tell("s1", b"cancelled")
    one.board.tell("s1", b"cancelled")
    two.board.tell("s2")
    for _ in range(12):
        for process in processes:
            await process.board.turn(store)
        clock.now += 1.0
    assert one.heard == [("s2", b"")]
    assert two.heard == [("s1", b"cancelled")] * 2
    assert sorted(three.heard) == [("s1", b"cancelled"), ("s1", b"cancelled"), ("s2", b"")]
    assert list(await store.share(BOARD, "reader", b"", 1.0)) == [], "nothing stays"


async def test_the_board_is_bounded_and_takes_no_note_of_another_release(clock):
    store, one, two = MemoryCounters(clock), Process(clock), Process(clock)
    await store.share(BOARD, "another", b"\xc1", 60.0)
    one.board.tell("s", b"x" * 2049)
    for number in range(2000):
        one.board.tell(f"s{number}", b"x" * 500)
    await one.board.turn(store)
    await two.board.turn(store)
    assert 100 < len(two.heard) < 200
    assert two.heard[-1][0] == "s1999", "the latest"
