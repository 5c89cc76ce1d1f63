"""One name, several targets: what makes Envoy go on to the next one, what does not, and what the client is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import KEY, Gateway, chat_body, eventually, free_ports, run_gateway

(CLOSED,) = free_ports(1)
SETTINGS = f"""
providers:
  a: {{kind: mock, base_url: "{{mock_a}}", api_key: env:KEY_A, outlier_detection: {{consecutive_5xx: 10000}}}}
  b: {{kind: mock, base_url: "{{mock_b}}", outlier_detection: {{consecutive_5xx: 10000}}}}
  c: {{kind: mock, base_url: "{{mock_c}}", outlier_detection: {{consecutive_5xx: 10000}}}}
  slow: {{kind: mock, base_url: "{{mock_c}}", timeout: 500ms, outlier_detection: {{consecutive_5xx: 10000}}}}
  small: {{kind: mock, base_url: "{{mock_small}}", max_requests: 1}}
  fragile:
    kind: mock
    base_url: "{{mock_fragile}}"
    outlier_detection: {{consecutive_5xx: 2, interval: 100ms, base_ejection_time: 300s}}
  closed: {{kind: openai, base_url: "http://127.0.0.1:{CLOSED}/v1", outlier_detection: {{consecutive_5xx: 10000}}}}
models:
  model-a: {{provider: a, model: name-at-a}}
  model-b: {{provider: b, model: name-at-b}}
  model-c: {{provider: c, model: name/at-c}}
  model-slow: {{provider: slow}}
  model-small: {{provider: small}}
  model-fragile: {{provider: fragile}}
  model-closed: {{provider: closed}}
virtual_models:
  two: {{targets: [{{model: model-a}}, {{model: model-b}}]}}
  three: {{targets: [{{model: model-a}}, {{model: model-b}}, {{model: model-c}}]}}
  twice: {{targets: [{{model: model-a}}, {{model: model-a}}, {{model: model-b}}]}}
  impatient:
    targets: [{{model: model-a}}, {{model: model-b}}]
    retry: {{per_try_timeout: 500ms, per_try_timeout_stream: 500ms}}
  slow-first: {{targets: [{{model: model-slow}}, {{model: model-b}}]}}
  at-most-two: {{targets: [{{model: model-a}}, {{model: model-b}}, {{model: model-c}}], retry: {{attempts: 2}}}}
  only-429: {{targets: [{{model: model-a}}, {{model: model-b}}], retry: {{on: ["429"]}}}}
  unreachable-first: {{targets: [{{model: model-closed}}, {{model: model-b}}]}}
  unreachable: {{targets: [{{model: model-closed}}, {{model: model-closed}}]}}
  busy-first: {{targets: [{{model: model-small}}, {{model: model-b}}]}}
  fragile-first: {{targets: [{{model: model-fragile}}, {{model: model-b}}]}}
consumers:
  - {{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}]}}
  - {{name: partly, keys: [{{env: PARTLY_KEY}}], models: [two, model-b]}}
limits: {{request_body: 2MiB}}
stores: {{counters: "memory:"}}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("failover")
    keys = {"KEY_A": "sk-provider-a", "PARTLY_KEY": "sk-gw-partly"}
    yield from run_gateway(folder, SETTINGS, ("a", "b", "c", "small", "fragile"), keys)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.reset()
    return shared


def told(answer: httpx.Response) -> tuple[str, ...]:
    return tuple(answer.headers.get(f"x-ai-{name}", "") for name in ("provider", "model", "attempts"))


def error(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and whose error it is, of an answer in OpenAI's shape."""
    document = answer.json()["error"]
    assert set(document) == {"message", "type", "param", "code"}
    assert document["message"]
    return answer.status_code, document["code"], answer.headers["x-ai-error-origin"]


def models(gateway: Gateway, name: str) -> list[str]:
    return [seen["body"]["model"] for seen in gateway.seen(name)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault", ["status=503", "status=500", "status=529", "status=429+retry_after=7", "status=401", "status=403",
              "status=408", "reset"],
)  # fmt: skip
def test_the_next_target_answers_when_the_first_fails(gateway: Gateway, fault: str, stream: bool):
    gateway.fault("a", fault)
    answer = gateway.chat("two", stream=stream)
    assert answer.status_code == 200, answer.text
    assert told(answer) == ("b", "name-at-b", "2")
    assert models(gateway, "a") == ["name-at-a"]
    assert models(gateway, "b") == ["name-at-b"]
    entry = gateway.exchange_of(answer)
    assert (entry["attempts"], entry["provider"], entry["usage_source"]) == (2, "b", "provider")


