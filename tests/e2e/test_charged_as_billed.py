"""The ledger's cost is the amount that the provider will bill, through a real Envoy: at the price of the model that
answered, with the fees of searches, or as the provider itself says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Gateway, eventually, run_gateway
from tests.e2e.scripted import Scripted, plain, stream
from tests.e2e.test_abuse_answers import completion, play

YAML = """
providers:
  openai: {kind: openai, base_url: "URL/v1"}
  router: {kind: openrouter, base_url: "URL/v1"}
  gemini: {kind: gcp_gemini, base_url: "URL/v1beta"}
  reconciled: {kind: openai, base_url: "URL/v1"}
  claude: {kind: anthropic, base_url: "URL/v1"}
models:
  own: {provider: reconciled, model: gpt-4.1-mini}
  mini: {provider: openai, model: gpt-4.1-mini}
  agreed: {provider: openai, model: gpt-4.1-mini, price: {input: 100, output: 100}}
  searching: {provider: openai, model: gpt-4.1}
  any: {provider: router, model: openrouter/auto}
  flash: {provider: gemini, model: gemini-2.5-flash}
  haiku: {provider: claude, model: claude-haiku-4-5}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
stores: {counters: "memory:"}
"""
PROMPT = "Hello there. " * 40
USED = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
AT_MINI = (100 * 0.4 + 20 * 1.6) / 1e6
AT_GPT = (100 * 2 + 20 * 8) / 1e6
"""USD of `USED` at the prices of gpt-4.1-mini and gpt-4.1: https://platform.openai.com/docs/pricing"""


@pytest.fixture(scope="module")
def running(provider: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("billed"), YAML.replace("URL", provider.url), (), {})


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    running.reset()
    return running


def ask(gateway: Gateway, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 500, **fields}
    return gateway.post("/v1/chat/completions", body, timeout=30)


def billed(gateway: Gateway, answer: httpx.Response) -> tuple[Any, ...]:
    assert answer.status_code == 200, answer.text
    entry = gateway.exchange_of(answer)
    return pytest.approx(entry["cost_usd"], rel=1e-6), entry["price_version"].rpartition(" ")[2], entry["usage_source"]


@pytest.mark.parametrize(
    ("asked", "answered", "cost", "other"),
    [
        ("mini", "gpt-4.1", AT_GPT, True),
        ("mini", "gpt-4.1-mini-2025-04-14", AT_MINI, False),
        ("mini", "never-heard-of", AT_MINI, False),
        ("agreed", "gpt-4.1", 0.012, False),
    ],
)
def test_the_model_that_answered_is_charged_unless_a_price_was_agreed(
    asked: str, answered: str, cost: float, gateway: Gateway, provider: Scripted, *, other: bool
) -> None:
    before = gateway.metric("extproc_served_other_total", provider="openai", model=asked)
    play(provider, plain(completion(model=answered, usage=USED)))
    found, origin, source = billed(gateway, ask(gateway, asked))
    assert (cost, source, other) == (found, "provider", origin == answered)
    assert gateway.metric("extproc_served_other_total", provider="openai", model=asked) - before == other


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_cost_that_a_router_tells_is_charged(
    path: str, gateway: Gateway, provider: Scripted, *, streamed: bool
) -> None:
    usage = {**USED, "cost": 0.0123, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.0123}}
    chunk = {"id": "c", "model": "some/model", "choices": [{"index": 0, "delta": {"content": "Hello"}}]}
    done = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    whole = plain(completion(model="some/model", usage=usage))
    play(provider, stream(chunk, done, {"id": "c", "choices": [], "usage": usage}) if streamed else whole)
    body = {"model": "any", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 500, "stream": streamed}
    assert billed(gateway, gateway.post(path, body, timeout=30)) == (0.0123, "provider", "provider")


def test_a_customers_own_key_at_a_router_is_charged_with_the_routers_fee(gateway: Gateway, provider: Scripted) -> None:
    usage = {**USED, "cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}
    play(provider, plain(completion(model="some/model", usage=usage)))
    assert billed(gateway, ask(gateway, "any")) == (0.021, "provider", "provider")


@pytest.mark.parametrize("cost", [5000, -1, "0.1", True, float("1e300"), None])
def test_a_cost_that_cannot_be_is_not_charged(cost: Any, gateway: Gateway, provider: Scripted) -> None:
    play(provider, plain(completion(model="openai/gpt-4.1", usage={**USED, "cost": cost})))
    _, origin, source = billed(gateway, ask(gateway, "any"))
    assert origin != "provider"
    assert source == ("disputed" if cost == 5000 else "provider")


def test_a_provider_that_sells_no_routes_has_no_word_on_its_cost(gateway: Gateway, provider: Scripted) -> None:
    play(provider, plain(completion(model="gpt-4.1-mini", usage={**USED, "cost": 0})))
    assert billed(gateway, ask(gateway, "mini"))[0] == AT_MINI


@pytest.mark.parametrize("streamed", [False, True])
def test_searches_of_a_response_are_charged_each(gateway: Gateway, provider: Scripted, *, streamed: bool) -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    text = {"type": "output_text", "text": "Found.", "annotations": []}
    said = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-4.1",
        "status": "completed",
        "output": [search, search, search, said],
        "store": False,
        "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
    }
    done = [{"type": "response.output_item.done", "output_index": place, "item": search} for place in range(3)]
    events = [*done, {"type": "response.completed", "response": response}]
    play(provider, stream(*events, end=b"") if streamed else plain(response))
    body = {"model": "searching", "input": PROMPT, "store": False, "stream": streamed, "max_output_tokens": 500}
    answer = gateway.post("/v1/responses", {**body, "tools": [{"type": "web_search"}]}, timeout=30)
    assert billed(gateway, answer)[0] == AT_GPT + 3 * 0.01


