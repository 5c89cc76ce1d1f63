"""The inventory of failures of guardrails over answers: every except and every limit, and what follows.

| failure                                          | reason     | closed | open                     |
|--------------------------------------------------|------------|--------|--------------------------|
| `find` raises, or gives a span outside the text  | error      | 503    | goes on without it       |
| `hold` raises                                    | error      | 503    | goes on without it       |
| `find` takes longer than `timeout`               | timeout    | 503    | goes on without it       |
| `find` never returns                             | timeout    | 503    | 503: the answer is in use |
| no thread is free                                | overload   | 503    | 503                      |
| an event larger than `limits.sse_event`          | unreadable | 503    | passes                   |
| an answer larger than `limits.buffered_response` | unreadable | 503    | passes                   |
| a content type or encoding that cannot be read   | unreadable | 503    | passes                   |
| a bug of the gateway's own                       |            | Envoy's 500 | Envoy's 500         |

503 is `guardrail_unavailable`; behind the first bytes it is an error event. Failures over requests are in
`test_input.py`.
"""

import gzip
import json
import time

import pytest

from extproc.guardrails import Finding, GuardOutput
from extproc.guardrails import _output as output
from extproc.guardrails._guarding import GUARDING
from extproc.guardrails.regex import Regex
from tests.guardrails.streams import PROVIDER, Played, heard, stream

CLEAN = ["All is well. "] * 60
STREAM = stream("openai_chat", CLEAN)
TEXT = "".join(CLEAN)


def settings(failure, more="", action="block", limits="{}"):
    entry = f"name: g, kind: regex, longest: 20, patterns: {{k: SECRET}}, on: [output], action: {action}, {more}"
    return f"{PROVIDER}limits: {limits}\nguardrails: [{{{entry} failure: {failure}}}]"


def raising(self, text, role, where):
    if "well" in text:
        raise RuntimeError("CANARY")
    return []


def lying(self, text, role, where):
    return [Finding("k", (0, len(text) + 1))]


def slow(self, text, role, where):
    time.sleep(0.03)
    return []


def endless(self, text, role, where):
    time.sleep(0.6)
    return []


each_failure = pytest.mark.parametrize("failure", ["closed", "open"])


def expect(played, failure, reason, body=None):
    [verdict] = played.world.verdicts
    assert (verdict["action"], verdict["reason"]) == ("failed", reason)
    assert played.world.metric("extproc_guardrail_failures_total", guardrail="g", reason=reason) == 1
    if failure == "open":
        assert played.out == (STREAM if body is None else body)
        assert played.row["error"] == ""
        return
    assert b"CANARY" not in played.out
    assert played.row["error"] == "guardrail_unavailable"
    if played.out:
        assert "guardrail_unavailable" in json.dumps(heard("openai_chat", played.out)["error"])
        assert len(heard("openai_chat", played.out)["text"]) < len(TEXT)
    else:
        assert played.head.status == 503
        assert json.loads(played.head.body)["error"]["code"] == "guardrail_unavailable"


@each_failure
@pytest.mark.parametrize("find", [raising, lying])
async def test_find_fails(world, monkeypatch, failure, find):
    monkeypatch.setattr(Regex, "find", find)
    expect(await Played(world(settings(failure)), "openai_chat").answer([STREAM]), failure, "error")


@each_failure
async def test_find_fails_when_the_answer_has_begun(world, monkeypatch, failure):
    calls = []

    def later(self, text, role, where):
        calls.append(text)
        return raising(self, text, role, where) if len(calls) > 30 else []

    monkeypatch.setattr(Regex, "find", later)
    played = await Played(world(settings(failure)), "openai_chat").answer([STREAM])
    assert played.status == 200
    expect(played, failure, "error")


@each_failure
async def test_hold_fails(world, monkeypatch, failure):
    monkeypatch.setattr(Regex, "hold", lambda self, text: 1 / 0, raising=False)
    expect(await Played(world(settings(failure)), "openai_chat").answer([STREAM]), failure, "error")


@each_failure
async def test_find_is_slow(world, monkeypatch, failure):
    monkeypatch.setattr(Regex, "find", slow)
    played = await Played(world(settings(failure, "timeout: 50ms,")), "openai_chat").answer([STREAM])
    expect(played, failure, "timeout")


@each_failure
async def test_find_never_returns(world, monkeypatch, failure):
    monkeypatch.setattr(Regex, "find", endless)
    monkeypatch.setattr(output, "_GRACE", 0.01)
    body = stream("openai_chat", CLEAN * 3)
    played = await Played(world(settings(failure, "timeout: 50ms,")), "openai_chat").answer([body])
    expect(played, "closed", "timeout")


@each_failure
async def test_no_thread_is_free(world, failure):
    made = world(settings(failure))
    for stage, *_ in made.pipeline.on_response._stages[-1][0]._events._stages:
        if isinstance(stage, GuardOutput):
            stage._threads._most = 0
    played = await Played(made, "openai_chat").answer([stream("openai_chat", CLEAN * 3)])
    expect(played, "closed", "overload")


@each_failure
async def test_an_event_is_too_large(world, failure):
    big = stream("openai_chat", ["x" * 3000])
    made = world(settings(failure, limits="{sse_event: 2KiB}"))
    chunks = [big[start : start + 1000] for start in range(0, len(big), 1000)]
    expect(await Played(made, "openai_chat").answer(chunks), failure, "unreadable", big)


@each_failure
async def test_a_plain_answer_is_too_large(world, failure):
    body = json.dumps({"choices": [{"index": 0, "message": {"content": "x" * 5000}}]}).encode()
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    made = world(settings(failure, limits="{buffered_response: 4KiB}"))
    played = await Played(made, "openai_chat", body=asked).answer([body[:4500], body[4500:]], "application/json")
    expect(played, failure, "unreadable", body)


@each_failure
@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        ("audio/mpeg", {}),
        ("text/plain", {}),
        ("application/vnd.amazon.eventstream", {}),
        ("application/json", {"content-encoding": "br"}),
        ("text/event-stream", {"content-encoding": "zstd"}),
    ],
)
async def test_an_answer_cannot_be_read(world, failure, kind, headers):
    sound = b"\0sound" if "amazon" not in kind else b""
    played = await Played(world(settings(failure)), "openai_chat").answer([sound], kind, headers)
    expect(played, failure, "unreadable", sound)


@pytest.mark.parametrize("action", ["audit", "annotate"])
async def test_a_failure_of_a_guardrail_that_enforces_nothing_refuses_nothing(world, monkeypatch, action):
    monkeypatch.setattr(Regex, "find", raising)
    played = await Played(world(settings("closed", action=action)), "openai_chat").answer([STREAM])
    expect(played, "open", "error")


async def test_a_compressed_answer_is_read(world):
    body = gzip.compress(stream("openai_chat", ["a ", "SEC", "RET"]))
    played = await Played(world(settings("closed")), "openai_chat").answer([body], headers={"content-encoding": "gzip"})
    assert played.head.status == 400


async def test_a_bug_ends_the_stream(world, monkeypatch):
    made = world(settings("open"))
    played = Played(made, "openai_chat")
    await played.ask()
    kind = {":status": "200", "content-type": "text/event-stream"}
    await played.stream.on_response_headers(kind, {"upstream.request_attempt_count": 1.0}, False)
    monkeypatch.setattr(played.stream._exchange.features[GUARDING].watch, "_said", lambda tree: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await played.stream.on_response_body(STREAM, False)
    await played.stream.on_end()
    assert played.row["error"] == "internal_error"