@pytest.mark.parametrize("stream", [False, True])
def test_the_next_target_answers_when_the_first_hangs(gateway: Gateway, stream: bool):
    gateway.fault("a", "hang")
    answer = gateway.chat("impatient", stream=stream)
    assert (answer.status_code, told(answer)) == (200, ("b", "name-at-b", "2"))
    eventually(lambda: gateway.seen("a")[0]["aborted"])
    eventually(lambda: gateway.metric("extproc_tries_total", provider="a", outcome="timeout") >= 1)


def test_the_next_target_answers_when_nobody_listens_at_the_first(gateway: Gateway):
    assert told(gateway.chat("unreachable-first")) == ("b", "name-at-b", "2")


def test_the_next_target_answers_when_the_first_is_full(gateway: Gateway):
    gateway.fault("small", "words=100+pace=100ms")
    with gateway.stream("model-small") as slow:
        pieces = slow.iter_raw()
        next(pieces)
        answer = gateway.chat("busy-first")
        assert told(answer) == ("b", "name-at-b", "2")
        assert len(gateway.seen("small")) == 1
        assert error(gateway.chat("model-small")) == (503, "no_provider_available", "gateway")
    eventually(lambda: gateway.metric("extproc_tries_total", provider="small", outcome="overflow") >= 2)


def test_an_ejected_target_is_not_asked_again(gateway: Gateway):
    gateway.fault("fragile", "status=503")

    def ejected() -> bool:
        before = len(gateway.seen("fragile"))
        assert told(gateway.chat("fragile-first"))[0] == "b"
        return len(gateway.seen("fragile")) == before

    eventually(ejected)
    assert error(gateway.chat("model-fragile")) == (503, "no_provider_available", "gateway")
    eventually(lambda: gateway.metric("extproc_tries_total", provider="fragile", outcome="unhealthy") >= 2)


def test_the_order_goes_on_to_the_third_target(gateway: Gateway):
    gateway.fault("a", "status=503")
    gateway.fault("b", "reset")
    assert told(gateway.chat("three")) == ("c", "name/at-c", "3")
    assert models(gateway, "c") == ["name/at-c"]


def test_embeddings_fail_over_too(gateway: Gateway):
    gateway.fault("a", "status=503")
    answer = gateway.post("/v1/embeddings", {"model": "two", "input": "one"})
    assert (told(answer), answer.json()["model"]) == (("b", "name-at-b", "2"), "name-at-b")


def test_a_target_may_stand_in_the_order_twice(gateway: Gateway):
    gateway.fault("a", "status=503+first=1")
    assert told(gateway.chat("twice")) == ("a", "name-at-a", "2")
    gateway.fault("a", "status=503")
    assert told(gateway.chat("twice")) == ("b", "name-at-b", "3")


def test_there_are_no_more_tries_than_attempts_allows(gateway: Gateway):
    for name in "ab":
        gateway.fault(name, "status=503")
    assert error(gateway.chat("at-most-two")) == (503, "mock_fault", "provider")
    assert gateway.seen("c") == []


def test_only_what_is_listed_is_retried(gateway: Gateway):
    gateway.fault("a", "status=503")
    assert told(gateway.chat("only-429")) == ("a", "name-at-a", "1")
    gateway.fault("a", "status=429")
    assert told(gateway.chat("only-429")) == ("b", "name-at-b", "2")


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_bad_request_is_not_tried_elsewhere(gateway: Gateway, status: int):
    gateway.fault("a", f"status={status}")
    assert error(gateway.chat("two")) == (status, "mock_fault", "provider")
    assert gateway.seen("b") == []


def test_a_target_that_is_not_granted_is_left_out(gateway: Gateway):
    assert told(gateway.chat("two", key="sk-gw-partly")) == ("b", "name-at-b", "1")
    assert gateway.seen("a") == []


def test_a_large_body_is_carried_to_the_second_try(gateway: Gateway):
    gateway.fault("a", "status=503")
    text = "word " * 180_000
    answer = gateway.chat("two", text)
    assert told(answer) == ("b", "name-at-b", "2")
    assert answer.json()["usage"]["prompt_tokens"] == 180_000
    first, second = (gateway.seen(name)[0]["body_length"] for name in "ab")
    assert first == second > 900_000


