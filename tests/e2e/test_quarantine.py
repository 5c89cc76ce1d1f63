"""Results of tools in quarantine, through Envoy: the provider sees answers alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import KEY, Gateway, run_gateway
from tests.e2e.scripted import Scripted, plain
from tests.guardrails.services import chat
from tests.guardrails.streams import PATHS
from tests.guardrails.test_quarantine import CANARY, QUESTIONS, shown, with_result
from tests.guardrails.test_tools import CALLING
from tests.outbound.endpoint import keeping

YAML = f"""
providers:
  chat: {{kind: vllm, base_url: "PROVIDER/v1"}}
  small: {{kind: vllm, base_url: "SMALL/v1"}}
models:
  m: {{provider: chat}}
  small: {{provider: small, price: {{input: 1.00, output: 2.00}}}}
consumers:
  - {{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}]}}
  - {{name: other, keys: [{{env: OTHER_KEY}}]}}
  - {{name: reader, keys: [{{env: READER_KEY}}], models: [small]}}
guardrails:
  - {{name: q, kind: quarantine, model: small, consumer: reader, tools: [browse], questions: {QUESTIONS}}}
  - {{name: taint, kind: untrusted_context, sensitive: [f], trusted: [browse]}}
budgets:
  - {{name: reading, match: {{consumer: reader}}, unit: usd, limit: 1, window: day}}
stores: {{counters: "memory:"}}
"""
SAYS = {"topic": "news", "price": 3, "day": "2026-01-31", "order": "AB-1234"}


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[list[Any], str]]:
    """The requests to the model in quarantine, and its address."""
    bodies: list[Any] = []

    def answer(handler: Any) -> None:
        bodies.append(json.loads(handler.body))
        said = json.dumps(chat(json.dumps(SAYS))).encode()
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(said)))
        handler.end_headers()
        handler.wfile.write(said)

    with keeping(answer) as (address, _):
        yield bodies, f"http://{address}"


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, provider: Scripted, asked: tuple[list[Any], str]
) -> Iterator[Gateway]:
    text = YAML.replace("PROVIDER", provider.url).replace("SMALL", asked[1])
    env = {"OTHER_KEY": "other-key-0123456789", "READER_KEY": "reader-key-0123456789"}
    yield from run_gateway(tmp_path_factory.mktemp("quarantine"), text, (), env)


@pytest.mark.parametrize("dialect", CALLING)
def test_the_agents_provider_sees_answers_alone(
    gateway: Gateway, provider: Scripted, asked: tuple[list[Any], str], dialect: str
):
    provider.answer(plain(chat("All is well")))
    provider.seen.clear()
    asked[0].clear()
    body = with_result(dialect, f"Order AB-1234 of {dialect}. {CANARY}")
    path = PATHS[dialect].replace(":streamGenerateContent?alt=sse", ":generateContent")
    if "model" in body:
        body |= {"stream": False}
    body.pop("stream_options", None)
    headers = {"authorization": f"Bearer {KEY}"}
    for _ in range(2):  # the conversation is sent again
        answer = gateway.http.post(gateway.url + path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert "q:mask" in answer.headers["x-ai-guardrails"]
    assert len(asked[0]) == 1
    assert CANARY in json.dumps(asked[0])
    assert len(provider.seen) == 2
    assert provider.seen[0] == provider.seen[1]
    sent = json.dumps(provider.seen)
    assert "CANARY" not in sent
    assert "Ignore" not in sent
    [result] = [one["content"] for one in provider.seen[0]["messages"] if one["role"] == "tool"]
    found = json.loads(result if dialect != "gemini_generate_content" else _inner(result))
    assert found["answers"] == SAYS
    # the raw result is its consumer's alone
    where = f"/v1/quarantine/{found['reference']}"
    assert CANARY in gateway.http.get(gateway.url + where, headers=headers).json()["result"]
    other = gateway.http.get(gateway.url + where, headers={"authorization": "Bearer other-key-0123456789"})
    assert (other.status_code, other.json()["error"]["code"]) == (404, "object_not_found")


def _inner(result: str) -> str:
    """A result of Gemini's API is an object, which a translation writes as text."""
    found: str = json.loads(result).get("result", result)
    return found


def test_reading_costs_its_own_consumer(gateway: Gateway, provider: Scripted, asked: tuple[list[Any], str]):
    provider.answer(plain(chat("All is well")))
    body = with_result("openai_chat", f"another page: {CANARY}") | {"stream": False}
    body.pop("stream_options", None)
    assert shown("openai_chat", body).endswith(CANARY)
    gateway.http.post(gateway.url + PATHS["openai_chat"], json=body, headers={"authorization": f"Bearer {KEY}"})
    row = gateway.line(lambda line: line.get("consumer") == "reader" and line["event"] == "exchange")
    assert (row["model"], row["labels"]) == ("small", {"guardrail": "q"})
    assert row["cost_usd"] > 0
    assert not any("CANARY" in line for line in gateway.written())
