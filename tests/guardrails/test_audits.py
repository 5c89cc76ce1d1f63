"""Guardrails in audit mode that ask a service: nothing waits but the record, and the verdicts are those of others."""

import asyncio
import json

import pytest

from extproc.guardrails._guarding import GUARDING
from extproc.words.actions import LocalReply
from tests.guardrails.services import KINDS, PROVIDERS, real, services
from tests.guardrails.streams import Played, stream
from tests.talk import feed

WINDOWS = "window: 200, overlap: 40, longest_wait: 60s"
PIECES = ["word " * 30, "I am MAS", "KME, yes. ", *["More words. "] * 60, "MASKME", " end, MASKME"]


@pytest.fixture
def service(monkeypatch):
    with services(monkeypatch) as made:
        yield made


class Held:
    """A service that answers when `release` is set."""

    def __init__(self, service):
        self.release, self.under_way, self.most = asyncio.Event(), 0, 0
        service.answer = self

    async def __call__(self, *given):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.release.wait()
        finally:
            self.under_way -= 1
        return real(*given)


def gateway(world, kind="webhook", *, on="input", more="", limits="{}", action="audit"):
    entry = f"{{name: g, {KINDS[kind]}, on: [{on}], action: {action}, {more}}}"
    return world(f"{PROVIDERS}limits: {limits}\nguardrails: [{entry}]")


def asking(made, text):
    return Played(made, "openai_chat", body={"model": "m", "messages": [{"role": "user", "content": text}]})


async def turns(count=10):
    for _ in range(count):
        await asyncio.sleep(0)


async def passing(played, chunks):
    """Play the chunks of an answer: each with what left then."""
    await played.ask()
    head = {":status": "200", "content-type": "text/event-stream"}
    await played.stream.on_response_headers(head, {"upstream.request_attempt_count": 1.0}, False)
    for index, chunk in enumerate(chunks):
        yield chunk, (await feed(played.stream, chunk, index == len(chunks) - 1)).body
    await played.stream.on_end()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_leaves_before_the_service_answers(world, service, kind):
    held = Held(service)
    made = gateway(world, kind)
    played = asking(made, "This is BAD")
    assert not isinstance(await played.ask(), LocalReply)
    await played.stream.on_end()
    await turns()
    assert service.asked
    assert made.log == []
    held.release.set()
    await made.audits.drain()
    assert [verdict[:3] for verdict in played.verdicts] == [("g", "input", "audit")]
    assert played.row["status"] == 0
    assert made.metric("extproc_guardrail_findings_total", guardrail="g", action="audit") == 1


@pytest.mark.parametrize("dialect", ["openai_chat", "anthropic_messages", "openai_responses"])
async def test_a_stream_passes_byte_by_byte_while_the_service_is_silent(world, service, dialect):
    body = stream(dialect, PIECES, arguments=['{"a": "MAS', 'KME"}'])
    found = []
    for action in ("annotate", "audit"):
        for chunk in (len(body), 211):
            made = gateway(world, on="output", more=WINDOWS, action=action)
            held = Held(service)
            held.release.set()
            chunks = [body[at : at + chunk] for at in range(0, len(body), chunk)]
            if action == "annotate":
                found.append((await Played(made, dialect).answer(chunks)).verdicts)
                continue
            held.release.clear()
            played, given, left = Played(made, dialect), b"", b""
            async for piece, out in passing(played, chunks):
                given, left = given + piece, left + out
                assert left == given[: given.rfind(b"\n\n") + 2], "whole events"
            assert made.log == []
            held.release.set()
            await made.audits.drain()
            found.append(played.verdicts)
    assert len({json.dumps([verdict[3] for verdict in each]) for each in found}) == 1, found
    assert {each[0][2] for each in found} == {"annotate", "audit"}


async def test_questions_under_way_are_bounded(world, service):
    for more, limits, reached in (("max_calls: 2", "{}", 2), ("max_calls: 50", "{audited_text: 64KiB}", 1)):
        held = Held(service)
        made = gateway(world, more=more, limits=limits)
        played = [asking(made, "BAD " * 10_000) for _ in range(5)]
        for each in played:
            assert not isinstance(await each.ask(), LocalReply)
            await each.stream.on_end()
        await turns()
        assert held.most == reached
        held.release.set()
        await made.audits.drain()
        failed = [verdict for verdict in played[0].verdicts if verdict[2] == "failed"]
        assert failed == [("g", "input", "failed", {})] * (5 - reached)
        assert made.metric("extproc_guardrail_failures_total", guardrail="g", reason="overload") == 5 - reached
        assert made.metric("extproc_guardrail_findings_total", guardrail="g", action="audit") == reached
        assert len([line for line in made.log if line["event"] == "exchange"]) == 5
        later = asking(made, "BAD")
        assert not isinstance(await later.ask(), LocalReply)
        await later.end()
        assert made.metric("extproc_guardrail_findings_total", guardrail="g", action="audit") == reached + 1


async def test_a_failure_ends_the_questions_about_an_answer(world, service):
    service.answer = lambda *_: (500, {})
    made = gateway(world, on="output", more=WINDOWS)
    body = stream("openai_chat", PIECES * 20)
    played = Played(made, "openai_chat")
    async for _ in passing(played, [body[at : at + 300] for at in range(0, len(body), 300)]):
        await turns()
    await made.audits.drain()
    assert played.verdicts == [("g", "output", "failed", {})]
    outcomes = [
        made.metric("extproc_guardrail_call_seconds_count", guardrail="g", kind="webhook", outcome=outcome) or 0
        for outcome in ("status", "unavailable")
    ]
    assert 1 <= sum(outcomes) < 20, "of a hundred windows"
    assert made.metric("extproc_guardrail_failures_total", guardrail="g", reason="status") == 1


async def test_a_client_that_leaves_does_not_end_the_question(world, service):
    held = Held(service)
    made = gateway(world)
    played = asking(made, "BAD")
    await played.ask()
    await played.stream.on_end()
    await turns()
    held.release.set()
    await made.audits.drain()
    assert [verdict[2] for verdict in played.verdicts] == ["audit"]


async def test_a_stop_waits_and_what_is_late_then_is_a_timeout(world, service):
    Held(service)
    made = gateway(world)
    played = asking(made, "BAD")
    await played.ask()
    await played.stream.on_end()
    await made.audits.drain(0.01)
    assert [(each["action"], each["reason"]) for each in made.verdicts] == [("failed", "timeout")]
    assert played.row


async def test_a_record_that_fails_is_told(world, service, monkeypatch):
    held, bugs = Held(service), []
    made = gateway(world)
    made.audits._bug = bugs.append
    played = asking(made, "BAD")
    await played.ask()
    await played.stream.on_end()
    monkeypatch.setattr(made.telemetry, "guardrail", lambda _verdict: 1 / 0)
    for review in played.stream._exchange.features[GUARDING].audits:
        review.tell = made.telemetry.guardrail
    held.release.set()
    await made.audits.drain()
    assert bugs == ["Audits"]


async def test_a_blocking_guardrail_beside_it_still_decides(world, service):
    entries = [f"{{name: {name}, {KINDS['webhook']}, action: {name}}}" for name in ("audit", "block")]
    made = world(f"{PROVIDERS}guardrails: [{', '.join(entries)}]")
    played = asking(made, "This is BAD")
    sent = await played.ask()
    await played.end()
    assert sent.status == 400
    assert {verdict[2] for verdict in played.verdicts} == {"audit", "block"}
