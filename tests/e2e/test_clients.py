"""What clients need of headers and of endpoints beside the answers, through Envoy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from tests.e2e.conftest import KEY, Gateway, chat_body, run_gateway
from tests.e2e.scripted import Scripted, plain

SETTINGS = """
providers:
  claude: {kind: anthropic, base_url: "SCRIPTED/v1"}
  gpt: {kind: openai, base_url: "SCRIPTED/v1"}
  bedrock: {kind: aws_bedrock, region: us-east-1, base_url: "SCRIPTED", api_key: env:EXTPROC_DEMO_KEY}
  mistral: {kind: mistral_ai, base_url: "{mock_mistral}"}
  down: {kind: anthropic, base_url: "http://127.0.0.1:9/v1"}
models:
  claude: {provider: claude}
  gpt: {provider: gpt}
  rock: {provider: bedrock, model: "anthropic.claude-sonnet-4-6-v1:0"}
  mistral-large-latest: {provider: mistral}
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
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: Scripted) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("clients")
    yield from run_gateway(folder, SETTINGS.replace("SCRIPTED", provider.url), ("mistral",), {})


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


VERSION = {"anthropic-version": "2023-06-01", "authorization": f"Bearer {KEY}"}


def test_the_list_of_models_has_the_shape_of_anthropics_clients(gateway: Gateway) -> None:
    with Anthropic(base_url=gateway.url, auth_token=KEY, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == [
            "claude",
            "gpt",
            "rock",
            "mistral-large-latest",
            "lost",
            "over",
        ]
        assert client.models.retrieve("gpt").display_name == "gpt"
        with pytest.raises(anthropic.NotFoundError):
            client.models.retrieve("none")
    plain_list = gateway.http.get(gateway.base_url + "/models", headers={"authorization": f"Bearer {KEY}"}).json()
    assert plain_list["object"] == "list"


def test_a_path_nobody_serves_has_the_shape_of_anthropics_clients(gateway: Gateway) -> None:
    answer = gateway.http.get(gateway.base_url + "/vector_stores", headers=VERSION)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")


def test_tokens_are_estimated_when_no_provider_counts(gateway: Gateway) -> None:
    """The next target is asked before that."""
    body = {"model": "lost", "messages": ASKED["messages"]}
    answer = gateway.post("/v1/messages/count_tokens", body)
    assert (answer.status_code, answer.json().keys()) == (200, {"input_tokens"})


def test_the_next_provider_counts_tokens(gateway: Gateway, provider: Scripted) -> None:
    provider.answer(plain({"input_tokens": 4711}))
    body = {"model": "over", "messages": ASKED["messages"]}
    assert gateway.post("/v1/messages/count_tokens", body).json() == {"input_tokens": 4711}


@pytest.mark.parametrize(
    ("headers", "session"),
    [
        ({"x-claude-code-session-id": "one"}, "one"),
        ({"session-id": "two"}, "two"),
        ({"session-id": "two", "x-ai-session": "mine"}, "mine"),
        ({}, None),
    ],
)
def test_the_session_of_an_agent_is_a_label(
    gateway: Gateway, provider: Scripted, headers: dict[str, str], session: str | None
) -> None:
    provider.answer(plain(ANSWER))
    answer = gateway.post("/v1/messages", ASKED | {"model": "claude"}, headers=headers)
    assert gateway.exchange_of(answer).get("labels", {}).get("session") == session


# --- Mistral

CALL = {"id": "toolu_0123456789", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PDF = "data:application/pdf;base64,JVBERi0xLjQ="
FILE = {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"seed": 7, "user": "u"}, "You said: Hello"),
        ({"messages": [{"role": "user", "content": [FILE]}]}, ""),
        (
            {
                "messages": [
                    {"role": "user", "content": "Hello"},
                    {"role": "assistant", "content": None, "tool_calls": [CALL]},
                    {"role": "tool", "tool_call_id": CALL["id"], "content": "0042"},
                ],
                "tools": TOOLS,
            },
            "The tool said: 0042",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_mistral_gets_requests_that_it_takes(gateway: Gateway, fields: dict[str, Any], said: str, stream: bool) -> None:
    """In the middle of a loop of tools that another provider began, too."""
    body = chat_body("mistral-large-latest", stream=stream) | fields
    answer = gateway.post("/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    if not stream:
        assert said in answer.json()["choices"][0]["message"]["content"]


def test_a_client_of_another_api_goes_on_at_mistral(gateway: Gateway) -> None:
    called = {"type": "tool_use", "id": "toolu_0123456789", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_0123456789", "content": "0042"}
    body = {
        "model": "mistral-large-latest",
        "max_tokens": 50,
        "metadata": {"user_id": "u"},
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": [called]},
            {"role": "user", "content": [result]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
    }
    answer = gateway.post("/v1/messages", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["content"][0]["text"] == "The tool said: 0042"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, 422, "seed: Extra inputs"),
        (b"upstream connect error", 500, "upstream connect error"),
        (b"", 500, "status 500"),
        (b"<html>Bad gateway</html>", 500, "status 500"),
    ],
)
def test_an_error_of_any_shape_keeps_its_text(
    gateway: Gateway, provider: Scripted, body: Any, status: int, said: str
) -> None:
    provider.answer(plain(body, status=status, content_type="text/plain"))
    answer = gateway.post("/v1/messages", ASKED | {"model": "gpt"})
    assert (answer.status_code, answer.json()["type"]) == (status, "error")
    assert said in answer.json()["error"]["message"]
