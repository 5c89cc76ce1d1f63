"""Budgets in USD end to end: spending never exceeds the limit, and the cost is reported everywhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import types

from tests.e2e.conftest import Gateway, run_gateway

WHO = "rich team crowd caller alarm unknown anthropic"
SETTINGS = """
providers:
  sandbox: {kind: mock, base_url: "{mock_sandbox}", outlier_detection: {consecutive_5xx: 10000}}
  other: {kind: anthropic, base_url: "{mock_sandbox}", api_key: env:OTHER_KEY}
models:
  stub: {provider: sandbox, price: {input: 1000, output: 2000}}
  claude: {provider: other, price: {input: 1000, output: 2000}}
  nameless: {provider: sandbox}
  dated: {provider: sandbox, price: {input: 7, output: 7}}
virtual_models:
  either: {targets: [{model: nameless}, {model: stub}]}
prices:
  - {model: dated, provider: sandbox, input: 100, output: 100, from: 2020-01-01}
  - {model: dated, input: 999, output: 999, from: 2099-01-01}
unknown_price: refuse
usage: {cost_in_response: true}
stores: {counters: "memory:"}
budgets:
  - {name: team-month, match: {team: everybody, consumer: team}, unit: usd, limit: 1, window: month}
  - {name: run, match: {consumer: crowd}, per: [label.run], unit: usd, limit: 2.50, window: total}
  - {name: call, match: {consumer: caller}, unit: usd, limit: 0.50, window: call}
  - {name: alarm, match: {consumer: alarm}, unit: usd, limit: 1, window: quarter, alert_at: [0.005]}
  - {name: known, match: {consumer: unknown}, unit: usd, limit: 10, window: week}
