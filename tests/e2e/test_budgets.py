"""Budgets end to end: spending never exceeds the limit, and use is never undercounted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Gateway, eventually, run_gateway

Start = Callable[..., Gateway]

HEAD = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}", outlier_detection: {consecutive_5xx: 10000}}}
models: {stub: {provider: sandbox}, other: {provider: sandbox}, "any/*": {provider: sandbox}}
stores: {counters: "%s"}
consumers:
"""
WHO = "  - {{name: {0}, team: everybody, keys: [{{env: KEY_{0}}}]}}\n"


def settings(names: str, budgets: str, store: str = "memory:") -> tuple[str, dict[str, str]]:
    """A filter YAML for consumers with one-word names and their budgets, and the environment with their keys."""
    consumers = "".join(WHO.format(name) for name in names.split())
    yaml = HEAD % store + consumers + "teams: {everybody: {}}\nbudgets:\n" + budgets
    return yaml, {f"KEY_{name}": key(name) for name in names.split()}


def key(name: str) -> str:
    return f"sk-gw-{name}"


# One consumer for each test, so that no test sees the spending of another.
SHARED = """
  - {name: rpm, match: {consumer: requests*}, per: [consumer], unit: requests, limit: 3, window: minute}
  - {name: ten, match: {consumer: crowd}, unit: requests, limit: 10, window: hour}
  - {name: tpm, match: {consumer: tokens*}, per: [consumer], unit: tokens, limit: 10000, window: hour}
  - {name: daily, match: {consumer: daily}, unit: tokens, limit: 500, window: day}
  - {name: forever, match: {consumer: forever}, unit: requests, limit: 1, window: total}
  - {name: watched, match: {consumer: shadow}, unit: requests, limit: 2, window: hour, mode: shadow}
  - {name: per-run, match: {consumer: labels}, per: [label.run], unit: requests, limit: 1, window: hour}
  - {name: one-model, match: {consumer: models, model: stub}, unit: requests, limit: 1, window: hour}
"""
NAMES = "requestsa requestsb crowd tokensa tokensb tokensc tokensd tokense tokensf daily forever shadow labels models"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yaml, env = settings(NAMES, SHARED)
    yield from run_gateway(tmp_path_factory.mktemp("budgets"), yaml, ("sandbox",), env)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


def refused(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["x-ai-error-origin"] == "gateway"
    return answer.status_code, answer.json()["error"]["code"]


def left_of(gateway: Gateway, name: str) -> int:
    """Tokens that a budget has left, read from the refusal of a request that can never fit."""
    answer = gateway.chat("stub", key=key(name), max_tokens=1_000_000)
    assert refused(answer) == (400, "request_exceeds_limit")
    return int(answer.headers["x-ratelimit-remaining-tokens"])


def test_requests_beyond_the_limit_are_refused_and_never_sent(gateway: Gateway):
    eventually(lambda: time.time() % 60 < 40)  # so that no minute ends in the middle
    for _ in range(3):
        assert gateway.chat(key=key("requestsa")).status_code == 200
    answer = gateway.chat(key=key("requestsa"))
    assert refused(answer) == (429, "rate_limited")
    assert "rpm" in answer.json()["error"]["message"]
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers["x-ratelimit-limit-requests"] == "3"
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
    assert gateway.calls() == 3
    assert gateway.metric("extproc_budget_decisions_total", budget="rpm", verdict="denied") == 1
    assert gateway.chat(key=key("requestsb")).status_code == 200, "another consumer has its own count"


def test_of_forty_concurrent_requests_exactly_the_limit_passes(gateway: Gateway):
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: gateway.chat(key=key("crowd")), range(40)))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 30}
    assert gateway.calls() == 10


@pytest.mark.parametrize("stream", [False, True])
def test_the_count_of_the_provider_is_charged(gateway: Gateway, stream: bool):
    before = left_of(gateway, "tokensa")
    answer = gateway.chat("stub", "one two three", key=key("tokensa"), stream=stream, max_tokens=100)
    assert answer.status_code == 200
    entry = gateway.exchange_of(answer)
    assert (entry["usage_source"], entry["input_tokens"], entry["output_tokens"]) == ("provider", 3, 5)
    assert before - left_of(gateway, "tokensa") == 8


def test_tokens_in_flight_are_reserved(gateway: Gateway):
    before = left_of(gateway, "tokensb")
    gateway.fault("sandbox", "words=200+pace=50ms")
    with gateway.stream("stub", key=key("tokensb"), max_tokens=9000) as answer:
        pieces = answer.iter_raw()
        for _ in range(5):  # a client that disconnects before any text is charged the reservation
            next(pieces)
        assert before - left_of(gateway, "tokensb") >= 9000
        assert refused(gateway.chat(key=key("tokensb"), max_tokens=1000)) == (429, "rate_limited")
    eventually(lambda: before - left_of(gateway, "tokensb") < 500)
    gateway.reset()
    assert gateway.chat(key=key("tokensb"), max_tokens=1000).status_code == 200


