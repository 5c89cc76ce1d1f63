"""What clients need of headers and of endpoints beside the answers, through Envoy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Gateway, run_gateway
from tests.e2e.scripted import Scripted, plain

SETTINGS = """
providers:
  claude: {kind: anthropic, base_url: "SCRIPTED/v1"}
  gpt: {kind: openai, base_url: "SCRIPTED/v1"}
  bedrock: {kind: aws_bedrock, region: us-east-1, base_url: "SCRIPTED", api_key: env:EXTPROC_DEMO_KEY}
  down: {kind: anthropic, base_url: "http://127.0.0.1:9/v1"}
models:
  claude: {provider: claude}
  gpt: {provider: gpt}
  rock: {provider: bedrock, model: "anthropic.claude-sonnet-4-6-v1:0"}
  lost: {provider: down}
virtual_models:
  over: {targets: [{model: lost}, {model: claude}]}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
budgets:
  - {name: requests, per: [consumer], unit: requests, limit: 1000, window: minute}
stores: {counters: "memory:"}
"""
ASKED = {"max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Scripted]:
    with Scripted().running() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: Scripted) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("clients")
    yield from run_gateway(folder, SETTINGS.replace("SCRIPTED", provider.url), (), {})


def test_rates_of_the_gateways_own_account_are_left_out(gateway: Gateway, provider: Scripted) -> None:
    theirs = [("x-ratelimit-limit-requests", "5"), ("anthropic-ratelimit-requests-limit", "5"), ("x-other", "1")]
    provider.answer(plain(ANSWER, more=theirs))
    headers = gateway.post("/v1/messages", ASKED | {"model": "claude"}).headers
    assert headers["x-other"] == "1"
    assert "anthropic-ratelimit-requests-limit" not in headers
    assert headers["x-ratelimit-limit-requests"] == "1000"


@pytest.mark.parametrize("given", [{}, {"request-id": "req_theirs"}])
def test_the_requests_id_is_where_anthropics_clients_look(
    gateway: Gateway, provider: Scripted, given: dict[str, str]
) -> None:
    provider.answer(plain(ANSWER, more=given.items()))
    headers = gateway.post("/v1/messages", ASKED | {"model": "claude"}).headers
    assert headers["request-id"] == given.get("request-id", headers["x-request-id"])


def test_what_a_provider_says_about_retries_is_kept(gateway: Gateway, provider: Scripted) -> None:
    more = [("x-should-retry", "true")]
    provider.answer(plain({"error": {"message": "wait"}}, status=400, more=more))
    assert gateway.chat("gpt").headers["x-should-retry"] == "true"


@pytest.mark.parametrize(
    ("headers", "betas"),
    [
        ({}, None),
        ({"anthropic-beta": "context-1m-2025-08-07, interleaved-thinking-2025-05-14"}, 2),
    ],
)
def test_betas_are_in_the_body_at_bedrock(
    gateway: Gateway, provider: Scripted, headers: dict[str, str], betas: int | None
) -> None:
    provider.answer(plain(ANSWER))
    assert gateway.post("/v1/messages", ASKED | {"model": "rock"}, headers=headers).status_code == 200
    [body] = provider.seen
    assert (betas and len(body["anthropic_beta"])) == betas
    assert ("anthropic_beta" in body) == bool(betas)
