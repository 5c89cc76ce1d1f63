"""Conversations that cost money."""

import json
from functools import reduce

import pytest

from extproc.words import contract
from extproc.words.actions import Chunk
from tests.talk import (
    ANSWER,
    DONE,
    QUESTION,
    STOP,
    STREAMED,
    TEXT,
    USAGE,
    USED,
    answers,
    asks,
    error,
    event,
    sends,
    streams,
    talk,
)

PRICED = """
models: {m: {provider: a, price: {input: 1, output: 2, cached_input: 0.5}}, n: {provider: b}}
virtual_models: {v: {targets: [{model: n}, {model: m}]}}
"""
MONEY = PRICED + "budgets: [{name: usd, unit: usd, limit: 1, window: month, alert_at: [0.00001]}]\n"
TOLD = PRICED + "usage: {cost_in_response: true}\n"
COST = 0.000013  # of USAGE


async def test_money_is_settled_logged_and_counted(world):
    gateway = world(MONEY)
    await talk(gateway.stream(), asks(), sends(QUESTION), answers(), streams(ANSWER, end=True))
    assert await gateway.level("usd", -1) == (13_000, 0)
    [entry] = gateway.log
    assert entry["cost_usd"] == COST
    spent = gateway.metric("extproc_cost_usd_total", provider="a", model="m")
    assert spent == pytest.approx(COST)
    *_, told, _ = await talk(gateway.stream(), asks(), sends(QUESTION), answers(), streams(ANSWER, end=True))
    assert told.set_headers["x-ai-budget"] == "usd; used=0.00"
    assert gateway.metric("extproc_budget_used_ratio", budget="usd") == pytest.approx(COST)


async def test_cached_tokens_have_their_own_price(world):
    gateway = world(MONEY)
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 4}}
    await talk(gateway.stream(), asks(), sends(QUESTION), answers(), streams(ANSWER | {"usage": usage}, end=True))
    assert await gateway.level("usd", -1) == (11_000, 0)


async def test_an_exhausted_usd_budget_is_a_402(world):
    gateway = world(MONEY.replace("limit: 1", "limit: 0.001"))
    _, refused = await talk(gateway.stream(), asks(), sends(QUESTION))
    assert error(refused) == (402, "budget_exceeded", "gateway")
    assert "0.001 USD per month" in json.loads(refused.body)["error"]["message"]
    assert gateway.log[0]["status"] == 402


async def test_the_cost_is_written_into_a_plain_answer(world):
    body = b'{ "id" : 1.50, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3} , "z":[ ] }'
    *_, told, first, last = await talk(
        world(TOLD).stream(),
        asks(),
        sends(QUESTION),
        answers(content_length="99"),
        streams(body[:9]),
        streams(body[9:], end=True),
    )
    assert "content-length" in told.remove_headers
    assert "x-ai-cost" not in told.set_headers
    assert first == Chunk(b"")
    usage = b'{"prompt_tokens":7,"completion_tokens":3,"cost":0.000013}'
    assert last == Chunk(b'{"id":1.50,"choices":[],"usage":' + usage + b',"z":[ ]}', end=True)


async def test_a_stream_leaves_without_the_providers_content_length(world):
    """An event less, or an error at its end, and the next answer on the connection would begin in this one."""
    said = answers(kind="text/event-stream", content_length="999")
    *_, told = await talk(world().stream(), asks(), sends(STREAMED), said)
    assert "content-length" in told.remove_headers
    *_, told = await talk(world().stream(), asks(), sends(QUESTION), answers(content_length="99"))
    assert "content-length" not in told.remove_headers


async def test_the_cost_is_written_into_the_usage_event_only(world):
    body = STREAMED | {"stream_options": {"include_usage": True}}
    *_, last = await talk(
        world(TOLD).stream(),
        asks(),
        sends(body),
        answers(kind="text/event-stream"),
        streams(TEXT + STOP + USED + DONE, end=True),
    )
    before, after = last.body.removeprefix(TEXT + STOP), last.body.removesuffix(DONE)
    assert after == TEXT + STOP + before.removesuffix(DONE)
    assert json.loads(before.removesuffix(DONE)[6:])["usage"] == USAGE | {"cost": COST}


