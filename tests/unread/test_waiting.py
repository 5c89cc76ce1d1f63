"""Waiting for the log: either order, other tries, silence, and a drain."""

import asyncio
import time

import pytest

from extproc.dialects import client_apis
from extproc.exchange.unread.waiting import SILENCE, Waiting
from extproc.words.exchange import Ending, RequestHead
from extproc.words.tries import Seen, Try, UnderWay
from tests.exchanges import new_exchange
from tests.unread.streams import stream
from tests.unread.watch import watched

BODY = stream("openai_chat", 5)
INTERVAL = 10.0


def tried(attempt=1, outcome="ok", seen=None, id="id-1", **fields):
    values = {"status": 200, "seconds": 3.0, "first_byte": 0.5, "retry_after": "", "answer_bytes": len(BODY)} | fields
    seen = watched([BODY]) if seen is None else seen
    return Try(id, "a", "m", attempt, outcome=outcome, seen=seen, **values)


def answered(id="id-1", attempts=1):
    exchange = new_exchange(id, RequestHead("POST", "", {}))
    exchange.request.dialect, exchange.answer.status, exchange.answer.attempts = (
        client_apis()["openai_chat"],
        200,
        attempts,
    )
    exchange.answer.target, exchange.answer.unread, exchange.route.forwarded = object(), True, True
    return exchange


class World:
    def __init__(self):
        self.time = 1000.0
        self.counted, self.bugs, self.settled = [], [], []
        self.waiting = Waiting(self.counted.append, self.bugs.append, lambda: self.time)

    async def settle(self, exchange):
        self.settled.append(exchange)

    def wait(self, exchange):
        self.waiting.wait(exchange, self.settle, interval=INTERVAL, event_limit=1 << 20)

    async def turn(self):
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
def world():
    return World()


async def test_the_log_comes_after_the_headers(world):
    world.waiting.expect("id-1")
    world.wait(exchange := answered())
    await world.turn()
    assert world.settled == []
    world.waiting.tell(tried())
    await world.turn()
    assert world.settled == [exchange]
    assert exchange.ending is Ending.ANSWERED
    assert (exchange.answer.report.usage.input_tokens, exchange.answer.report.usage.output_tokens) == (300, 77)
    assert world.counted == ["told"]
    world.waiting.tell(tried())  # once more: nothing
    await world.turn()
    assert world.settled == [exchange]


async def test_the_log_comes_before_the_headers(world):
    world.waiting.expect("id-1")
    world.waiting.tell(tried())
    world.wait(exchange := answered())
    await world.turn()
    assert world.settled == [exchange]
    assert exchange.answer.report.usage.output_tokens == 77


@pytest.mark.parametrize("first", [True, False])
async def test_only_the_try_that_answered_counts(world, first):
    world.waiting.expect("id-1")
    exchange = answered(attempts=2)
    if not first:
        world.wait(exchange)
    world.waiting.tell(tried(1, "5xx", Seen()))
    await world.turn()
    assert world.settled == []
    if first:
        world.wait(exchange)
    world.waiting.tell(tried(2))
    await world.turn()
    assert exchange.answer.report.usage.output_tokens == 77


@pytest.mark.parametrize(("outcome", "ending"), [("client_left", Ending.INCOMPLETE), ("cut", Ending.INCOMPLETE)])
async def test_an_answer_that_broke_off(world, outcome, ending):
    world.wait(exchange := answered())
    world.waiting.tell(tried(outcome=outcome, seen=watched([BODY[:800]], ended=False), answer_bytes=800))
    await world.turn()
    assert exchange.ending is ending
    assert exchange.answer.report.usage is None
    assert exchange.answer.report.output_events > 0


async def test_entries_that_nobody_waits_for_are_dropped(world):
    world.waiting.tell(tried())
    world.waiting.expect("id-1")
    world.waiting.forget("id-1")
    world.waiting.tell(tried())
    world.waiting.tell(UnderWay("id-1", 1))
    world.waiting.forget("id-1")
    await world.turn()
    assert world.settled == []
    for attempt in range(1000):  # of one exchange, no more than a chain has tries
        world.waiting.expect("id-2")
        world.waiting.tell(tried(attempt, id="id-2"))


async def test_silence_ends_it_and_reports_go_on(world):
    world.wait(exchange := answered())
    for _ in range(5):
        world.time += SILENCE * INTERVAL - 1
        world.waiting.tell(UnderWay("id-1", 1))
        world.waiting.give_up()
    world.time += SILENCE * INTERVAL - 1
    world.waiting.give_up()
    await world.turn()
    assert world.settled == []
    world.time += 2
    world.waiting.give_up()
    await world.turn()
    assert world.settled == [exchange]
    assert (exchange.answer.report, exchange.ending) == (None, Ending.INCOMPLETE)
    assert world.counted == ["untold"]


async def test_silence_before_the_headers_is_not_ours_to_end(world):
    world.waiting.expect("id-1")
    world.time += 10_000
    world.waiting.give_up(all_=True)
    await world.turn()
    assert world.settled == []


async def test_a_script_that_failed_tells_nothing(world):
    world.wait(exchange := answered())
    world.waiting.tell(Try("id-1", "a", "m", 1, 200, "ok", 3.0, 0.5, "", answer_bytes=5000))
    await world.turn()
    assert (exchange.answer.report, world.counted) == (None, ["untold"])


async def test_times_are_those_of_the_try_behind_our_own(world):
    exchange = answered()
    exchange.started = time.perf_counter() - 7
    world.wait(exchange)
    seen = Seen(tail=BODY, size=len(BODY), times=[(0, 0.25)], ended=True)
    world.waiting.tell(tried(seconds=3.0, first_byte=0.5, seen=seen))
    await world.turn()
    assert exchange.seconds == pytest.approx(9.5, abs=0.1)
    assert exchange.answer.first_token == pytest.approx(7.25, abs=0.1)


async def test_a_bug_is_counted(world):
    async def settle(_exchange):
        raise KeyError

    world.waiting.wait(answered(), settle, interval=INTERVAL, event_limit=1 << 20)
    world.waiting.tell(tried())
    await world.turn()
    assert world.bugs == ["Waiting"]


async def test_a_drain_waits_while_envoy_is_there(world):
    world.waiting.logs = 1
    world.wait(exchange := answered())
    drain = asyncio.create_task(world.waiting.drain(60))
    await asyncio.sleep(0.12)
    assert not drain.done()
    world.waiting.tell(tried())
    await asyncio.wait_for(drain, 1)
    assert (world.settled, world.counted) == ([exchange], ["told"])


@pytest.mark.parametrize(("logs", "passed"), [(0, 3), (1, 61)])
async def test_a_drain_ends(world, logs, passed):
    world.waiting.logs = logs
    world.wait(exchange := answered())
    drain = asyncio.create_task(world.waiting.drain(60))
    await asyncio.sleep(0.06)
    assert not drain.done()
    world.time += passed
    await asyncio.wait_for(drain, 1)
    assert (world.settled, world.counted) == ([exchange], ["untold"])
