"""Which answers pass unread, as conversations with the gateway attachment."""

import asyncio
import json

import pytest

from extproc.words import contract
from extproc.words.tries import Seen, Try, UnderWay
from tests.talk import QUESTION, answers, asks, sends
from tests.unread.streams import stream
from tests.unread.watch import watched

ASKED = {**QUESTION, "stream": True, "stream_options": {"include_usage": True}}
LIMITED = {**ASKED, "max_tokens": 4096}
MODE = "usage: {mode: log%s}"
BODY = stream("openai_chat", 5)


async def onward(world, text, body=ASKED, path="/v1/chat/completions"):
    """The gateway, the stream of a request, and what Envoy is told of it."""
    gateway = world(text)
    attachment = gateway.stream()
    await asks(path)(attachment)
    return gateway, attachment, await sends(body)(attachment)


def budget(**fields):
    entry = {"name": "t", "unit": "tokens", "limit": 100_000, "window": "hour", **fields}
    return f"budgets: [{json.dumps(entry)}]\n"


PRICED = "models: {m: {provider: a, price: {input: 1, output: 2}}}\n"


@pytest.mark.parametrize(
    ("text", "body", "follows"),
    [
        (MODE % "", ASKED, True),
        ("", ASKED, False),
        (MODE % "", {**ASKED, "stream": False}, False),
        ("limits: {stream_idle: 599s}\n" + MODE % "", ASKED, False),  # the provider's timeout is 600 s
        (MODE % "", {**QUESTION, "stream": True}, False),
        (MODE % ", cost_in_response: true", ASKED, True),  # the price is unknown
        (PRICED + MODE % ", cost_in_response: true", ASKED, False),
        (PRICED + MODE % "", ASKED, True),
        (budget(unit="requests") + MODE % "", ASKED, True),
        (budget(unit="input_tokens") + MODE % "", ASKED, True),
        (budget(mode="shadow") + MODE % "", ASKED, True),
        (budget() + MODE % "", ASKED, False),
        (budget() + MODE % "", LIMITED, False),
        (budget() + MODE % ", trust_output_limits: true", LIMITED, True),
        (budget() + MODE % ", trust_output_limits: true", ASKED, False),  # the usual output is held, and topped up
        (budget(reserve="worst") + MODE % ", trust_output_limits: true", ASKED, True),
    ],
)
async def test_envoy_is_asked_to_follow(world, text, body, follows):
    _, _, action = await onward(world, text, body)
    assert (contract.WATCH in action.set_headers) is follows


async def pass_by(world, text=MODE % "", headers=None):
    """A gateway whose latest answer passes unread."""
    gateway, attachment, action = await onward(world, text, LIMITED)
    await answers(kind="text/event-stream", **({contract.WATCHED: "1"} if headers is None else headers))(attachment)
    return gateway, attachment, action.set_headers[contract.ID]


async def test_an_answer_that_envoy_follows_is_not_asked_for(world):
    gateway, attachment, id = await pass_by(world)
    assert attachment.done
    await attachment.on_end()
    assert (gateway.telemetry.in_flight, gateway.log) == (1, [])
    gateway.pipeline.services.waiting.tell(UnderWay(id, 1))
    gateway.pipeline.services.waiting.tell(
        Try(id, "a", "m", 1, 200, "ok", 1.0, 0.1, "", answer_bytes=len(BODY), seen=watched([BODY]))
    )
    await asyncio.sleep(0.01)
    [entry] = gateway.log
    assert (entry["input_tokens"], entry["output_tokens"], entry["usage_source"]) == (300, 77, "provider")
    assert (gateway.telemetry.in_flight, entry["unread"]) == (0, True)


async def test_an_answer_that_envoy_does_not_follow_is_read(world):
    _, attachment, _ = await pass_by(world, headers={})
    assert not attachment.done


async def test_a_translated_answer_is_read(world):
    _, attachment, _ = await pass_by(world, headers={contract.WATCHED: "1", contract.TRANSLATED: "1"})
    assert not attachment.done


async def test_an_answer_in_body_mode_is_read_whatever_its_headers_say(world):
    _, attachment, _ = await onward(world, "")
    await answers(kind="text/event-stream", **{contract.WATCHED: "1"})(attachment)
    assert not attachment.done


async def test_the_lease_lasts_until_the_log_tells(world):
    gateway, attachment, id = await pass_by(world, budget() + MODE % ", trust_output_limits: true")
    await attachment.on_end()
    assert set(gateway.leases) == {id}
    gateway.pipeline.services.waiting.tell(
        Try(id, "a", "m", 1, 200, "client_left", 1.0, 0.1, "", answer_bytes=9000, seen=Seen())
    )
    async with asyncio.timeout(10):
        while set(gateway.leases):  # its text is counted on a thread
            await asyncio.sleep(0.01)
    settled, reserved = await gateway.level("t", 3600)
    [entry] = gateway.log
    assert (reserved, settled) == (0, entry["input_tokens"] + entry["output_tokens"])
    assert (entry["usage_source"], entry["output_tokens"], entry["error"]) == ("estimated", 4096, "incomplete")


async def test_an_exchange_that_ends_otherwise_is_not_waited_for(world):
    gateway, attachment, action = await onward(world, MODE % "")
    await attachment.on_end()  # the client left
    waiting = gateway.pipeline.services.waiting
    waiting.tell(Try(action.set_headers[contract.ID], "a", "m", 1, 200, "client_left", 1.0, 0.1, "", seen=Seen()))
    assert waiting._slots == {}
    assert len(gateway.log) == 1
