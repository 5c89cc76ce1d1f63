"""Conversations that end early, and those in attach mode."""

import asyncio
import gc
import json

import pytest

from extproc.stores.memory import MemoryCounters
from tests.talk import DONE, QUESTION, STOP, STREAMED, TEXT, TOKENS, USED, answers, asks, sends, streams, talk

# --- endings


CONVERSATION = [
    asks(),
    sends(STREAMED),
    answers(kind="text/event-stream"),
    streams(TEXT),
    streams(STOP),
    streams(USED + DONE, end=True),
]


@pytest.mark.parametrize("said", range(len(CONVERSATION) + 1))
async def test_a_client_may_disconnect_at_any_point(world, said):
    gateway = world(TOKENS)
    stream = gateway.stream()
    await talk_until(stream, said)
    await stream.on_end()
    await stream.on_end()  # settling twice has the effect of once
    settled, reserved = await gateway.level("t")
    assert reserved == 0
    assert set(gateway.leases) == set()
    assert gateway.telemetry.in_flight == 0
    assert len(gateway.log) == (1 if said else 0)
    assert (settled > 0) == (said >= 2)  # a request that may have reached a provider is charged
    if 2 <= said < len(CONVERSATION):
        assert gateway.log[0]["error"] == ("incomplete" if said > 2 else "client_left")
        assert not gateway.log[0]["complete"]


@pytest.mark.parametrize("said", range(1, len(CONVERSATION) + 1))
async def test_an_exchange_leaves_no_cycles_to_collect(world, said):
    gateway = world(TOKENS)
    await talk_until(stream := gateway.stream(), said)
    await stream.on_end()
    del stream
    gc.collect()
    gc.freeze()  # the second look is at what this exchange has made alone
    gc.disable()
    try:
        await talk_until(stream := gateway.stream(), said)
        await stream.on_end()
        del stream
        assert gc.collect() == 0
    finally:
        gc.enable()


async def talk_until(stream, said):
    for say in CONVERSATION[:said]:
        await say(stream)


async def test_a_client_that_disconnects_before_any_answer_is_charged_its_reservation(world):
    gateway = world(TOKENS)
    body = QUESTION | {"max_tokens": 50}
    await talk(gateway.stream(), asks(), sends(body))
    assert await gateway.level("t") == (len(json.dumps(body)) + 50, 0)


class CountingStore(MemoryCounters):
    def __init__(self):
        super().__init__()
        self.settled = 0

    async def settle(self, id, amounts, *, keep=False):
        self.settled += 1
        await asyncio.sleep(0)
        return await super().settle(id, amounts, keep=keep)


@pytest.mark.parametrize("said", range(2, len(CONVERSATION) + 1))
async def test_an_exchange_is_settled_once(world, said):
    store = CountingStore()
    gateway = world(TOKENS, store)
    stream = gateway.stream()
    await talk_until(stream, said)
    await stream.on_end()
    await stream.on_end()
    assert store.settled == 1


async def test_a_handler_cancelled_while_it_settles_still_settles(world):
    store = CountingStore()
    gateway = world(TOKENS, store)
    stream = gateway.stream()
    await talk_until(stream, len(CONVERSATION) - 1)
    last = asyncio.create_task(CONVERSATION[-1](stream))
    while not store.settled:
        await asyncio.sleep(0)
    last.cancel()
    with pytest.raises(asyncio.CancelledError):
        await last
    await stream.on_end()
    await asyncio.sleep(0.01)
    assert await gateway.level("t") == (10, 0)
    assert len(gateway.log) == 1


async def test_a_forwarded_request_is_charged_even_if_this_process_dies(world):
    gateway = world(TOKENS)
    stream = gateway.stream()
    await talk_until(stream, 2)
    await gateway.leases.turn()
    gateway.clock.now += 61  # the lease is not renewed
    [expired] = await gateway.counters.expire()
    assert expired.forwarded
    assert expired.amounts[0] > 0


async def test_an_exchange_keeps_the_settings_it_began_with(world):
    before, after = world(), world("models: {other: {provider: a}}")
    stream = before.stream()
    await asks()(stream)
    onward = await sends(QUESTION)(stream)
    assert onward.order == ("try-a",)
    _, answer = await talk(after.stream(), asks(), sends(QUESTION))
    assert answer.status == 404
    await stream.on_end()


# --- attach mode


async def test_attach_mode_names_the_provider_and_gives_no_order(world):
    gateway = world()
    _, onward, told = await talk(gateway.stream(attached=True), asks(), sends(QUESTION), answers())
    assert onward.set_headers == {"x-extproc-provider": "a"}
    assert onward.order == ()
    assert onward.reroute
    assert told.set_headers["x-ai-provider"] == "a"


@pytest.mark.parametrize(("attached", "seconds"), [(True, 30), (False, 0)])
async def test_in_attach_mode_the_answer_reports_a_pause_because_there_is_no_log_of_tries(world, attached, seconds):
    gateway = world()
    await talk(gateway.stream(attached=attached), asks(), sends(QUESTION), answers(429, retry_after="30"))
    assert gateway.pipeline.services.history.cooling("a/m") == pytest.approx(seconds)


async def test_attach_mode_removes_the_clients_key_and_labels(world, monkeypatch):
    monkeypatch.setenv("ALICE", "sk-alice")
    gateway = world("consumers: [{name: alice, keys: [{env: ALICE}]}]")
    _, onward = await talk(
        gateway.stream(attached=True), asks(x_api_key="sk-alice", x_ai_agent="planner"), sends(QUESTION)
    )
    assert set(onward.remove_headers) == {"x-api-key", "x-ai-agent"}


async def test_in_attach_mode_a_provider_cannot_forge_the_headers_of_the_hop(world):
    gateway = world(TOKENS)
    *_, told = await talk(gateway.stream(attached=True), asks(), sends(QUESTION), answers(x_extproc_hop="mine"))
    assert told.remove_headers == ("x-extproc-hop",)
    assert told.set_headers.get("x-ai-provider") == "a"
    assert told.read_answer