def test_providers_see_their_own_key_and_nothing_of_the_gateway_or_the_client(gateway: Gateway):
    gateway.fault("a", "status=503")
    spoofed = {"x-extproc-targets": "x=y", "x-envoy-max-retries": "0", "x-ai-agent": "planner", "x-api-key": KEY,
               "cookie": "session=1", "x-forwarded-for": "203.0.113.9"}  # fmt: skip
    assert told(gateway.chat("two", headers=spoofed)) == ("b", "name-at-b", "2")
    for name, key in (("a", "Bearer sk-provider-a"), ("b", None)):
        headers = dict(gateway.seen(name)[0]["headers"])
        assert headers.get("authorization") == key
        private = ("x-extproc-", "x-envoy-", "x-ai-", "x-api-key", "api-key", "cookie", "x-forwarded-")
        assert not [header for header in headers if header.startswith(private)]
        assert KEY not in json.dumps(gateway.seen(name))
        assert headers["host"] == gateway.mocks[name].removeprefix("http://")


@pytest.mark.parametrize("fault", ["reset=3", "cut=3"])
def test_an_answer_that_began_is_never_begun_again(gateway: Gateway, fault: str):
    gateway.fault("a", fault + "+words=50")
    body = b""
    with pytest.raises(httpx.RemoteProtocolError), gateway.stream("two") as answer:
        assert told(answer) == ("a", "name-at-a", "1")
        for chunk in answer.iter_raw():
            body += chunk
    assert body.count(b"data:") == 3
    assert gateway.seen("b") == []
    entry = gateway.last(lambda entry: entry["request_id"] == answer.headers["x-request-id"])
    assert (entry["complete"], entry["usage_source"]) == (False, "estimated")
    eventually(lambda: gateway.metric("extproc_tries_total", provider="a", outcome="cut") >= 1)


@pytest.mark.parametrize("fault", ["status=503", "status=500", "status=504", "status=429+retry_after=7"])
def test_the_last_providers_error_reaches_the_client_untouched(gateway: Gateway, fault: str):
    for name in "ab":
        gateway.fault(name, fault)
    answer = gateway.chat("two")
    assert told(answer) == ("b", "name-at-b", "2")
    assert answer.headers["x-ai-error-origin"] == "provider"
    direct = gateway.direct("b", chat_body("name-at-b"))
    assert (answer.status_code, answer.content) == (direct.status_code, direct.content)
    assert answer.headers.get("retry-after") == direct.headers.get("retry-after")


@pytest.mark.parametrize("model", ["unreachable", "model-closed"])
def test_nobody_can_be_reached(gateway: Gateway, model: str):
    answer = gateway.chat(model)
    assert error(answer) == (503, "no_provider_available", "gateway")
    assert str(CLOSED) not in answer.text
    assert gateway.exchange_of(answer)["usage_source"] == "none"


def test_nobody_answers_in_time(gateway: Gateway):
    for name in "ab":
        gateway.fault(name, "hang")
    assert error(gateway.chat("impatient")) == (504, "provider_timeout", "gateway")


@pytest.mark.parametrize("model", ["model-a", "two"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_the_provider_refuses_is_the_gateways_fault(gateway: Gateway, model: str, status: int):
    for name in "ab":
        gateway.fault(name, f"status={status}")
    answer = gateway.chat(model)
    assert error(answer)[:2] == (502, "provider_credential_rejected")
    assert answer.headers["x-ai-error-origin"] == "provider"


def test_tries_are_counted_by_provider_and_outcome(gateway: Gateway):
    def count(provider: str, model: str, outcome: str) -> float:
        return gateway.metric("extproc_tries_total", provider=provider, model=model, outcome=outcome)

    wanted = [
        *(("a", "model-a", outcome) for outcome in ("5xx", "429", "reset")),
        ("slow", "model-slow", "timeout"),
        ("closed", "model-closed", "connect"),
        ("b", "model-b", "ok"),
    ]
    before = {key: count(*key) for key in wanted}
    failovers = gateway.metric("extproc_failovers_total", provider="b")
    gateway.fault("c", "hang")
    for fault in ("status=503", "status=429", "reset"):
        gateway.fault("a", fault)
        assert gateway.chat("two").status_code == 200
    for model in ("slow-first", "unreachable-first"):
        assert gateway.chat(model).status_code == 200
    added: dict[Any, int] = dict.fromkeys(wanted, 1) | {("b", "model-b", "ok"): 5}
    eventually(lambda: {key: count(*key) - before[key] for key in wanted} == added)
    assert gateway.metric("extproc_failovers_total", provider="b") == failovers + 5


def test_many_failovers_at_once_all_succeed(gateway: Gateway):
    gateway.fault("a", "status=503+every=2")
    gateway.fault("b", "reset+every=2")
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(gateway.chat("three"))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [answer.status_code for answer in answers] == [200] * 40
    for answer in answers:
        provider, model, attempts = told(answer)
        assert (provider, model) == {"1": ("a", "name-at-a"), "2": ("b", "name-at-b"), "3": ("c", "name/at-c")}[
            attempts
        ]
        assert answer.json()["model"] == model