teams: {everybody: {}}
consumers:
"""


def key(name: str) -> str:
    return f"sk-gw-{name}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    consumers = "".join(f"  - {{name: {name}, team: everybody, keys: [{{env: KEY_{name}}}]}}\n" for name in WHO.split())
    env = {f"KEY_{name}": key(name) for name in WHO.split()} | {"OTHER_KEY": "sk-other"}
    yield from run_gateway(tmp_path_factory.mktemp("money"), SETTINGS + consumers, ("sandbox",), env)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


def refused(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["x-ai-error-origin"] == "gateway"
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize(("model", "price"), [("stub", (1000, 2000)), ("dated", (100, 100))])
def test_the_cost_is_in_the_answer_the_record_and_the_metric(gateway: Gateway, model: str, price: tuple[int, int]):
    before = gateway.metric("extproc_cost_usd_total", model=model)
    answer = gateway.chat(model, "one two three", key=key("rich"))
    usage = answer.json()["usage"]
    expected = (usage["prompt_tokens"] * price[0] + usage["completion_tokens"] * price[1]) / 1e6
    entry = gateway.exchange_of(answer)
    assert usage["cost"] == entry["cost_usd"] == expected > 0
    assert "x-ai-cost" not in answer.headers
    spent = gateway.metric("extproc_cost_usd_total", provider="sandbox", model=model)
    assert spent - before == pytest.approx(expected)


def test_the_usage_event_of_a_stream_has_the_cost_and_the_others_are_unchanged(gateway: Gateway):
    options = {"include_usage": True}
    with gateway.stream("stub", "one two", key=key("rich"), stream_options=options) as answer:
        events = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    *pieces, used, done = events
    usage = json.loads(used)["usage"]
    assert usage["cost"] == (usage["prompt_tokens"] * 1000 + usage["completion_tokens"] * 2000) / 1e6
    assert done == "[DONE]"
    assert not any("cost" in piece for piece in pieces)
    assert gateway.exchange_of(answer)["cost_usd"] == usage["cost"]


def test_a_translated_plain_answer_has_its_cost_in_a_header(gateway: Gateway):
    answer = gateway.chat("claude", "one two", key=key("rich"), max_tokens=50)
    assert answer.status_code == 200, answer.text
    cost = answer.json()["usage"]["cost"]
    assert float(answer.headers["x-ai-cost"]) == cost == gateway.exchange_of(answer)["cost_usd"] > 0


def test_sdks_of_every_api_read_the_cost(gateway: Gateway):
    messages: Any = [{"role": "user", "content": "one two three"}]
    options = types.HttpOptions(base_url=gateway.url)
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key=key("rich")) as claude,
        genai.Client(api_key=key("rich"), http_options=options) as gemini,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key("rich")) as gpt,
    ):
        message: Any = claude.messages.create(model="stub", max_tokens=50, messages=messages).usage
        with claude.messages.stream(model="stub", max_tokens=50, messages=messages) as stream:
            streamed: Any = [event for event in stream if event.type == "message_delta"][-1].usage
        response: Any = gpt.responses.create(model="stub", input="one two three").usage
        assert gemini.models.generate_content(model="stub", contents="one two three").text  # it drops the cost
    for usage in (message, response):
        assert usage.cost == cost_of(usage.input_tokens, usage.output_tokens)
    assert streamed.cost == message.cost
    body = {"contents": [{"parts": [{"text": "one two three"}]}]}
    headers = {"x-goog-api-key": key("rich")}
    answer = gateway.http.post(f"{gateway.url}/v1beta/models/stub:generateContent", json=body, headers=headers)
    found = answer.json()["usageMetadata"]
    assert found["cost"] == cost_of(found["promptTokenCount"], found["candidatesTokenCount"])


def cost_of(input_tokens: int, output_tokens: int) -> float:
    return (input_tokens * 1000 + output_tokens * 2000) / 1_000_000


def test_a_request_beyond_a_usd_limit_is_a_402_that_states_the_remainder(gateway: Gateway):
    answer = gateway.chat("stub", key=key("team"), max_tokens=1000)
    assert refused(answer) == (402, "budget_exceeded")
    message = answer.json()["error"]["message"]
    assert "'team-month' of 1 USD per month has 1 USD left" in message
    assert "resets in" in message
    assert "retry-after" not in answer.headers
    assert gateway.calls() == 0
    assert gateway.chat("stub", key=key("team"), max_tokens=50).status_code == 200


def test_concurrent_requests_of_a_run_never_exceed_its_budget(gateway: Gateway):
    """Each reserves about 0.30 USD until its cost is known to be 0.01 USD."""
    gateway.fault("sandbox", "delay=1s")  # longer than it takes to send them all

    def ask(index: int) -> httpx.Response:
        headers = {"x-ai-run": f"r{index % 2}"}
        return gateway.chat("stub", key=key("crowd"), max_tokens=100, headers=headers)

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(ask, range(40)))
    found = Counter(answer.status_code for answer in answers)
    assert set(found) == {200, 402}
    held = (len(answers[0].request.content) * 1000 + 100 * 2000) / 1e6
    assert found[200] == 2 * int(2.5 / held)
    assert gateway.calls() == found[200]


def test_a_request_above_the_limit_per_request_is_refused(gateway: Gateway):
    answer = gateway.chat("stub", key=key("caller"), max_tokens=500)
    assert refused(answer) == (402, "budget_exceeded")
    assert "'call' allows 0.5 USD per call" in answer.json()["error"]["message"]
    for _ in range(3):
        assert gateway.chat("stub", key=key("caller"), max_tokens=50).status_code == 200


def test_a_budget_that_runs_out_is_announced_in_a_header_and_a_metric(gateway: Gateway):
    assert "x-ai-budget" not in gateway.chat("stub", key=key("alarm"), max_tokens=50).headers
    answer = gateway.chat("stub", key=key("alarm"), max_tokens=50)
    name, _, share = answer.headers["x-ai-budget"].partition("; used=")
    assert name == "alarm"
    assert 0.005 <= float(share) < 0.1
    assert gateway.metric("extproc_budget_used_ratio", budget="alarm") == pytest.approx(float(share), abs=0.01)


def test_a_usd_budget_refuses_a_model_without_a_price(gateway: Gateway):
    answer = gateway.chat("nameless", key=key("unknown"))
    assert refused(answer) == (400, "unsupported_by_targets")
    assert "the budget 'known' counts money" in answer.json()["error"]["message"]
    answer = gateway.chat("either", key=key("unknown"), max_tokens=50)
    assert gateway.exchange_of(answer)["skipped"] == {"nameless": "no_price"}
    free = gateway.chat("nameless", key=key("rich"))
    assert "cost" not in free.json()["usage"]
    assert gateway.exchange_of(free)["cost_usd"] is None
