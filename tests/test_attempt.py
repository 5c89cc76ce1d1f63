import asyncio
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.exchange.admission import InFlight
from extproc.exchange.attempt import AttemptStream, back_off
from extproc.settings.limits import LimitsSettings
from extproc.wire.transport import Malformed
from extproc.words import contract
from extproc.words.actions import CONTINUE, Continue
from extproc.words.contract import Edit, Service
from extproc.words.exchange import Target

TARGETS = [Target("one", "a", "model-one"), Target("two", "b", "vendor/model=2,x")]
EDITS = [Edit({}), Edit({"model": "vendor/model=2,x", "seed": 7}, ["user"])]
BODY = b'{"model":"v","x":1.50,"user":"u"}'


def attempt_stream():
    return AttemptStream(LimitsSettings())


def headers(attempt, targets=TARGETS, edits=None, base=None):
    given = {contract.TARGETS: contract.encode_targets(targets), contract.ATTEMPT_COUNT: str(attempt)}
    if edits is not None:
        given[contract.EDITS] = contract.encode_edits(edits)
    if base is not None:
        given[contract.BACK_OFF] = str(base)
    return given


@pytest.fixture
def waits(monkeypatch):
    """Waits of tries, recorded instead of slept."""
    found = []

    async def sleep(seconds):
        found.append(seconds)

    monkeypatch.setattr("extproc.exchange.attempt.asyncio.sleep", sleep)
    return found


# --- changes of a try


async def test_the_first_try_needs_no_change():
    stream = attempt_stream()
    assert await stream.on_request_headers(headers(1, edits=EDITS), end=False) == CONTINUE
    assert not stream.done
    assert await stream.on_request_body(BODY) == CONTINUE
    assert stream.done
    await stream.on_end()


@pytest.mark.parametrize("attempt", [2, 3, 16])
async def test_a_try_makes_the_changes_of_its_number(attempt):
    stream = attempt_stream()
    assert await stream.on_request_headers(headers(attempt, edits=EDITS), end=False) == CONTINUE
    reply = await stream.on_request_body(BODY)
    assert isinstance(reply, Continue)
    assert json.loads(reply.body) == {"model": "vendor/model=2,x", "x": 1.5, "seed": 7}
    assert b"1.50" in reply.body
    assert stream.done


async def test_without_edits_the_body_is_unchanged():
    stream = attempt_stream()
    await stream.on_request_headers(headers(2), end=False)
    assert await stream.on_request_body(BODY) == CONTINUE


@pytest.mark.parametrize("missing", [contract.TARGETS, contract.ATTEMPT_COUNT])
async def test_without_the_headers_of_the_gateway_attachment_it_fails_closed(missing):
    given = headers(1)
    del given[missing]
    with pytest.raises(Malformed):
        await attempt_stream().on_request_headers(given, end=False)


@pytest.mark.parametrize("edits", [EDITS[:1], []])
async def test_with_too_few_edits_it_fails_closed(edits):
    with pytest.raises(IndexError):
        await attempt_stream().on_request_headers(headers(2, edits=edits), end=False)


# --- back-off before a further try at the same target


async def test_a_new_target_is_tried_at_once(waits):
    targets = [TARGETS[0], TARGETS[0], TARGETS[1]]
    for attempt in (1, 2, 3):
        await attempt_stream().on_request_headers(headers(attempt, targets, base=100), end=False)
    assert waits == [pytest.approx(0.075, abs=0.025)]  # the second


async def test_without_a_back_off_there_is_no_wait(waits):
    await attempt_stream().on_request_headers(headers(2, [TARGETS[0]] * 2), end=False)
    assert waits == []


@pytest.mark.parametrize(
    ("order", "repeats"),
    [
        ("a", [0]),
        ("aaaa", [0, 1, 2, 3]),
        ("aabb", [0, 1, 0, 1]),
        ("aba", [0, 0, 0]),
        ("aabaa", [0, 1, 0, 0, 1]),
    ],
)
def test_each_further_try_in_a_row_waits_twice_as_long(monkeypatch, order, repeats):
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    found = [back_off(list(order), index, 100) for index in range(len(order))]
    assert found == [pytest.approx(0.1 * 2 ** (count - 1) if count else 0) for count in repeats]


@given(st.integers(0, 15), st.integers(1, 5000))
def test_half_of_a_wait_is_random_and_none_exceeds_five_seconds(index, base):
    longest = min(5.0, base / 1000 * 2 ** (index - 1)) if index else 0.0
    assert longest / 2 <= back_off(["a"] * 16, index, base) <= longest


def test_retries_of_many_clients_are_spread():
    assert len({back_off(["a", "a"], 1, 100) for _ in range(20)}) > 10


# --- large bodies


async def translated(body, edit):
    stream = attempt_stream()
    given = headers(1, edits=[edit]) | {contract.DIALECT: "openai_chat"}
    await stream.on_request_headers(given, end=False)
    return await stream.on_request_body(body)


@pytest.mark.parametrize("messages", [[{"role": "user", "content": "é" * 300_000}], [{"role": "user", "content": 7}]])
async def test_a_large_body_is_translated_as_a_small_one(monkeypatch, messages):
    service = Service("anthropic", "anthropic_messages", "claude", 100)
    edit = Edit({"seed": 7}, ["user"], service)
    body = json.dumps({"model": "m", "user": "u", "messages": messages, "stop": ["x"]}).encode()
    monkeypatch.setattr("extproc.exchange.attempt.LARGE", 10)
    large = await translated(body, edit)
    monkeypatch.setattr("extproc.exchange.attempt.LARGE", 1 << 30)
    assert large == await translated(body, edit)


async def test_large_bodies_are_translated_one_after_the_other():
    room = InFlight(at_once=1000)
    service = Service("anthropic", "anthropic_messages", "claude", 100)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a" * 300_000}]}).encode()
    stream = AttemptStream(LimitsSettings(), room)
    given = headers(1, edits=[Edit({}, [], service)]) | {contract.DIALECT: "openai_chat"}
    await stream.on_request_headers(given, end=False)
    async with room.wait_turn(1000):
        waiting = asyncio.create_task(stream.on_request_body(body))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
    assert isinstance(await waiting, Continue)
