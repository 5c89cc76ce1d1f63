"""A guardrail that blocks: it finds text in every field of a chat, before a provider sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Gateway

SECRET = "AKIA" + "CANARY7CANARY7XX"
TEXT = f"my key is {SECRET}, keep it"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def tool(**function: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}} | function}]


CALL = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"key": TEXT})}}]
SCHEMA = {"name": "s", "schema": {"type": "object", "properties": {"a": {"type": "string", "const": TEXT}}}}
HELLO = [user("Hello")]
# Place of the text -> the fields of a chat that hold it there.
PLACES: dict[str, dict[str, Any]] = {
    "messages[0].content": {"messages": [user(TEXT)]},
    "messages[1].content[1].text": {
        "messages": [user("a"), user([{"type": "text", "text": "b"}, {"type": "text", "text": TEXT}])]
    },
    "system prompt": {"messages": [{"role": "system", "content": TEXT}, *HELLO]},
    "developer prompt": {"messages": [{"role": "developer", "content": TEXT}, *HELLO]},
    "earlier answer": {"messages": [*HELLO, {"role": "assistant", "content": TEXT}, user("Go on")]},
    "tool call": {"messages": [*HELLO, {"role": "assistant", "content": None, "tool_calls": CALL}]},
    "tool result": {"messages": [*HELLO, {"role": "tool", "tool_call_id": "1", "content": TEXT}]},
    "name": {"messages": [user("a") | {"name": SECRET}]},
    "image url": {"messages": [user([{"type": "image_url", "image_url": {"url": f"https://example.com/{SECRET}"}}])]},
    "a part nobody knows": {"messages": [user([{"type": "new", "new": {"deep": [{"er": TEXT}]}}])]},
    "a field of a message nobody knows": {"messages": [user("a") | {"new": [TEXT]}]},
    "tool description": {"messages": HELLO, "tools": tool(description=TEXT)},
    "tool parameters": {"messages": HELLO, "tools": tool(parameters={"properties": {"a": {"description": TEXT}}})},
    "schema": {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "stop": {"messages": HELLO, "stop": ["a", TEXT]},
    "user": {"messages": HELLO, "user": TEXT},
    "metadata": {"messages": HELLO, "metadata": {"note": TEXT}},
    "prediction": {"messages": HELLO, "prediction": {"type": "content", "content": TEXT}},
    "a field nobody knows": {"messages": HELLO, "new_in_2030": {"a": {"b": [TEXT]}}},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", PLACES.values(), ids=PLACES)
def test_the_text_is_found_in_every_field(demo: Gateway, fields: dict[str, Any], stream: bool):
    answer = demo.post("/v1/chat/completions", {"model": "stub", "stream": stream, **fields})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("guardrail_blocked", "invalid_request_error")
    assert "no-keys" in error["message"]
    assert error["param"] in error["message"]
    assert SECRET not in answer.text
    assert demo.calls() == 0


def test_the_text_is_found_when_written_with_escapes(demo: Gateway):
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in SECRET)
    body = f'{{"model": "stub", "messages": [{{"role": "user", "content": "{escaped}"}}]}}'
    answer = demo.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.json()["error"]["code"] == "guardrail_blocked"
    assert demo.calls() == 0


def test_the_text_is_found_in_a_large_body(demo: Gateway):
    answer = demo.chat("stub", "word " * 100_000 + SECRET)
    assert answer.json()["error"]["code"] == "guardrail_blocked"
    assert demo.calls() == 0


@pytest.mark.parametrize("given", [TEXT, ["one", TEXT]])
def test_the_text_is_found_in_embeddings_input(demo: Gateway, given: Any):
    answer = demo.post("/v1/embeddings", {"model": "stub", "input": given})
    assert answer.json()["error"]["code"] == "guardrail_blocked"
    assert demo.calls() == 0


@pytest.mark.parametrize("given", [[1, 2, 3], [[1, 2], [3]]])
def test_input_given_as_tokens_is_refused_under_a_guardrail(demo: Gateway, given: Any):
    answer = demo.post("/v1/embeddings", {"model": "stub", "input": given})
    assert answer.json()["error"]["code"] == "guardrail_blocked"
    assert demo.calls() == 0


def test_a_virtual_model_is_guarded(demo: Gateway):
    assert demo.chat("assistant", TEXT).json()["error"]["code"] == "guardrail_blocked"
    assert demo.calls() == 0


def test_a_finding_is_counted_and_its_text_is_not_written_to_any_output(demo: Gateway):
    before = demo.metric("extproc_guardrail_findings_total", guardrail="no-keys", action="block")
    entry = demo.exchange_of(demo.chat("stub", TEXT))
    assert (entry["status"], entry["error"]) == (400, "guardrail_blocked")
    assert demo.metric("extproc_guardrail_findings_total", guardrail="no-keys", action="block") == before + 1
    assert demo.metric("extproc_refusals_total", code="guardrail_blocked") >= 1
    everything = demo.log.read_text() + json.dumps(demo.exchanges()) + demo.http.get(demo.status + "/metrics").text
    assert "CANARY7" not in everything


def test_similar_text_passes(demo: Gateway):
    assert demo.chat("stub", "AKIA is a prefix, akia" + "A" * 16).status_code == 200


def test_an_audit_guardrail_counts_and_lets_the_request_pass(start: Any):
    gateway = start("""
        providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
        models: {stub: {provider: sandbox}}
        consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
        guardrails:
          - {name: watched, kind: regex, on: [input], action: audit, patterns: {word: '\\bsecret\\b'}}
          - {name: unused, kind: regex, patterns: {word: 'nothing-like-it'}}
        stores: {counters: "memory:"}
    """)
    assert gateway.chat("stub", "a secret").status_code == 200
    assert gateway.metric("extproc_guardrail_findings_total", guardrail="watched", action="audit") == 1
    assert gateway.metric("extproc_guardrail_findings_total", guardrail="unused") == 0
