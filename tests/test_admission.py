import asyncio
import json

import pytest

from extproc.access.auth import ANONYMOUS
from extproc.exchange import admission
from extproc.exchange.admission import Admit, InFlight
from extproc.money.budgets import compile_budget
from extproc.wire.framing.slices import LARGE
from extproc.words.actions import CONTINUE, Continue
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, RequestHead
from tests.exchanges import new_exchange
from tests.talk import ANSWER, QUESTION, TOKENS, answers, asks, error, sends, streams, talk
from tests.turns import turns_during

KIB = 1 << 10
LIMITS = {"exchanges": 10, "memory": 1000, "share": 0.5, "body": 700}


def asking(length=None, consumer="alice"):
    exchange = new_exchange("id", RequestHead("POST", "/", {}, length=length))
    exchange.consumer = Consumer(consumer)
    return exchange


def admitted(admit, *arguments):
    exchange = asking(*arguments)
    admit(exchange)
    return exchange


def refused(call, *arguments):
    with pytest.raises(Refusal) as refusal:
        call(*arguments)
    return refusal.value.kind.code, "retry-after" in refusal.value.headers


def admits(**limits):
    room = InFlight()
    return room, Admit(room, lambda: sum(share.exchanges for share in room.shares.values()), **LIMITS | limits)


# --- bytes


def test_bodies_are_weighed_at_the_headers():
    room, admit = admits()
    first, second = admitted(admit, 500, "alice"), admitted(admit, 500, "bob")
    assert room.size == 1000
    assert refused(admit, asking(1, "carol")) == ("overloaded", True)
    first.request.place.leave()
    assert room.size == 500
    admitted(admit, 1, "carol")
    second.request.place.leave()
    assert {name for name, share in room.shares.items() if share.exchanges} == {"carol"}


def test_consumers_without_anything_in_flight_are_forgotten_when_there_are_many(monkeypatch):
    monkeypatch.setattr(admission, "_KEPT", 3)
    room, admit = admits()
    for number in range(10):
        admitted(admit, 1, f"c{number}").request.place.leave()
    assert len(room.shares) == 3


def test_one_consumer_leaves_room_to_the_others():
    _, admit = admits()
    admitted(admit, 400, "alice")
    assert refused(admit, asking(101, "alice")) == ("rate_limited", True)
    admitted(admit, 100, "alice")
    admitted(admit, 500, "bob")


def test_one_body_is_always_within_a_share():
    _, admit = admits()
    admitted(admit, 700)
    assert refused(admit, asking(1)) == ("rate_limited", True)


def test_those_who_are_not_known_by_name_are_many():
    _, admit = admits()
    for _ in range(5):
        admitted(admit, 100, ANONYMOUS)
    admitted(admit, 500, ANONYMOUS)


def test_a_body_beyond_the_limit_is_refused_by_its_length():
    _, admit = admits()
    assert refused(admit, asking(701)) == ("body_too_large", False)


def test_a_body_of_unknown_length_is_weighed_when_it_comes():
    room, admit = admits()
    exchange = admitted(admit)
    assert room.size == 0
    admit.take(exchange, 600)
    assert room.size == 600
    other = admitted(admit, None, "bob")
    assert refused(admit.take, other, 500) == ("overloaded", True)
    assert room.size == 600


def test_a_refused_exchange_takes_nothing_for_good():
    room, admit = admits()
    admitted(admit, 700)
    exchange = asking(400, "bob")
    assert refused(admit, exchange) == ("overloaded", True)
    exchange.request.place.leave()
    assert (room.size, room.shares["bob"].exchanges) == (700, 0)


# --- exchanges


def test_one_consumer_takes_its_share_of_exchanges_at_most():
    room, admit = admits()
    mine = [admitted(admit) for _ in range(5)]
    assert refused(admit, asking()) == ("rate_limited", True)
    for name in "abcde":
        admitted(admit, None, name)
    mine[0].request.place.leave()
    admitted(admit)
    assert room.shares["alice"].exchanges == 5


# --- turns


async def test_large_bodies_wait_for_their_turn_in_order():
    room, order = InFlight(at_once=100), []

    async def work(name, size):
        async with room.wait_turn(size):
            order.append(name)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    await asyncio.gather(work("a", 60), work("b", 60), work("c", 30), work("larger than all", 1000), work("d", 1))
    assert order == ["a", "b", "c", "larger than all", "d"]
    assert room._free == 100


