"""One name, several targets: the failures that make Envoy go on to the next target, those that do not, and the error
the client gets.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import KEY, Gateway, chat_body, eventually, free_ports, run_gateway
from tests.envoy_config.conftest import certificate  # noqa: F401 - a fixture

CLOSED, SECURE = free_ports(2)
# No provider is ejected and none cools down, so each test begins with a clean state.
CALM = "outlier_detection: {consecutive_5xx: 10000}, cool_down: {default: 0s, longest: 0s}"
SETTINGS = f"""
providers:
  a: {{kind: mock, base_url: "{{mock_a}}", api_key: env:KEY_A, {CALM}}}
  b: {{kind: mock, base_url: "{{mock_b}}", {CALM}}}
  c: {{kind: mock, base_url: "{{mock_c}}", {CALM}}}
  slow: {{kind: mock, base_url: "{{mock_a}}", timeout: 500ms, {CALM}}}
  small: {{kind: mock, base_url: "{{mock_small}}", max_requests: 1}}
  fragile:
    kind: mock
    base_url: "{{mock_fragile}}"
    outlier_detection: {{consecutive_5xx: 2, interval: 100ms, base_ejection_time: 300s}}
  closed: {{kind: openai, base_url: "http://127.0.0.1:{CLOSED}/v1", {CALM}}}
  babbler: {{kind: openai, base_url: "{{babbler}}/v1", {CALM}}}
  secure: {{kind: openai, base_url: "https://localhost:{SECURE}/v1", tls_ca: "{{ca}}", {CALM}}}
  late: {{kind: openai, base_url: "https://localhost:{SECURE}/v1", tls_ca: "{{ca}}", connect_timeout: 100ms, {CALM}}}
models:
  model-a: {{provider: a, model: name-at-a}}
  model-b: {{provider: b, model: name-at-b}}
  model-c: {{provider: c, model: name/at-c}}
  model-slow: {{provider: slow, model: name-at-a}}
  model-hasty: {{provider: a, model: name-at-a, timeout: 500ms}}
  model-small: {{provider: small}}
  model-fragile: {{provider: fragile}}
  model-closed: {{provider: closed}}
  model-babbler: {{provider: babbler}}
  model-secure: {{provider: secure, model: name-at-secure}}
  model-late: {{provider: late}}
virtual_models:
  two: {{targets: [{{model: model-a}}, {{model: model-b}}]}}
  three: {{targets: [{{model: model-a}}, {{model: model-b}}, {{model: model-c}}]}}
  twice: {{targets: [{{model: model-a, tries: 2}}, {{model: model-b}}]}}
  impatient:
    targets: [{{model: model-a}}, {{model: model-b}}]
    retry: {{per_try_timeout: 500ms, per_try_timeout_stream: 500ms}}
  slow-first: {{targets: [{{model: model-slow}}, {{model: model-b}}]}}
  at-most-two: {{targets: [{{model: model-a}}, {{model: model-b}}, {{model: model-c}}], retry: {{attempts: 2}}}}
  only-429: {{targets: [{{model: model-a}}, {{model: model-b}}], retry: {{on: ["429"]}}}}
  closed-first: {{targets: [{{model: model-closed}}, {{model: model-b}}]}}
  unreachable: {{targets: [{{model: model-closed, tries: 2}}]}}
  small-first: {{targets: [{{model: model-small}}, {{model: model-b}}]}}
  fragile-first: {{targets: [{{model: model-fragile}}, {{model: model-b}}]}}
  babbler-first: {{targets: [{{model: model-babbler}}, {{model: model-b}}]}}
  secure-second: {{targets: [{{model: model-a}}, {{model: model-secure}}]}}
  late-first: {{targets: [{{model: model-late}}, {{model: model-b}}]}}
consumers:
  - {{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}]}}
  - {{name: partly, keys: [{{env: PARTLY_KEY}}], models: [two, model-b]}}
  - {{name: counted, keys: [{{env: COUNTED_KEY}}]}}
budgets:
  - {{name: six, match: {{consumer: counted}}, unit: requests, limit: 6, window: total}}
  - {{name: one-at-a, match: {{consumer: counted, provider: a}}, unit: requests, limit: 1, window: total}}
