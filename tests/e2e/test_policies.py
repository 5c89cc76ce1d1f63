"""Requirements and facts of models through Envoy, with official SDKs: `require` over failover, downgrade, cache and
guardrails that ask a service; the end of a model in headers and lists.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.e2e.conftest import Gateway, eventually, run_gateway

SETTINGS = """
providers:
  eu: {kind: mock, base_url: "{mock_eu}", region: eu-west-1, retention: 0s, outlier_detection: {consecutive_5xx: 10000}}
  us: {kind: mock, base_url: "{mock_us}", region: us-east-1, retention: 30d,
       outlier_detection: {consecutive_5xx: 10000}}
models:
  here: {provider: eu, price: {input: 100, output: 200}, licence: mit, supports: [tools], retires: DAY,
         deprecated: 2026-06-11, successor: next-one}
  there: {provider: us, price: {input: 1, output: 1}}
virtual_models:
  any: {targets: [{model: us-first}, {model: here}]}
  us-first: {targets: [{model: there}]}
  bound: {targets: [{model: there}, {model: here}], require: {regions: ["eu-*"]}}
  best: {strategy: [quality, cost], targets: [
    {model: here, quality: [{match: {tools: true}, value: 1}, {value: 0.9}]}, {model: there, quality: 0.9}]}
  frugal: {objectives: {cost: 2}, targets: [{model: here}, {model: there}]}
  swift: {objectives: {ttft_p95: 150ms, rate: 1}, targets: [{model: here}, {model: there}]}
  by-content: {targets: [
    {model: here, match: {language: de}}, {model: here, match: {tokens: 1000-}}, {model: there}]}
teams:
  europe: {require: {regions: ["eu-*"], retention: 0s}}
consumers:
  - {name: free, keys: [{env: KEY_FREE}]}
  - {name: eva, team: europe, keys: [{env: KEY_EVA}]}
  - {name: poor, team: europe, keys: [{env: KEY_POOR}]}
  - {name: judge, keys: [{env: KEY_JUDGE}]}
budgets:
  - {name: small, match: {consumer: poor}, unit: usd, limit: 0.000001, window: day, on_exceed: downgrade,
     downgrade_to: there}
guardrails:
  - {name: asked, kind: llm_judge, on: [input], applies_to: {labels: {judged: "yes"}}, action: block,
     rubric: "The text insults a person.", model: there, consumer: judge}
