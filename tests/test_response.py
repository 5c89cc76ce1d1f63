"""The stages of an answer's events: only the needed ones, in order, timed, and their possible effects on events."""

import asyncio
import json

import pytest

from extproc.exchange.response import Annotate, Count, Extend, HideUsage
from extproc.wire.framing.events import Events
from extproc.wire.framing.json import WholeBody
from extproc.wire.framing.sse import SSE
from extproc.words.dialect import Report
from extproc.words.errors import RATE_LIMITED, Refusal
from extproc.words.exchange import Price, Reservation, ResponseHead, Target
from tests.exchanges import write
from tests.test_gateway import DONE, QUESTION, STOP, STREAMED, TEXT, USED, answers, asks, sends, streams, talk

SECRET = TEXT.replace(b"Hi", b"sk-1")


class Mask:
    """A stage like a future guardrail on answers: it edits an event, and drops one."""

    changes_length = True

    def needed(self, exchange, framing):
        return isinstance(framing, SSE)

    def __call__(self, exchange, events, end):
        for event in events:
            event.raw = event.raw.replace(b"sk-1", b"[key]")
        return [event for event in events if event.raw != DONE]


class Block(Mask):
    async def __call__(self, exchange, events, end):
        await asyncio.sleep(0)
        if any(b"sk-1" in event.raw for event in events):
            raise Refusal(RATE_LIMITED, "no")
        return events


class Times(dict):
    """Seconds by stage."""

    def observer(self, name):
        return self.setdefault(name, []).append


@pytest.fixture
def answered(exchange):
    """An exchange whose answer has begun."""

    def make(target=None, **fields):
        found = exchange()
        found.answer.report, found.answer.head = Report(), ResponseHead(200, {})
        found.answer.target = target or found.route.targets[0]
        found.money.reservation = Reservation(found.id, 10, 10)
        write(found, **fields)
        return found

    return make


async def read(reader, *chunks):
    out = []
    for index, chunk in enumerate(chunks):
        await reader.feed(chunk, index == len(chunks) - 1, out)
    return out


def names(reader):
    return [type(stage).__name__ for stage, *_ in reader._needed.stages]


async def test_a_stage_may_edit_and_drop_events(answered):
    times = Times()
    sent = answered()
    reader = Events([Count(), Mask()], times.observer).reader(sent, SSE())
    assert reader.changes_length
    assert await read(reader, TEXT + SECRET, DONE, b"") == [TEXT, SECRET.replace(b"sk-1", b"[key]")]
    assert sent.answer.report.output_bytes == len("Hi" + "sk-1"), "counted as it came"


async def test_the_time_of_a_stage_is_reported_once_per_answer(answered):
    times = Times()
    await read(Events([Count(), Block()], times.observer).reader(answered(), SSE()), TEXT, TEXT, TEXT, DONE)
    assert {name: len(seconds) for name, seconds in times.items()} == {"Count": 1, "Block": 1}
    assert all(seconds[0] > 0 for seconds in times.values())


async def test_a_stage_that_refuses_ends_the_answer_after_the_earlier_events(answered):
    out = []
    reader = Events([Count(), Block()], Times().observer).reader(answered(), SSE())
    await reader.feed(TEXT, False, out)
    with pytest.raises(Refusal):
        await reader.feed(SECRET, False, out)
    assert out == [TEXT, SECRET]


def grows(**more):
    reservation = Reservation("id-1", 10, 10)
    reservation.held, reservation.enough = True, 100.0
    return {"reservation": reservation} | more


PRICED = Target("m", "a", "m", price=Price(1, 1, 1, 1, 1))


@pytest.mark.parametrize(
    ("fields", "framing", "needed"),
    [
        ({}, SSE(), []),
        ({"usage_hidden": True}, SSE(), ["HideUsage"]),
        ({"usage_hidden": True}, WholeBody(), []),
        ({"target": PRICED}, WholeBody(), ["Annotate"]),
        (grows(), SSE(), ["Extend"]),
        (grows(), WholeBody(), []),
        (grows(usage_hidden=True, target=PRICED), SSE(), ["HideUsage", "Annotate", "Extend"]),
    ],
)
def test_an_answer_has_only_the_stages_it_needs(answered, fields, framing, needed):
    events = Events([Count(), HideUsage(), Annotate(), Extend(None)], Times().observer)
    assert names(events.reader(answered(**fields), framing)) == ["Count", *needed]


async def test_the_stages_of_an_answer_are_timed_like_those_of_the_request(world):
    gateway = world()
    kind = {"kind": "text/event-stream"}
    chunks = [streams(chunk) for chunk in (TEXT, STOP, USED)]
    await talk(gateway.stream(), asks(), sends(STREAMED), answers(**kind), *chunks, streams(DONE, end=True))
    for stage in ("Parse", "Admit", "Origin", "Tell", "RejectedCredential", "CoolDown", "BadAnswer", "Read", "Settle"):
        assert gateway.metric("extproc_stage_seconds_count", stage=stage) == 1, stage
    assert gateway.metric("extproc_stage_seconds_count", stage="Count") == 1
    assert gateway.metric("extproc_stage_seconds_count", stage="HideUsage") == 1
    assert gateway.metric("extproc_stage_seconds_count", stage="Extend") == 0


@pytest.mark.parametrize(("until", "settled"), [(1, False), (2, True), (3, True)])
async def test_a_bug_has_its_own_ending(world, monkeypatch, until, settled):
    """Envoy answers 500, or cuts the answer. A request that may have reached a provider is charged."""
    gateway = world("budgets: [{name: t, unit: tokens, limit: 100000, window: minute}]")
    says = [asks(), sends(QUESTION), answers(), streams(json.dumps({}).encode(), end=True)]
    where = ["extproc.exchange.parsing.Parse", "extproc.exchange.response.Tell", "extproc.exchange.response.Count"][
        until - 1
    ]
    stream = gateway.stream()
    monkeypatch.setattr(f"{where}.__call__", lambda *_: 1 / 0)
    for say in says[:until]:
        await say(stream)
    with pytest.raises(ZeroDivisionError):
        await says[until](stream)
    await stream.on_end()
    [entry] = gateway.log
    assert (entry["error"], entry["outcome"]) == ("internal_error", "error")
    level = await gateway.level("t")
    assert (level[0] > 0, level[1]) == (settled, 0)
