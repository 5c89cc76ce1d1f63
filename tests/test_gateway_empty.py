"""Streams that carry nothing, at both attachments."""

import itertools
import json

import pytest
from msgspec import UNSET

from extproc.dialects import client_apis
from extproc.guardrails._watch import Watch
from extproc.settings.limits import LimitsSettings
from extproc.wire.framing import Frame
from extproc.wire.framing.sse import carries_nothing
from extproc.words import contract
from tests.talk import DONE, STOP, STREAMED, TEXT, TOKENS, USED, answers, asks, feed, sends, streams, talk
from tests.test_attempt_answers import CHUNK, OPENAI, Talk
from tests.test_gateway_cut import CLIENTS, PROVIDERS

SSE = "text/event-stream"
LIMIT = "limits: {stream_empty: 64KiB}\n"
PINGS = b": ping\n\n" * 8_000


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_stream_that_carries_nothing_for_long_ends_with_an_error_event(world, client):
    kind, path, body, text, told = CLIENTS[client]
    gateway = world(LIMIT + PROVIDERS % kind + TOKENS)
    said = asks(path), sends(body), answers(kind=SSE)
    *_, first, last = await talk(gateway.stream(), *said, streams(text), streams(PINGS * 2))
    assert first.body == text
    assert last.end
    code, message = told(json.loads(last.body.split(b"data: ")[1].split(b"\n")[0]))
    assert code in ("provider_bad_answer", "api_error")
    assert "KiB in a row without content" in message
    assert [entry["error"] for entry in gateway.log if entry["event"] == "exchange"] == ["provider_bad_answer"]


async def test_a_stream_with_some_content_goes_on(world):
    gateway = world(LIMIT + TOKENS)
    body = b"".join(PINGS + event for event in (TEXT, TEXT, STOP, USED, DONE))
    said = asks(), sends(STREAMED | {"stream_options": {"include_usage": True}}), answers(kind=SSE)
    *_, last = await talk(gateway.stream(), *said, streams(body, end=True))
    assert (last.body, last.end) == (body, True)


async def test_events_without_content_are_no_items_of_a_json_array(world):
    gateway = world(PROVIDERS % "gcp_gemini" + TOKENS)
    _, _, body, text, _ = CLIENTS["gemini"]
    path = "/v1beta/models/m:streamGenerateContent"
    said = asks(path), sends(body), answers(kind=SSE)
    empty = b": ping\n\ndata: {}\n\n\n\ndata: \r\n\r\nid: 7\n\n"
    *_, last = await talk(gateway.stream(), *said, streams(empty + text + empty * 99 + text + empty, end=True))
    assert len(json.loads(last.body)) == 2


async def test_usage_beside_a_translated_answer_is_read_among_other_comments(world):
    gateway = world(TOKENS)
    headers = {contract.TRANSLATED.replace("-", "_"): "1"}
    told = contract.USAGE_EVENT + b"[%d, 4, 0, 0, 0]\n\n"
    body = TEXT + b": ping\n\n" + told % 3 + b": ping\n\n" + told % 5 + b": ping\n\n" + STOP + DONE
    stream = gateway.stream()
    *_, last = await talk(stream, asks(), sends(STREAMED), answers(kind=SSE, **headers), streams(body, end=True))
    assert last.body == TEXT + b": ping\n\n" * 3 + STOP + DONE
    [entry] = gateway.log
    assert (entry["input_tokens"], entry["output_tokens"], entry["usage_source"]) == (5, 4, "provider")


async def test_a_translated_stream_that_carries_nothing_ends_with_an_error():
    found = Talk(OPENAI, "anthropic_messages", stream=True, limits=LimitsSettings(stream_empty=64 << 10))
    await found.ask()
    await found.answer(CHUNK, PINGS, PINGS, PINGS, kind=SSE, end=False)
    assert found.ended
    assert found.attachment.done
    assert b"KiB in a row without content" in found.body
    assert found.body.count(b"event: error") == 1


@pytest.mark.parametrize("event", [b'data: {"choices":[]}\n\n', b'event: ping\rdata: {"type": "ping"}\r\r'])
async def test_known_events_that_carry_nothing_come_together_and_what_follows_is_read(world, event):
    gateway = world(TOKENS)
    body = TEXT + event * 5_000 + TEXT + event * 100 + STOP + USED + DONE
    asked = STREAMED | {"stream_options": {"include_usage": True}}
    *_, last = await talk(gateway.stream(), asks(), sends(asked), answers(kind=SSE), streams(body, end=True))
    assert last.body == body
    assert [entry["usage_source"] for entry in gateway.log if entry["event"] == "exchange"] == ["provider"]


GUARD = "guardrails: [{name: keys, kind: regex, on: [output], patterns: {key: 'sk-[a-z]{4}-9'}}]\n"


@pytest.mark.parametrize("event", [b'data: {"choices":[]}\n\n', b'data: {"x":0}\n\n', b'data: [{"x":{}}]\n\n'])
async def test_guardrails_do_not_read_again_what_carries_nothing(world, event, monkeypatch):
    gateway, read = world(GUARD + TOKENS), []
    take = Watch.take
    monkeypatch.setattr(Watch, "take", lambda self, events, end: read.extend(events) or take(self, events, end))
    body = TEXT + event * 5_000 + TEXT + STOP + USED + DONE
    asked = STREAMED | {"stream_options": {"include_usage": True}}
    *_, last = await talk(gateway.stream(), asks(), sends(asked), answers(kind=SSE), streams(body, end=True))
    assert last.body == body
    assert len(read) < 2_000