limits: {{request_body: 8MiB}}
stores: {{counters: "memory:"}}
"""


class Babbler:
    """A server that listens at a provider's address and does not speak HTTP."""

    def __init__(self) -> None:
        self.says = b""
        self.asked = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                self.asked += 1
                connection.sendall(self.says)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture(scope="module")
def babbler() -> Iterator[Babbler]:
    server = Babbler()
    yield server
    server.close()


@pytest.fixture(scope="module")
def tls_mock(certificate: tuple[Path, Path]) -> Iterator[Path]:  # noqa: F811
    """A provider with a slow TLS handshake and large answers. Gives its certificate."""
    cert, key = map(str, certificate)
    command = [sys.executable, "-m", "tests.doubles", "--port", str(SECURE), "--fault", "size=5MB"]
    command += ["--tls-cert", cert, "--tls-key", key, "--tls-delay", "300ms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"listening" in process.stdout.readline()
        try:
            yield certificate[0]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def shared(babbler: Babbler, tls_mock: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("failover")
    keys = {"KEY_A": "sk-provider-a", "PARTLY_KEY": "sk-gw-partly", "COUNTED_KEY": "sk-gw-counted"}
    yaml = SETTINGS.replace("{babbler}", babbler.url).replace("{ca}", str(tls_mock))
    yield from run_gateway(folder, yaml, ("a", "b", "c", "small", "fragile"), keys)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


def told(answer: httpx.Response) -> tuple[str, ...]:
    return tuple(answer.headers.get(f"x-ai-{name}", "") for name in ("provider", "model", "attempts"))


def error(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and origin of an answer in OpenAI's error shape."""
    document = answer.json()["error"]
    assert set(document) == {"message", "type", "param", "code"}
    assert document["message"]
    return answer.status_code, document["code"], answer.headers["x-ai-error-origin"]


def failed(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """Provider and outcome of each failed try in a record."""
    assert all(try_["ms"] >= 0 and try_["target"] for try_ in entry.get("tries", []))
    return [(try_["provider"], try_["outcome"]) for try_ in entry.get("tries", [])]


def models(gateway: Gateway, name: str) -> list[str]:
    return [seen["body"]["model"] for seen in gateway.seen(name)]


class Counts:
    """Metrics of one request that fails over once, from `first` to b."""

    def __init__(self, gateway: Gateway, first: str, outcome: str) -> None:
        self._gateway = gateway
        self.failed = (first, outcome)
        self._wanted: dict[tuple[str, frozenset[tuple[str, str]]], float] = {
            ("extproc_tries_total", frozenset({("provider", first), ("outcome", outcome)})): 1,
            ("extproc_tries_total", frozenset({("provider", first)})): 1,
            ("extproc_tries_total", frozenset({("provider", "b"), ("outcome", "ok")})): 1,
            ("extproc_failovers_total", frozenset({("provider", "b")})): 1,
            ("gen_ai_client_inference_operation_input_tokens_count", frozenset()): 1,
            ("gen_ai_client_inference_usage_input_tokens_total", frozenset()): 1,  # "Hello"
        }
        self._before = self._now()

    def _now(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        metrics = self._gateway.metrics(*{name for name, _ in self._wanted})
        return {
            (name, labels): sum(v for (found, have), v in metrics.items() if found == name and labels <= set(have))
            for name, labels in self._wanted
        }

    def check(self) -> None:
        def missing() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
            now = self._now()
            return {
                key: now[key] - self._before[key] for key in now if now[key] - self._before[key] != self._wanted[key]
            }

        with contextlib.suppress(AssertionError):
            eventually(lambda: not missing())
        assert missing() == {}


def check_served_by_b(gateway: Gateway, answer: httpx.Response, counts: Counts, *, stream: bool) -> None:
    """One complete answer of b's, at the second try, charged once."""
    assert answer.status_code == 200, answer.text
    assert told(answer) == ("b", "name-at-b", "2")
    assert models(gateway, "b") == ["name-at-b"]
    if stream:
        assert answer.text.count("data: [DONE]") == 1
    else:
        assert answer.json()["model"] == "name-at-b"
    entry = gateway.exchange_of(answer)
    assert (entry["attempts"], entry["provider"], entry["usage_source"]) == (2, "b", "provider")
    assert failed(entry) == [counts.failed]
    counts.check()


def check_both(gateway: Gateway, first: str, outcome: str) -> None:
    """A plain and a streamed request to `<first>-first`."""
    for stream in (False, True):
        gateway.http.delete(gateway.mocks["b"] + "/control").raise_for_status()
        counts = Counts(gateway, first, outcome)
        check_served_by_b(gateway, gateway.chat(f"{first}-first", stream=stream), counts, stream=stream)


streamed = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


@streamed
@pytest.mark.parametrize(
    ("model", "fault", "outcome"),
    [
        ("two", "status=500", "5xx"),
        ("two", "status=503", "5xx"),
        ("two", "status=503+retry_after=7", "5xx"),
        ("two", "status=529", "5xx"),
        ("two", "status=502+garbage", "5xx"),
        ("two", "garbage", "other"),
        ("two", "garbage+pause=300ms", "other"),
        ("two", "status=503+pause=300ms", "5xx"),
        ("two", "status=401+pause=300ms", "401"),
        ("two", "status=503+size=5MB", "5xx"),
        ("two", "status=408", "408"),
        ("two", "status=429", "429"),
        ("two", "status=429+retry_after=7", "429"),
        ("two", "status=401", "401"),
        ("two", "status=403", "403"),
        ("two", "reset", "reset"),
        ("impatient", "hang", "timeout"),
        ("impatient", "delay=5s", "timeout"),
        ("impatient", "delay=5s+status=503", "timeout"),
        ("slow-first", "hang", "timeout"),
        ("slow-first", "delay=5s", "timeout"),
    ],
)
def test_the_next_target_answers_when_the_first_fails(
    gateway: Gateway, model: str, fault: str, outcome: str, stream: bool
):
    gateway.fault("a", fault)
    counts = Counts(gateway, "slow" if model == "slow-first" else "a", outcome)
    check_served_by_b(gateway, gateway.chat(model, stream=stream), counts, stream=stream)
    assert models(gateway, "a") == ["name-at-a"]
    if outcome == "timeout":
        eventually(lambda: gateway.seen("a")[0]["aborted"])


@pytest.mark.parametrize("model", ["model-slow", "model-hasty"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_alone_waits_as_long_as_it_or_its_provider_says(gateway: Gateway, model: str, stream: bool):
    gateway.fault("a", "delay=5s")
    answer = gateway.chat(model, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "provider_timeout")


@pytest.mark.parametrize("first", ["closed", "late"])
def test_the_next_target_answers_when_the_first_cannot_be_reached(gateway: Gateway, first: str):
    check_both(gateway, first, "connect")


@streamed
@pytest.mark.parametrize(
    "says",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
     b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\ncontent-type: te", b""],
    ids=["ssh", "tls", "length", "status cut", "head cut", "nothing"],
)  # fmt: skip
def test_the_next_target_answers_when_the_first_speaks_no_http(
    gateway: Gateway, babbler: Babbler, says: bytes, stream: bool
):
    babbler.says, asked = says, babbler.asked
    counts = Counts(gateway, "babbler", "reset")
    check_served_by_b(gateway, gateway.chat("babbler-first", stream=stream), counts, stream=stream)
    assert babbler.asked == asked + 1


def test_the_next_target_answers_when_the_first_is_full(gateway: Gateway):
    gateway.fault("small", "words=200+pace=100ms")
    with gateway.stream("model-small") as slow:
        pieces = slow.iter_raw()
        next(pieces)
        check_both(gateway, "small", "overflow")
        assert len(gateway.seen("small")) == 1
        full = gateway.chat("model-small")
        assert error(full) == (503, "no_provider_available", "gateway")
        assert "has 1 requests in flight, its max_requests" in full.json()["error"]["message"]


def test_a_target_that_keeps_failing_is_not_asked_where_another_is_left(gateway: Gateway):
    gateway.fault("fragile", "status=503")

    def passed_over() -> bool:
        before = len(gateway.seen("fragile"))
        answer = gateway.chat("fragile-first")
        assert told(answer)[0] == "b"
        assert gateway.exchange_of(answer)  # a record with failed tries comes later
        return len(gateway.seen("fragile")) == before

    eventually(passed_over)
    assert len(gateway.seen("fragile")) >= 2
    alone = gateway.chat("model-fragile")
    assert (alone.status_code, alone.headers["x-ai-error-origin"]) == (503, "provider")


def test_a_client_is_charged_once_for_several_tries(gateway: Gateway):
    for fault in ("status=503", "status=429", "reset", "status=401", "hang", "delay=5s"):
        gateway.fault("a", fault)
        assert told(gateway.chat("impatient", key="sk-gw-counted")) == ("b", "name-at-b", "2")
    # Six of six requests were served, and a, whose budget is one request, was not charged.
    assert error(gateway.chat("impatient", key="sk-gw-counted")) == (402, "budget_exceeded", "gateway")
    assert len(gateway.seen("a")) == len(gateway.seen("b")) == 6


def test_the_order_goes_on_to_the_third_target(gateway: Gateway):
    gateway.fault("a", "status=503")
    gateway.fault("b", "reset")
    assert told(gateway.chat("three")) == ("c", "name/at-c", "3")
    assert models(gateway, "c") == ["name/at-c"]


def test_embeddings_fail_over_too(gateway: Gateway):
    gateway.fault("a", "status=503")
    answer = gateway.post("/v1/embeddings", {"model": "two", "input": "one"})
    assert (told(answer), answer.json()["model"]) == (("b", "name-at-b", "2"), "name-at-b")


def test_a_target_may_appear_in_the_order_twice(gateway: Gateway):
    gateway.fault("a", "status=503+first=1")
    assert told(gateway.chat("twice")) == ("a", "name-at-a", "2")
    gateway.fault("a", "status=503")
    assert told(gateway.chat("twice")) == ("b", "name-at-b", "3")


def test_tries_never_exceed_max_attempts(gateway: Gateway):
    for name in "ab":
        gateway.fault(name, "status=503")
    assert error(gateway.chat("at-most-two")) == (503, "mock_fault", "provider")
    assert gateway.seen("c") == []


def test_only_the_listed_statuses_are_retried(gateway: Gateway):
    gateway.fault("a", "status=503")
    assert told(gateway.chat("only-429")) == ("a", "name-at-a", "1")
    gateway.fault("a", "status=429")
    assert told(gateway.chat("only-429")) == ("b", "name-at-b", "2")


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_bad_request_is_not_retried(gateway: Gateway, status: int):
    gateway.fault("a", f"status={status}")
    assert error(gateway.chat("two")) == (status, "mock_fault", "provider")
    assert gateway.seen("b") == []


def test_a_target_without_a_grant_is_left_out(gateway: Gateway):
    assert told(gateway.chat("two", key="sk-gw-partly")) == ("b", "name-at-b", "1")
    assert gateway.seen("a") == []


@pytest.mark.parametrize("fault", ["status=503", "reset", "status=503+size=5MB"])
@pytest.mark.parametrize(("model", "second"), [("two", "b"), ("secure-second", "secure")])
def test_large_bodies_survive_a_failover_in_both_directions(gateway: Gateway, model: str, second: str, fault: str):
    """Five megabytes up, twice, and five down. `secure` is a provider whose TLS handshake takes 300 ms."""
    gateway.fault("a", fault)
    gateway.fault("b", "size=5MB")
    answer = gateway.chat(model, "word " * 1_000_000)
    assert told(answer) == (second, f"name-at-{second}", "2")
    assert answer.json()["usage"]["prompt_tokens"] == 1_000_000
    assert len(answer.content) == 5_000_000
    assert gateway.seen("a")[0]["body_length"] > 5_000_000
    if second == "b":
        assert gateway.seen("b")[0]["body_length"] == gateway.seen("a")[0]["body_length"]
    assert gateway.exchange_of(answer)["input_tokens"] == 1_000_000


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


@pytest.mark.parametrize(
    ("fault", "events"), [("reset=3", 3), ("cut=3", 3), ("cut=0", 0), ("reset=3", None), ("cut=3", None)]
)
def test_an_answer_that_has_begun_is_not_started_again(gateway: Gateway, fault: str, events: int | None):
    """Cut after so many events, or (None) in the middle of a plain answer. The client sees that the answer is
    incomplete.
    """
    gateway.fault("a", fault + "+words=50")

    def counted() -> list[float]:  # earlier tests may still be counted, but none with an answer that was cut
        ended = gateway.metric("extproc_usage_total", source="estimated")
        return [ended, gateway.metric("extproc_tries_total", outcome="cut")]

    before = counted()
    body, stream = b"", events is not None
    headers = {"authorization": f"Bearer {KEY}"}
    request = gateway.http.stream(
        "POST", gateway.base_url + "/chat/completions", json=chat_body("two", stream=stream), headers=headers
    )
    with pytest.raises(httpx.RemoteProtocolError), request as answer:
        assert (answer.status_code, told(answer)) == (200, ("a", "name-at-a", "1"))
        for chunk in answer.iter_raw():
            body += chunk
    assert b"[DONE]" not in body
    if stream:
        assert body.count(b"data:") == events
    assert gateway.seen("b") == []
    entry = gateway.last(lambda entry: entry["request_id"] == answer.headers["x-request-id"])
    assert (entry["complete"], entry["attempts"], entry["usage_source"]) == (False, 1, "estimated")
    eventually(lambda: counted() == [count + 1 for count in before])
    assert gateway.metric("extproc_tries_total", provider="a", outcome="cut") >= 1


@pytest.mark.parametrize("fault", ["status=503", "status=500", "status=504", "status=429+retry_after=7"])
def test_the_last_providers_error_reaches_the_client_unchanged(gateway: Gateway, fault: str):
    for name in "ab":
        gateway.fault(name, fault)
    answer = gateway.chat("two")
    assert told(answer) == ("b", "name-at-b", "2")
    assert answer.headers["x-ai-error-origin"] == "provider"
    direct = gateway.direct("b", chat_body("name-at-b"))
    assert (answer.status_code, answer.content) == (direct.status_code, direct.content)
    usual = "1" if fault == "status=503" else None  # from the gateway
    assert answer.headers.get("retry-after") == direct.headers.get("retry-after", usual)
    [try_] = gateway.exchange_of(answer)["tries"]
    assert (try_["target"], try_["status"]) == ("model-a", answer.status_code)


@pytest.mark.parametrize("model", ["unreachable", "model-closed"])
def test_a_chain_of_unreachable_targets_is_a_503(gateway: Gateway, model: str):
    answer = gateway.chat(model)
    assert error(answer) == (503, "no_provider_available", "gateway")
    assert str(CLOSED) not in answer.text
    entry = gateway.exchange_of(answer)
    assert entry["usage_source"] == "none"
    assert failed(entry) == [("closed", "connect")] * entry["attempts"]


def test_a_chain_of_silent_targets_is_a_504(gateway: Gateway):
    for name in "ab":
        gateway.fault(name, "hang")
    answer = gateway.chat("impatient")
    assert error(answer) == (504, "provider_timeout", "gateway")
    assert failed(gateway.exchange_of(answer)) == [("a", "timeout"), ("b", "timeout")]


@pytest.mark.parametrize("model", ["model-a", "two"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_the_provider_rejects_is_reported_as_the_gateways_fault(gateway: Gateway, model: str, status: int):
    for name in "ab":
        gateway.fault(name, f"status={status}")
    name, tries = "extproc_provider_credentials_rejected_total", 1 if model == "model-a" else 2
    before = gateway.metric(name)
    answer = gateway.chat(model)
    assert error(answer) == (502, "provider_credential_rejected", "provider")
    assert gateway.exchange_of(answer)["usage_source"] == "none"
    eventually(lambda: gateway.metric(name) == before + tries)


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
    for fault in ("status=503", "status=429", "reset"):
        gateway.fault("a", fault)
        assert gateway.chat("two").status_code == 200
    gateway.fault("a", "hang")
    for model in ("slow-first", "closed-first"):
        assert gateway.chat(model).status_code == 200
    added: dict[Any, int] = dict.fromkeys(wanted, 1) | {("b", "model-b", "ok"): 5}
    eventually(lambda: {key: count(*key) - before[key] for key in wanted} == added)
    assert gateway.metric("extproc_failovers_total", provider="b") == failovers + 5


def test_many_concurrent_failovers_all_succeed(gateway: Gateway):
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