@pytest.mark.parametrize(("model", "searches"), [("gemini-2.5-flash", 0.035), ("gemini-3-flash-preview", 2 * 0.014)])
def test_searches_of_gemini_are_charged_by_query_or_for_the_answer(
    model: str, searches: float, gateway: Gateway, provider: Scripted
) -> None:
    usage = {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120}
    content = {"role": "model", "parts": [{"text": "Found."}]}
    whole = {"candidates": [{"index": 0, "content": content, "finishReason": "STOP"}], "usageMetadata": usage}
    whole["modelVersion"] = model
    body = {"contents": [{"role": "user", "parts": [{"text": PROMPT}]}], "tools": [{"googleSearch": {}}]}
    path = "/v1beta/models/flash:generateContent"
    play(provider, plain(whole))
    without, _, _ = billed(gateway, gateway.post(path, body, timeout=30))
    whole["candidates"][0]["groundingMetadata"] = {"webSearchQueries": ["one", "two", "one", ""]}
    play(provider, plain(whole))
    found, _, _ = billed(gateway, gateway.post(path, body, timeout=30))
    assert without.expected + searches == found


def test_a_providers_bill_is_reconciled_and_traffic_beside_the_gateway_found(
    gateway: Gateway, provider: Scripted, extproc: Callable[..., Any], tmp_path: Path
) -> None:
    prices = {"gpt-4.1-mini-2025-04-14": (0.4, 1.6), "gpt-4.1-2025-04-14": (2, 8)}  # the second answers for the first
    pages = []
    for model in (*prices, "gpt-4.1-mini-2025-04-14"):
        play(provider, plain(completion(model=model, usage=USED)))
        entry = gateway.exchange_of(ask(gateway, "own"))
        start = int(entry["time"] - entry["duration_ms"] / 1000)  # a record has the time of its end
        kinds = zip(("input", "output"), prices[model], (100, 20), strict=True)
        results = [
            {"object": "organization.costs.result", "line_item": f"{model}, {kind}", "quantity": tokens}
            | {"amount": {"value": price * tokens / 1e6, "currency": "usd"}}
            for kind, price, tokens in kinds
        ]
        pages.append({"data": [{"start_time": start - start % 86_400, "results": results}], "has_more": False})
    file = tmp_path / "costs.jsonl"
    days = [datetime.fromtimestamp(start + hours * 3600, UTC).date() for hours in (-24, 48)]
    whole = ("--from", days[0], "--to", days[1])
    arguments = ("reconcile", "openai", "--file", file, "-c", gateway.file, "--provider", "reconciled", *whole)
    file.write_text("\n".join(map(json.dumps, pages)))
    eventually(lambda: extproc(*arguments).returncode == 0)  # rows come after the answers
    assert "within the tolerance of 0.01 %" in extproc(*arguments).stdout
    beside = json.dumps(pages[0]).replace("gpt-4.1-mini", "gpt-4o-mini")
    file.write_text("\n".join([*map(json.dumps, pages), beside]))
    done = extproc(*arguments, "--format", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["causes"]["beside_the_gateway"] == {"usd": f"{AT_MINI:.6f}", "cells": 1}


@pytest.mark.parametrize("streamed", [False, True])
def test_an_advisor_is_charged_at_its_own_price(gateway: Gateway, provider: Scripted, *, streamed: bool) -> None:
    advice = {"type": "advisor_message", "model": "claude-opus-4-5", "input_tokens": 1000, "output_tokens": 200}
    usage = {"input_tokens": 100, "output_tokens": 20, "iterations": [{"type": "message"}, advice]}
    whole = {"id": "m", "type": "message", "role": "assistant", "model": "claude-haiku-4-5", "content": []}
    begun = {"type": "message_start", "message": {**whole, "usage": {"input_tokens": 100, "output_tokens": 1}}}
    done = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    play(
        provider,
        stream(begun, done, {"type": "message_stop"}, end=b"") if streamed else plain(whole | {"usage": usage}),
    )
    tool = {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-5"}
    body = {"model": "haiku", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 500, "stream": streamed}
    found = billed(gateway, gateway.post("/v1/messages", {**body, "tools": [tool]}, timeout=30))
    assert found[0] == (100 * 1 + 20 * 5 + 1000 * 5 + 200 * 25) / 1e6
