"""Shadow requests through Envoy: a candidate gets what clients ask, and no client notices."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest
from google import genai

from tests.e2e.conftest import KEY, Ended, Gateway, eventually, run_gateway

YAML = """
providers:
  old: {kind: mock, base_url: "{mock_old}", region: eu-1}
  new: {kind: mock, base_url: "{mock_new}", region: us-1, outlier_detection: {consecutive_5xx: 100000}}
models:
  stable: {provider: old, price: {input: 1, output: 1}}
  candidate: {provider: new, price: {input: 1, output: 1}}
  terse: {provider: new, price: {input: 1, output: 1}, max_output_tokens: 1}
virtual_models:
  assistant: {targets: [{model: stable}], shadow: {model: candidate, consumer: shadow, share: 1, at_once: 2}}
  shaped: {targets: [{model: stable}], shadow: {model: terse, consumer: shadow, share: 1}}
guardrails: [{name: mails, kind: pii, action: mask, on: [input]}]
consumers:
  - {name: demo, models: [assistant, shaped, stable], keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: bound, keys: [{env: BOUND_KEY}], require: {regions: ["eu-*"]}}
  - {name: shadow, models: [candidate, terse], keys: [{env: SHADOW_KEY}]}
budgets: [{name: few, match: {consumer: shadow}, unit: requests, limit: 60, window: hour}]
stores: {counters: "memory:"}
"""
KEYS = {"BOUND_KEY": "sk-gw-bound", "SHADOW_KEY": "sk-gw-shadow"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("shadow"), YAML, ("old", "new"), KEYS)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


def got(gateway: Gateway, count: int = 1) -> list[dict[str, Any]]:
    """What the candidate got, once it is `count` requests."""
    return eventually(lambda: seen if len(seen := gateway.seen("new")) >= count else None)  # type: ignore[no-any-return]


def outcomes(gateway: Gateway, outcome: str) -> float:
    return gateway.metric("extproc_shadows_total", outcome=outcome)


def test_a_candidate_gets_the_request_and_the_client_its_own_answer(gateway: Gateway):
    answer = gateway.chat("assistant", "Write to ada@example.com")
    assert answer.headers["x-ai-provider"] == "old"
    [sent] = got(gateway)
    assert sent["body"]["model"] == "candidate"
    assert "ada@example.com" not in str(sent)
    first = gateway.exchange_of(answer)
    row = gateway.last(lambda entry: entry["labels"].get("shadow-of") == first["id"])
    assert (row["consumer"], row["labels"]["shadow"], row["provider"]) == ("shadow", "assistant", "new")
    assert float(row["cost_usd"]) > 0
    assert gateway.chat("stable", "alone").status_code == 200
    assert len(gateway.seen("new")) == 1


def test_every_api_and_streams_have_shadows(gateway: Gateway):
    url = gateway.base_url.removesuffix("/v1")
    with gateway.stream("assistant", "Hello") as answer:
        answer.read()
    claude = anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0)
    claude.messages.create(model="assistant", max_tokens=10, messages=[{"role": "user", "content": "Hello"}])
    options: Any = {"base_url": url, "retry_options": {"attempts": 1}}
    gemini = genai.Client(api_key=KEY, http_options=options)
    gemini.models.generate_content(model="assistant", contents="Hello")
    assert len(got(gateway, 3)) == 3


def test_what_a_requirement_forbids_is_not_sent(gateway: Gateway):
    before = outcomes(gateway, "not_allowed")
    assert gateway.chat("assistant", "secret", key="sk-gw-bound").status_code == 200
    eventually(lambda: outcomes(gateway, "not_allowed") == before + 1)
    assert gateway.seen("new") == []


def test_a_candidate_that_fails_or_hangs_never_touches_a_client(gateway: Gateway):
    failed, dropped = outcomes(gateway, "failed"), outcomes(gateway, "dropped")
    gateway.fault("new", "status=500")
    assert gateway.chat("assistant", "one").status_code == 200
    eventually(lambda: outcomes(gateway, "failed") > failed)
    gateway.fault("new", "delay=2s")
    begun = time.monotonic()
    assert {gateway.chat("assistant", f"{number}").status_code for number in range(8)} == {200}
    assert time.monotonic() - begun < 2
    eventually(lambda: outcomes(gateway, "dropped") >= dropped + 6)
    eventually(lambda: gateway.metric("extproc_exchanges_in_flight") == 0)


def test_answers_are_compared_in_pairs_without_their_texts(gateway: Gateway, extproc: Callable[..., Ended]):
    """A candidate that writes one word breaks each JSON that it is asked for, and calls the same tools."""
    shape = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    json_ = {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": shape}}}
    tool = {"tools": [{"type": "function", "function": {"name": "weather", "parameters": shape}}]}
    for number in range(16):
        assert gateway.chat("shaped", f"Say {number}", max_tokens=100, **json_).status_code == 200
    for number in range(4):
        assert gateway.chat("shaped", f"Call {number}", **tool).json()["choices"][0]["message"]["tool_calls"]

    def compared(*options: str) -> Ended:
        return extproc("compare", "--shadow", "shaped", "--url", gateway.admin, *options)

    def pairs() -> Any:
        found = json.loads(compared("--format", "json").stdout)
        return found if found["classes"][0]["b"]["exchanges"] == 20 else None

    found = eventually(pairs)
    [malformed] = [one for one in found["classes"][0]["measures"] if one["name"] == "malformed"]
    assert malformed["pairs"] == {"only_a": 0, "only_b": 16, "alike": 4}  # the calls' arguments are well-formed
    assert (found["state"], "are malformed" in found["sentence"]) == ("not_safe", True)
    assert "of its shadow's answers 80.0% are malformed, of shaped's 0.0%" in found["sentence"]
    assert found["classes"][0]["calls"] == {"with_tools": 4, "same_tools": 4, "same_calls": 4}
    told = compared().stdout
    assert "of 4 pairs 100.0% call the same tools" in told
    assert malformed["examples"][-1] in told
    assert compared("--label", "agent").returncode == 0
    assert "needs A and B" in extproc("compare", "stable", "--url", gateway.admin).stderr


def test_a_spent_budget_ends_the_shadow_alone(gateway: Gateway):
    def asked() -> bool:
        assert gateway.chat("assistant", "again").status_code == 200
        return bool(gateway.last(lambda entry: entry["consumer"] == "shadow")["status"] == 429)

    eventually(asked)