_BEGUN = {"id": "m", "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}
_DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}
_MESSAGE = [{"type": "message_start", "message": _BEGUN}, _DELTA], [("message", "usage"), ("usage",)]
_COUNTED = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}
_SAID = {"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}], "usageMetadata": _COUNTED}
_DONE = {"id": "r", "output": [], "usage": {"input_tokens": 7, "output_tokens": 3}}
_RESPONSE = [{"type": "response.completed", "response": _DONE}], [("response", "usage")]
_GEMINI = "/v1beta/models/m:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "Hello"}]}]}


@pytest.mark.parametrize(
    ("kind", "asked", "said"),
    [
        ("openai", ("/v1/responses", {"model": "m", "input": "Hello", "stream": True}), _RESPONSE),
        ("anthropic", ("/v1/messages", STREAMED | {"max_tokens": 9}), _MESSAGE),
        ("gcp_gemini", _GEMINI, ([_SAID], [("usageMetadata",)])),
    ],
    ids=["responses", "messages", "gemini"],
)
async def test_the_cost_is_written_where_an_api_has_its_usage(world, kind, asked, said):
    (path, body), (said, costs) = asked, said
    providers = f"providers: {{a: {{kind: {kind}, api_key: env:PATH}}, b: {{kind: mock}}}}\n"
    *_, last = await talk(
        world(TOLD + providers).stream(),
        *(asks(path), sends(body)),
        answers(kind="text/event-stream"),
        streams(b"".join(map(event, said)), end=True),
    )
    events = [json.loads(line[6:]) for line in last.body.splitlines() if line.startswith(b"data: ")]
    found = [reduce(dict.__getitem__, place, one).pop("cost") for one, place in zip(events, costs, strict=True)]
    assert found[-1] == COST
    assert events == said


@pytest.mark.parametrize("settings", [PRICED, TOLD], ids=["not asked for", "asked for"])
@pytest.mark.parametrize(("read", "source"), [(7, "disputed"), (0, "estimated")])
async def test_a_cost_beyond_belief_is_judged_the_same_whether_or_not_clients_get_it(world, settings, read, source):
    gateway = world(settings + "providers: {a: {kind: openrouter, api_key: env:PATH}, b: {kind: mock}}\n")
    told = ANSWER | {"usage": USAGE | {"prompt_tokens": read, "cost": 5000}}
    *_, last = await talk(gateway.stream(), asks(), sends(QUESTION), answers(), streams(told, end=True))
    [entry] = gateway.log
    assert (entry["usage_source"], entry["cost_usd"] < 0.001) == (source, True)
    if settings == TOLD:
        assert json.loads(last.body)["usage"]["cost"] < 0.001


@pytest.mark.parametrize(
    "text",
    [PRICED, TOLD.replace("price: {input: 1, output: 2, cached_input: 0.5}", "context: 9000")],
    ids=["not asked for", "unknown price"],
)
async def test_without_a_cost_the_answer_leaves_unchanged(world, text):
    body = json.dumps(ANSWER, indent=1).encode()
    *_, told, last = await talk(world(text).stream(), asks(), sends(QUESTION), answers(), streams(body, end=True))
    assert last.body == body
    assert "content-length" not in told.remove_headers


@pytest.mark.parametrize("usage", [{"prompt_tokens": -1, "completion_tokens": 3}, None, {}])
async def test_impossible_usage_has_no_cost(world, usage):
    body = json.dumps(ANSWER | {"usage": usage}).encode()
    *_, last = await talk(world(TOLD).stream(), asks(), sends(QUESTION), answers(), streams(body, end=True))
    assert last.body == body


async def test_a_translated_plain_answer_has_its_cost_in_a_header(world):
    told_usage = {contract.TRANSLATED.replace("-", "_"): "1", contract.USAGE.replace("-", "_"): "[1000, 10, 0, 0, 0]"}
    *_, told, last = await talk(
        world(TOLD).stream(), asks(), sends(QUESTION), answers(**told_usage), streams(ANSWER, end=True)
    )
    assert told.set_headers["x-ai-cost"] == "0.00102"
    assert json.loads(last.body)["usage"]["cost"] == 0.00102


@pytest.mark.parametrize("model", ["n", "v"])
async def test_an_unknown_price_may_be_refused(world, model):
    gateway = world(MONEY + "unknown_price: refuse\n")
    said = asks(), sends(QUESTION | {"model": model})
    if model == "n":
        _, refused = await talk(gateway.stream(), *said)
        assert error(refused) == (400, "unsupported_by_targets", "gateway")
        assert "the budget 'usd' counts money" in json.loads(refused.body)["error"]["message"]
    else:
        _, onward = await talk(gateway.stream(), *said)
        assert onward.order == ("try-a",)
    assert gateway.metric("extproc_targets_skipped_total", reason="no_price") == 1


async def test_an_unknown_price_counts_as_0_and_is_reported(world):
    gateway = world(MONEY)
    await talk(gateway.stream(), asks(), sends(QUESTION | {"model": "n"}), answers(), streams(ANSWER, end=True))
    assert await gateway.level("usd", -1) == (0, 0)
    assert gateway.log[0]["cost_usd"] is None
    assert gateway.metric("extproc_cost_unknown_total", provider="b", model="n") == 1


async def test_a_price_with_a_later_start_does_not_apply_yet(world):
    prices = "{model: m, input: 100, output: 0, from: 2099-01-01}, {model: m, input: 3, output: 0, from: 2020-01-01}"
    gateway = world(MONEY + f"prices: [{prices}]\n")
    await talk(gateway.stream(), asks(), sends(QUESTION), answers(), streams(ANSWER, end=True))
    assert await gateway.level("usd", -1) == (21_000, 0)


AUDIO = """models: {m: {provider: a, price: {input: 1, output: 2, audio_input: 10, audio_output: 20}}, n: {provider: b}}
budgets: [{name: usd, unit: usd, limit: 100, window: month}]
"""
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}