def test_a_client_that_disconnects_is_charged_about_what_it_received(gateway: Gateway):
    before = left_of(gateway, "tokensc")
    gateway.fault("sandbox", "words=500+pace=20ms")
    with gateway.stream("stub", key=key("tokensc"), max_tokens=5000) as answer:
        pieces = answer.iter_raw()
        for _ in range(20):
            next(pieces)
    entry = gateway.last(lambda entry: entry.get("consumer") == "tokensc" and entry["error"] == "incomplete")
    assert entry["usage_source"] == "estimated"
    assert 18 <= entry["output_tokens"] < 1000
    spent = entry["input_tokens"] + entry["output_tokens"]
    eventually(lambda: before - left_of(gateway, "tokensc") == spent)


@pytest.mark.parametrize("fault", ["status=500", "status=429", "status=400", "reset"])
def test_a_providers_error_costs_no_tokens(gateway: Gateway, fault: str):
    before = left_of(gateway, "tokensd")
    gateway.fault("sandbox", fault)
    assert gateway.chat("stub", key=key("tokensd")).status_code >= 400
    assert left_of(gateway, "tokensd") == before


def test_a_request_without_an_output_limit_leaves_without_one(gateway: Gateway):
    assert gateway.chat(key=key("tokense")).status_code == 200
    answer = gateway.chat(key=key("tokense"), max_tokens=7)
    first, second = (seen["body"] for seen in gateway.seen("sandbox"))
    assert not [name for name in first if name.startswith("max_")]
    assert second["max_tokens"] == 7
    assert "x-ai-capped" not in answer.headers


@pytest.mark.parametrize("usage", ["none", "huge"])
def test_an_impossible_count_of_a_provider_is_not_believed(gateway: Gateway, usage: str):
    before = left_of(gateway, "tokensf")
    answer = gateway.chat(f"any/stub+usage={usage}", "one two three", key=key("tokensf"), max_tokens=100)
    assert answer.status_code == 200
    assert gateway.exchange_of(answer)["usage_source"] == "estimated"
    assert 8 <= before - left_of(gateway, "tokensf") < 200


def test_a_request_beyond_a_daily_budget_is_a_402_and_not_a_429(gateway: Gateway):
    answer = gateway.chat(key=key("daily"), max_tokens=1000)
    assert refused(answer) == (402, "budget_exceeded")
    assert "retry-after" not in answer.headers
    assert "can never fit" in answer.json()["error"]["message"]
    assert gateway.calls() == 0
    assert gateway.chat(key=key("daily"), max_tokens=100).status_code == 200


def test_a_budget_without_a_window_never_resets(gateway: Gateway):
    assert gateway.chat(key=key("forever")).status_code == 200
    assert refused(gateway.chat(key=key("forever"))) == (402, "budget_exceeded")


def test_a_shadow_budget_counts_and_never_refuses(gateway: Gateway):
    for _ in range(5):
        assert gateway.chat(key=key("shadow")).status_code == 200
    assert gateway.metric("extproc_budget_decisions_total", budget="watched", verdict="would_deny") == 3
    assert gateway.metric("extproc_budget_decisions_total", budget="watched", verdict="denied") == 0


def test_a_label_has_its_own_count(gateway: Gateway):
    def status(run: str) -> int:
        return gateway.chat(key=key("labels"), headers={"x-ai-run": run}).status_code

    assert [status(run) for run in ("1", "2", "1", "2")] == [200, 200, 429, 429]


def test_a_budget_counts_only_the_models_it_names(gateway: Gateway):
    assert [gateway.chat(model, key=key("models")).status_code for model in ("stub", "stub", "other", "other")] == [
        *(200, 429),
        *(200, 200),
    ]


def test_a_request_that_another_stage_refused_is_free(gateway: Gateway):
    before = left_of(gateway, "tokensa")
    assert gateway.chat("unknown", key=key("tokensa")).status_code == 404
    assert gateway.chat(key=key("tokensa"), n="many").status_code == 400
    assert left_of(gateway, "tokensa") == before


def test_counters_survive_a_restart(start: Start, tmp_path: Path):
    budgets = "  - {name: few, unit: requests, limit: 2, window: day}\n"
    yaml, env = settings("a", budgets, f"sqlite:{tmp_path}/counters.db")
    first: Any = start(yaml, env=env)
    assert first.chat(key=key("a")).status_code == 200
    assert first.stop() == 0
    second = start(yaml, env=env)
    assert second.chat(key=key("a")).status_code == 200
    assert refused(second.chat(key=key("a"))) == (402, "budget_exceeded")