cache: {rules: [{ttl: 1h, scope: all}]}
stores: {counters: "memory:"}
"""
KEYS = {f"KEY_{name.upper()}": f"sk-gw-{name}" for name in ("free", "eva", "poor", "judge")}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    day = (dt.datetime.now(dt.UTC).date() + dt.timedelta(days=20)).isoformat()
    yield from run_gateway(tmp_path_factory.mktemp("policies"), SETTINGS.replace("DAY", day), ("eu", "us"), KEYS)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


@contextlib.contextmanager
def client(gateway: Gateway, who: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key=f"sk-gw-{who}", max_retries=0) as found:
        yield found


def ask(gateway: Gateway, who: str, model: str, text: str, **headers: str) -> str:
    """The provider that answered."""
    with client(gateway, who) as asking:
        answer = asking.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": text}], extra_headers=headers
        )
    return answer.headers["x-ai-provider"]


def test_a_bound_consumer_reaches_no_other_region_by_order_or_failover(gateway: Gateway):
    assert ask(gateway, "free", "any", "one") == "us"
    gateway.reset()
    assert ask(gateway, "eva", "any", "two") == "eu"
    gateway.fault("eu", "status=500")
    with pytest.raises(openai.InternalServerError):
        ask(gateway, "eva", "any", "three")
    with pytest.raises(openai.PermissionDeniedError, match="meets `require`: there: its region us-east-1"):
        ask(gateway, "eva", "there", "four")
    assert gateway.seen("us") == []


def test_a_virtual_model_keeps_its_requirement_for_every_consumer(gateway: Gateway):
    assert ask(gateway, "free", "bound", "five") == "eu"
    gateway.fault("eu", "status=500")
    with pytest.raises(openai.InternalServerError):
        ask(gateway, "free", "bound", "six")
    assert gateway.seen("us") == []


def test_quality_then_cost_and_objectives_order_the_targets(gateway: Gateway):
    assert ask(gateway, "free", "best", "eleven") == "us"
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
    answer = gateway.chat("best", "eleven", tools=[tool], key="sk-gw-free")
    assert answer.headers["x-ai-provider"] == "eu"
    assert ask(gateway, "free", "frugal", "twelve") == "us"


def test_a_target_that_begins_too_late_comes_last(gateway: Gateway):
    def first(text: str) -> str:
        with gateway.stream("swift", text, key="sk-gw-free") as answer:
            answer.read()
            return answer.headers["x-ai-provider"]

    assert first("thirteen") == "eu"
    gateway.fault("eu", "delay=400ms")
    texts = map(str, itertools.count())  # an answer that the cache kept would tell nothing
    eventually(lambda: first(next(texts)) == "us")
    assert first("fourteen") == "us"
    found = gateway.http.get(gateway.admin + "/providers").json()
    assert "ttft_p95_s" in str(found)


def test_a_target_is_matched_by_what_is_asked(gateway: Gateway):
    assert ask(gateway, "free", "by-content", "What is the weather in Berlin, and how is it in Rome?") == "us"
    assert ask(gateway, "free", "by-content", "Wie ist das Wetter in Berlin, und was ist es in Rom?") == "eu"
    assert ask(gateway, "free", "by-content", "word " * 1000) == "eu"


def test_a_downgrade_goes_to_no_target_that_the_requirement_forbids(gateway: Gateway):
    with pytest.raises(openai.APIStatusError, match="Budget 'small'"):
        ask(gateway, "poor", "here", "seven")
    assert gateway.seen("us") == gateway.seen("eu") == []


def test_a_kept_answer_of_another_region_is_not_given_to_a_bound_consumer(gateway: Gateway):
    first = {"cache-control": "max-age=60"}
    assert ask(gateway, "free", "any", "eight", **first) == "us"
    assert ask(gateway, "eva", "any", "eight", **first) == "eu"
    assert len(gateway.seen("us")) == len(gateway.seen("eu")) == 1


def test_a_guardrail_sends_no_text_to_a_service_that_is_not_allowed(gateway: Gateway):
    with pytest.raises(openai.InternalServerError, match="asks a service that `require` does not allow"):
        ask(gateway, "eva", "any", "nine", **{"x-ai-judged": "yes"})
    assert gateway.seen("us") == gateway.seen("eu") == []


def test_the_end_of_a_model_is_in_its_answers_and_in_the_lists_of_models(gateway: Gateway):
    with client(gateway, "free") as free, client(gateway, "eva") as eva:
        answer = free.chat.completions.with_raw_response.create(
            model="here", messages=[{"role": "user", "content": "ten"}]
        )
        listed = free.models.retrieve("here")
        assert {model.id for model in eva.models.list()} >= {"here", "any", "bound"}
    assert answer.headers["deprecation"] == "@1781136000"
    assert answer.headers["sunset"].endswith(" 00:00:00 GMT")
    assert listed.model_dump()["region"] == "eu-west-1"
    with anthropic.Anthropic(base_url=gateway.base_url.removesuffix("/v1"), api_key="sk-gw-free") as asking:
        claude = asking.models.retrieve("here")
    assert (claude.lifecycle, claude.retires_at is not None) == ("deprecated", True)
    assert str(claude.retires_at).partition(" ")[0] == listed.shutdown_date
    gemini = gateway.http.get(
        gateway.base_url.removesuffix("/v1") + "/v1beta/models/here", headers={"x-goog-api-key": "sk-gw-free"}
    ).json()
    assert gemini["description"] == f"Retires on {listed.shutdown_date}. Successor: next-one."
    eventually(lambda: gateway.metric("extproc_ending_model_requests_total", consumer="free", model="here") >= 1)