@pytest.mark.parametrize(("sound", "speech"), [(False, False), (True, False), (False, True), (True, True)])
async def test_audio_is_held_and_charged_at_its_own_price(world, sound, speech):
    gateway = world(AUDIO + "limits: {output_tokens: 100}")
    content = [{"type": "text", "text": "Hello"}, *([SOUND] if sound else [])]
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    body |= {"modalities": ["text", "audio"]} if speech else {}
    if sound:  # the body does not bound it
        gateway = world(
            AUDIO.replace("m: {provider: a", "m: {provider: a, context: 1000") + "limits: {output_tokens: 100}"
        )
    stream = gateway.stream()
    await asks()(stream)
    await sends(body)(stream)
    size = 1000 if sound else len(json.dumps(body)) + stream._exchange.request.ask.added_tokens
    held = size * (10 if sound else 1) + 100 * (20 if speech else 2)
    assert await gateway.level("usd", -1) == (0, held * 1000)
    usage = {
        "prompt_tokens": 60,
        "completion_tokens": 40,
        "prompt_tokens_details": {"audio_tokens": 50 if sound else 0},
    }
    usage["completion_tokens_details"] = {"audio_tokens": 30 if speech else 0}
    await answers()(stream)
    await streams({"choices": [], "usage": usage}, end=True)(stream)
    cost = (10 + 50 * 10 if sound else 60) + (10 * 2 + 30 * 20 if speech else 80)
    assert await gateway.level("usd", -1) == (cost * 1000, 0)
