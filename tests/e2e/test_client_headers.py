"""Headers and queries of clients that providers get, and redirects of providers, through a real Envoy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Gateway, eventually, run_gateway
from tests.e2e.scripted import Scripted, head, plain

YAML = """
providers:
  plain: {kind: openai, base_url: "{mock_plain}"}
  claude: {kind: anthropic, base_url: "{mock_claude}"}
  open: {kind: openai, base_url: "{mock_open}", client_headers: [x-session-id, "x-acme-*", user-agent]}
  away: {kind: openai, base_url: "URL/v1", outlier_detection: {consecutive_5xx: 10000}}
models: {stub: {provider: plain}, claude: {provider: claude}, open: {provider: open}, away: {provider: away}}
virtual_models:
  chain: {targets: [{model: claude}, {model: stub}], retry: {on: [5xx]}}
  moved: {targets: [{model: away}, {model: stub}], retry: {on: [429]}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
stores: {counters: "memory:"}
"""
SENT = {
    "cf-connecting-ip": "192.0.2.1",
    "x-client-ip": "192.0.2.1",
    "via": "1.1 theirs",
    "referer": "https://intern.example/",
    "origin": "https://intern.example",
    "user-agent": "theirs/1.0",
    "openai-organization": "org-theirs",
    "openai-project": "theirs",
    "openai-beta": "responses=v1",
    "anthropic-beta": "context-1m-2025-08-07",
    "idempotency-key": "1",
    "x-session-id": "s-1",
    "x-acme-team": "red",
    "x-stainless-os": "Linux",
    "cookie": "a=b",
}
ALWAYS = {"host", "content-type", "content-length", "accept", "accept-encoding", "user-agent", "transfer-encoding"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: Scripted) -> Iterator[Gateway]:
    text = YAML.replace("URL", provider.url)
    yield from run_gateway(tmp_path_factory.mktemp("headers"), text, ("plain", "claude", "open"), {})


def headers_at(gateway: Gateway, name: str) -> dict[str, str]:
    return dict(gateway.seen(name)[-1]["headers"])


def test_headers_of_clients_stay_at_the_gateway_unless_the_provider_takes_them(gateway: Gateway):
    assert gateway.chat(headers=SENT).status_code == 200
    seen = headers_at(gateway, "plain")
    assert {*seen} - ALWAYS == {"openai-beta"}
    assert seen["user-agent"] == "llm-extproc"
    message = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    assert gateway.post("/v1/messages", message, headers=SENT).status_code == 200
    assert {*headers_at(gateway, "claude")} - ALWAYS == {"anthropic-beta", "anthropic-version"}


def test_an_operator_lets_further_headers_pass(gateway: Gateway):
    assert gateway.chat("open", headers=SENT).status_code == 200
    seen = headers_at(gateway, "open")
    assert {*seen} - ALWAYS == {"openai-beta", "x-session-id", "x-acme-team"}
    assert seen["user-agent"] == "theirs/1.0"


@pytest.mark.parametrize(
    ("query", "left"), [("", ""), ("?", ""), ("?beta=true", "?beta=true"), ("?api-key=x&beta=true&key=y", "?beta=true")]
)
def test_queries_of_clients_stay_at_the_gateway_unless_the_provider_takes_them(gateway: Gateway, query: str, left: str):
    message = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    assert gateway.post(f"/v1/messages{query}", message).status_code == 200
    assert gateway.seen("claude")[-1]["path"] == f"/v1/messages{left}"
    assert gateway.post(f"/v1/chat/completions{query}", {"model": "stub", "messages": []}).status_code < 500
    chat = {"model": "stub", "messages": [{"role": "user", "content": "Hi"}]}
    assert gateway.post(f"/v1/chat/completions{query}", chat).status_code == 200
    assert gateway.seen("plain")[-1]["path"] == "/v1/chat/completions"


def test_a_query_for_one_provider_does_not_reach_the_next(gateway: Gateway):
    """The first target is Anthropic's, which takes `beta`; the second one is not."""
    gateway.fault("claude", "status=503")
    message = {"model": "chain", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    assert gateway.post("/v1/messages?beta=true", message, headers=SENT).status_code == 200
    assert gateway.seen("claude")[-1]["path"] == "/v1/messages?beta=true"
    assert gateway.seen("plain")[-1]["path"] == "/v1/chat/completions"
    assert {*headers_at(gateway, "plain")} - ALWAYS == {"openai-beta"}
    gateway.reset()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
def test_a_redirect_never_reaches_the_client(gateway: Gateway, provider: Scripted, status: int, stream: bool):
    """Clients that followed it would send the gateway's key there."""
    where = [("location", "https://evil.example/"), ("refresh", "0; url=https://evil.example/")]
    provider.answer(head(None, 304, where) if status == 304 else plain({}, status=status, more=where))
    answer = gateway.chat("away", stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_bad_answer")
    assert "evil.example" not in str(answer.headers) + answer.text


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_after_a_redirect_the_next_target_is_tried(gateway: Gateway, provider: Scripted, status: int):
    where = [("location", gateway.mocks["open"] + "/v1/chat/completions")]
    provider.answer(head(None, 304, where) if status == 304 else plain({}, status=status, more=where))
    gateway.reset()
    answer = gateway.chat("moved")
    assert (answer.status_code, answer.headers["x-ai-provider"], answer.headers["x-ai-attempts"]) == (200, "plain", "2")
    assert (len(gateway.seen("open")), "location" in answer.headers) == (0, False), "nobody follows it"
    eventually(lambda: gateway.metric("extproc_tries_total", provider="away", outcome="3xx") > 0)


@pytest.mark.parametrize("status", [200, 201, 400, 500])
def test_a_location_never_reaches_the_client(gateway: Gateway, provider: Scripted, status: int):
    where = [("location", "https://evil.example/"), ("content-location", "https://evil.example/")]
    provider.answer(plain({}, status=status, more=where))
    answer = gateway.chat("away")
    assert answer.status_code == status
    assert "evil.example" not in str(answer.headers)