async def test_those_who_left_have_no_turn():
    room = InFlight(at_once=100)
    entered = []

    async def work(name):
        async with room.wait_turn(100):
            entered.append(name)
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(work(name)) for name in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert entered == ["a", "c"]
    assert room._free == 100


async def test_a_turn_that_was_given_and_not_taken_is_given_on():
    room = InFlight(at_once=100)
    first = room.wait_turn(100)
    await first.__aenter__()
    waiting = asyncio.create_task(room.wait_turn(100).__aenter__())
    await asyncio.sleep(0)
    await first.__aexit__(None, None, None)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert room._free == 100


# --- in the pipeline


def large(size=300 * KIB, **fields):
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "é, " * (size // 8)}]} | fields).encode()


async def test_a_large_request_goes_the_same_way(world):
    gateway = world(TOKENS.replace("100000", "10000000"))
    body = large()
    stream = gateway.stream()
    headers, onward, _, chunk = await talk(
        stream, asks(content_length=str(len(body))), sends(body), answers(), streams(ANSWER, end=True)
    )
    assert (headers, onward.order) == (CONTINUE, ("try-a",))
    assert json.loads(chunk.body) == ANSWER
    assert await gateway.level("t") == (10, 0)
    assert gateway.pipeline.services.in_flight.size == 0


async def test_a_large_body_is_freed_when_the_request_has_left(world):
    gateway = world("models: {m: {provider: a, model: other}}")
    body, stream = large(), gateway.stream()
    await asks(content_length=str(len(body)))(stream)
    assert gateway.pipeline.services.in_flight.size == len(body)
    onward = await sends(body)(stream)
    exchange = stream._exchange
    assert json.loads(onward.body) == json.loads(body) | {"model": "other"}
    assert (exchange.request.body, exchange.request.json, exchange.route.onward.body) == (b"", {}, None)
    assert (exchange.request.size, gateway.pipeline.services.in_flight.size) == (len(body), 0)
    await stream.on_end()


async def test_a_large_request_that_breaks_off_is_charged_by_its_text(world):
    gateway = world(TOKENS.replace("100000", "10000000"))
    body = large()
    stream = gateway.stream()
    await talk(stream, asks(), sends(body), answers(), streams({"id": "no usage"}, end=True))
    settled, reserved = await gateway.level("t")
    assert len(body) / 6 < settled <= len(body)
    assert reserved == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (large()[:-1], 400, "invalid_json"),
        (large().replace(b'"model"', b'"Model"'), 400, "invalid_request"),
        (large(x=[{}] * 1000), 400, "invalid_json"),
        (b"[" + b" " * 300 * KIB + b"]", 400, "invalid_request"),
        (large(1100 * KIB), 413, "body_too_large"),
        (large(model="unknown"), 404, "model_not_found"),
    ],
)
async def test_a_large_body_is_refused_as_a_small_one(world, body, status, code):
    gateway = world("limits: {json_nodes: 1000, request_body: 1MiB}")
    _, answer = await talk(gateway.stream(), asks(), sends(body))
    assert error(answer)[:2] == (status, code)
    assert gateway.pipeline.services.in_flight.size == 0


async def test_plain_answers_are_held_while_there_is_room(world):
    """The second answer passes in pieces; its usage is read all the same."""
    gateway = world("limits: {answer_memory: 1MiB}")
    long = json.dumps({"choices": [], "x": "y" * 700 * KIB} | {"usage": ANSWER["usage"]}).encode()
    talks = []
    for _ in range(2):
        stream = gateway.stream()
        for say in (asks(), sends(QUESTION), answers()):
            await say(stream)
        talks.append((stream, (await streams(long[:-20])(stream)).body))
    assert [len(body) for _, body in talks] == [0, len(long) - 20]
    assert gateway.pipeline.services.in_flight.answers == len(long) - 20
    for stream, before in reversed(talks):
        assert before + (await streams(long[-20:], True)(stream)).body == long
        await stream.on_end()
    assert [entry["output_tokens"] for entry in gateway.log] == [3, 3]
    assert gateway.pipeline.services.in_flight.answers == 0


async def test_an_answer_that_breaks_off_gives_its_room_back(world):
    gateway = world()
    stream = gateway.stream()
    for say in (asks(), sends(QUESTION), answers(), streams(b"[" * 1000)):
        await say(stream)
    assert gateway.pipeline.services.in_flight.answers == 1000
    await stream.on_end()
    assert gateway.pipeline.services.in_flight.answers == 0