def test_text_in_any_field_is_something_for_guardrails():
    for text in (b'{"x":"word"}', b'{"x":[{"y":"word"}]}', b'["word"]'):
        assert not carries_nothing(Frame(text, text), {"choices"}, guarded=True)
    for text in (b'{"type":"ping"}', b'{"x":0}', b'[{"x":[]}]', b'{"choices":[]}'):
        assert carries_nothing(Frame(text, text), {"choices"}, guarded=True)


async def test_known_events_that_carry_nothing_end_a_stream_like_comments(world):
    gateway = world(LIMIT + TOKENS)
    event = b'data: {"choices":[]}\n\n'
    said = asks(), sends(STREAMED), answers(kind=SSE)
    *_, last = await talk(gateway.stream(), *said, streams(event * 10_000))
    assert last.end
    assert b"KiB in a row without content" in last.body


@pytest.mark.parametrize(("spent", "most"), [(0.0001, 64), (0.001, 8)])
async def test_events_that_cost_much_leave_others_more_turns(world, monkeypatch, spent, most):
    """At most half a millisecond a turn, down to eight events."""
    monkeypatch.setattr("time.thread_time", itertools.count(0.0, spent).__next__)
    gateway = world(TOKENS)
    stream = gateway.stream()
    for say in (asks(), sends(STREAMED), answers(kind=SSE)):
        await say(stream)
    body = b"".join([TEXT.replace(b"{", b'{"created":%d,' % number, 1) for number in range(400)])
    found = [await stream.on_response_body(body, True)]
    while stream.more:
        found.append(await stream.on_response_body(b"", False))
    sizes = [each.body.count(b'"created"') for each in found if each.body]
    assert sum(sizes) == 400
    assert max(sizes[4:]) == most


async def test_a_piece_of_many_events_is_worked_on_in_steps(world):
    gateway = world(TOKENS)
    stream = gateway.stream()
    for say in (asks(), sends(STREAMED), answers(kind=SSE)):
        await say(stream)
    first = await stream.on_response_body(TEXT * 200, True)
    assert stream.more
    assert not first.end
    assert not stream.done
    assert first.body.count(TEXT) <= 64
    assert (TEXT * 64).startswith(first.body)
    last = await feed(stream, b"")
    assert (first.body + last.body, last.end) == (TEXT * 200, True)
    await stream.on_end()


async def test_stages_share_the_json_of_an_event(world, monkeypatch):
    """Reading usage needs no parse of its own where guardrails read the answer."""
    api, given = client_apis()["openai_chat"], []
    observe = api.observe
    monkeypatch.setattr(api, "observe", lambda data, report, tree: given.append(tree) or observe(data, report, tree))
    for settings in (GUARD, ""):
        gateway = world(settings + TOKENS)
        await talk(gateway.stream(), asks(), sends(STREAMED), answers(kind=SSE), streams(TEXT + STOP + DONE, end=True))
    guarded, alone = given[:3], given[3:]
    assert [tree["choices"][0]["index"] for tree in guarded[:2]] == [0, 0]
    assert [guarded[2], *alone] == [UNSET] * 4


GUARDED = (
    TOKENS + "\nguardrails: [{name: names, kind: regex, on: [output], action: %s, patterns: {name: 'Rumpel[a-z]+'}}]\n"
)
LETTER = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'


def letters(text):
    return b"".join([LETTER % text[at : at + 1].encode() for at in range(len(text))])


async def test_rows_of_letters_are_guarded_counted_and_leave_as_they_came(world):
    gateway = world(GUARDED % "mask")
    body = letters("a " * 2_000) + LETTER % b"" * 500 + letters("b") + STOP + DONE
    *_, last = await talk(gateway.stream(), asks(), sends(STREAMED), answers(kind=SSE), streams(body, end=True))
    assert last.body == body
    [entry] = gateway.log
    assert entry["output_tokens"] == 4_001, "a token for each event with text at least: the provider told no usage"


@pytest.mark.parametrize("action", ["mask", "block"])
async def test_a_name_in_a_row_of_letters_is_masked_or_ends_the_answer(world, action):
    gateway = world(GUARDED % action)
    body = streams(letters("a " * 1_000 + "Rumpelstilz " + "b " * 1_000) + STOP + DONE, end=True)
    *_, last = await talk(gateway.stream(), asks(), sends(STREAMED), answers(kind=SSE), body)
    lines = [json.loads(line[6:]) for line in last.body.split(b"\n") if line.startswith(b"data: {")]
    said = "".join(each["choices"][0]["delta"].get("content", "") for each in lines if each.get("choices"))
    if action == "mask":
        assert said == "a " * 1_000 + "[NAME] " + "b " * 1_000
    else:
        assert said in "a " * 1_000
        assert [each["error"]["code"] for each in lines if "error" in each] == ["guardrail_blocked"]


async def test_a_translation_tells_how_many_events_it_has_joined():
    found = Talk(OPENAI, "anthropic_messages", stream=True)
    await found.ask()
    await found.answer(letters("a" * 5_000), STOP + DONE, kind=SSE)
    joined = sum(int(line.split()[-1]) for line in found.body.split(b"\n") if line.startswith(contract.EVENTS_EVENT))
    assert found.body.count(b"event: content_block_delta") + joined == 5_000
    assert joined > 4_000