async def test_others_have_their_turn_while_a_large_body_is_read(world):
    reading = talk(world().stream(), asks(), sends(large(4000 * KIB)))
    assert await turns_during(reading) >= 4000 * KIB // LARGE


async def test_what_envoy_gave_up_is_not_read_on(world):
    gateway = world()
    stream = gateway.stream()
    await asks()(stream)
    task = asyncio.create_task(sends(large())(stream))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await stream.on_end()
    assert task.cancelled()
    assert [entry["outcome"] for entry in gateway.log] == ["error"]
    assert gateway.pipeline.services.in_flight._free == admission._AT_ONCE


async def test_a_body_without_room_is_dropped_as_it_comes(world):
    gateway = world("limits: {body_memory: 1MiB}")
    first, second = gateway.stream(), gateway.stream()
    await asks(content_length="1000000")(first)
    await asks()(second)
    assert second.admits(40_000)
    assert not second.admits(900_000)
    answer = await sends(b"")(second)
    assert error(answer)[:2] == (503, "overloaded")
    assert answer.headers["retry-after"] == "1"
    await second.on_end()
    assert [entry["error"] for entry in gateway.log] == ["overloaded"]
    assert gateway.pipeline.services.in_flight.size == 1_000_000
    await first.on_end()
    assert gateway.pipeline.services.in_flight.size == 0


# --- budgets, before the body

SPENT = "budgets: [{name: t, unit: %s, limit: %d, window: %s}]"


@pytest.mark.parametrize(
    ("unit", "limit", "window"),
    [
        ("requests", 0, "minute"),
        ("requests", 1, "minute"),
        ("requests", 1, "day"),
        ("tokens", 10, "day"),
        ("input_tokens", 7, "day"),
    ],
)
async def test_a_large_request_without_room_is_refused_at_its_headers(world, unit, limit, window):
    gateway = world(SPENT % (unit, limit, window))
    if limit:
        await gateway.counters.reserve("x", [_hold(gateway, limit)], 60)
        await gateway.counters.settle("x", [limit])
    before = await gateway.level("t")
    [early] = await talk(gateway.stream(), asks(content_length="1000000"))
    _, late = await talk(gateway.stream(), asks(content_length="1000"), sends(QUESTION))
    assert error(early) == error(late), "as a usual request is, whose headers cost no call of the store"
    assert early.headers == late.headers
    assert [entry["denied_by"] for entry in gateway.log] == ["t", "t"]
    assert await gateway.level("t") == before


def _hold(gateway, amount):
    return compile_budget(gateway.pipeline.settings.budgets[0]).hold("t", amount)


async def test_a_full_concurrency_budget_is_known_at_the_headers(world):
    gateway = world("budgets: [{name: c, unit: concurrency, limit: 1}]")
    first = gateway.stream()
    await asks()(first)
    assert isinstance(await sends(QUESTION)(first), Continue)
    [answer] = await talk(gateway.stream(), asks(content_length="1000000"))
    assert error(answer)[:2] == (429, "rate_limited")
    await first.on_end()
    second = gateway.stream()
    assert await asks(content_length="1000000")(second) == CONTINUE
    await second.on_end()


@pytest.mark.parametrize(
    "budget",
    [
        "{name: b, unit: requests, limit: 0, window: day, mode: shadow}",
        "{name: b, unit: requests, limit: 0, window: day, match: {model: other}}",
        "{name: b, unit: requests, limit: 0, window: day, match: {consumer: other}}",
        "{name: b, unit: usd, limit: 0, window: day}",
        "{name: b, unit: tokens, limit: 0, window: call}",
        "{name: b, unit: output_tokens, limit: 0, window: day}",
        "{name: b, unit: requests, limit: 0, window: day, on_exceed: downgrade, downgrade_to: n}",
    ],
)
async def test_what_depends_on_the_body_is_not_judged_before_it(world, budget):
    gateway = world(f"budgets: [{budget}]")
    stream = gateway.stream()
    assert await asks(content_length="1000000")(stream) == CONTINUE
    await stream.on_end()


async def test_counting_tokens_needs_none(world):
    gateway = world(SPENT % ("tokens", 0, "minute"))
    stream = gateway.stream()
    assert await asks("/v1/messages/count_tokens", content_length="1000000")(stream) == CONTINUE
    await stream.on_end()
