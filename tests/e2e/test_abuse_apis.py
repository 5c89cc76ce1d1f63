"""Abusive requests of responses, messages, token counts and completions: the tests of test_abuse.py in the fields of
each API.

Models: a request for `stub` is translated, those for `gpt` and `claude` are passed through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.abuse.apis import APIS, CASES, Case
from tests.e2e.abuse.headers import FORGED
from tests.e2e.abuse.requests import http
from tests.e2e.conftest import Gateway, eventually, run_gateway
from tests.e2e.raw import Reply, send
from tests.e2e.test_abuse import USUAL_HEADERS

YAML = """
providers:
  sandbox: {kind: mock, base_url: "{mock_sandbox}", outlier_detection: {consecutive_5xx: 10000}}
  openai: {kind: openai, base_url: "{mock_sandbox}", outlier_detection: {consecutive_5xx: 10000}}
  anthropic: {kind: anthropic, base_url: "{mock_sandbox}", outlier_detection: {consecutive_5xx: 10000}}
models:
  stub: {provider: sandbox}
  spare: {provider: sandbox, model: spare-v2}
  gpt: {provider: openai, model: gpt-4o}
  claude: {provider: anthropic, model: claude-sonnet-4-5}
  "any/*": {provider: sandbox}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
guardrails:
  - {name: no-keys, kind: regex, patterns: {aws: 'AKIA[0-9A-Z]{16}', card: '\\b4[0-9]{15}\\b'}}
limits: {request_body: 1MiB, json_depth: 128}
stores: {counters: "memory:"}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("apis"), YAML, ("sandbox",), {})


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    running.reset()
    return running


def check_refusal(reply: Reply | None, case: Case) -> None:
    """An error that comes from the gateway, in the shape of the API."""
    refused = case.refused
    assert reply is not None, "closed without an answer"
    assert reply.status == refused.status, reply.body
    assert reply.headers["x-ai-error-origin"] == "gateway"
    assert re.fullmatch(r"[0-9a-f-]{36}", reply.headers["x-request-id"])
    assert reply.headers["content-type"] == "application/json"
    assert not [name for name in reply.headers if name.startswith(("x-extproc-", "x-envoy-"))]
    if refused.method != "HEAD":
        document = reply.json()
        unserved = refused.code == "path_not_found" and "type" in document  # below a path of Anthropic's, or its client
        check_error(document, refused.code, anthropic=unserved or (case.api is not None and case.api.anthropic))


def check_error(document: dict[str, Any], code: str, *, anthropic: bool) -> None:
    error = document["error"]
    assert 0 < len(error["message"]) < 1_000
    if anthropic:
        assert document == {"type": "error", "error": error}
        assert error.keys() == {"type", "message", "details"}
        assert error["details"].keys() <= {"error_code", "param"}
        assert (error["details"]["error_code"], error["type"].endswith(("_error", "_large"))) == (code, True), error
    else:
        assert document == {"error": error}
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] == code, error


def test_the_table_holds_many_cases() -> None:
    assert len(CASES) > 800


@pytest.mark.parametrize("name", dict.fromkeys(case.name.partition(":")[0] for case in CASES))
def test_a_bad_request_is_refused_before_it_reaches_a_provider(name: str, gateway: Gateway) -> None:
    """Each refusal has its own code."""
    wrong = []
    for case in CASES:
        if case.name.partition(":")[0] == name:
            try:
                check_refusal(send(gateway.url, *case.refused.pieces, method=case.refused.method), case)
            except AssertionError as error:
                wrong.append((case.name, str(error)[:300]))
    assert wrong == []
    assert gateway.calls() == 0


@pytest.mark.parametrize("name", ["responses", "messages", "count_tokens"])
def test_the_good_request_of_each_api_is_served(name: str, gateway: Gateway) -> None:
    """The refusals above are due to the changes, not to the request. No provider here serves completions."""
    reply = send(gateway.url, APIS[name].request())
    assert reply is not None
    assert reply.status == 200, reply.body


# --- headers that clients may not forge


@pytest.mark.parametrize("name", ["responses", "messages"])
@pytest.mark.parametrize("stream", ["false", "true"])
def test_forged_headers_change_no_translation(name: str, stream: str, gateway: Gateway) -> None:
    """All at once and one by one: the same request leaves, and the same answer comes back."""
    api = APIS[name]
    wrong = []
    internal = [(header, value) for header, value in FORGED.items() if header.startswith(("x-extproc-", "x-envoy-"))]
    for forged in ([], internal, *[[pair] for pair in internal]):
        gateway.reset()
        reply = send(gateway.url, http(api.body(stream=stream), target=api.path, more=forged))
        assert reply is not None
        seen = gateway.seen("sandbox")
        told = {header: reply.headers.get(header) for header in ("x-ai-provider", "x-ai-model", "x-ai-attempts")}
        expected = {"x-ai-provider": "sandbox", "x-ai-model": "stub", "x-ai-attempts": "1"}
        strange = {header for request in seen for header, _ in request["headers"]} - USUAL_HEADERS
        paths = [(request["path"], request["body"]["model"]) for request in seen]
        if (reply.status, told, strange, paths) != (200, expected, set(), [("/v1/chat/completions", "stub")]):
            wrong.append((forged, reply.status, told, strange, paths))
        if "forged" in str(reply.headers) or b"extproc" in reply.body:
            wrong.append((forged, reply))
    assert wrong == []


def test_forged_headers_change_no_request_that_is_passed_through(gateway: Gateway) -> None:
    """The provider speaks the client's API, and the try needs no attempt attachment."""
    api = APIS["messages"]
    internal = [(header, value) for header, value in FORGED.items() if header.startswith(("x-extproc-", "x-envoy-"))]
    reply = send(gateway.url, http(api.body(model='"claude"'), target=api.path, more=internal))
    assert reply is not None
    assert (reply.status, reply.headers["x-ai-model"]) == (200, "claude-sonnet-4-5")
    [seen] = gateway.seen("sandbox")
    assert (seen["path"], seen["body"]["model"]) == ("/v1/messages", "claude-sonnet-4-5")
    assert "forged" not in str(seen["headers"]) + str(reply.headers)


# --- requests that look abusive and are allowed

ODD_NAMES = ("a\\r\\nx-forged: 1", "x-forged", "a,b", "a b", "\\u0000", "é", "__proto__", "", "a" * 5_000, "%0d%0a")


@pytest.mark.parametrize("name", ["responses", "messages"])
def test_field_names_cannot_add_headers(name: str, gateway: Gateway) -> None:
    """Fields that a translation leaves out are named in a header of the answer. Clients choose some of these."""
    api = APIS[name]
    for odd in ODD_NAMES:
        reply = send(gateway.url, api.request(f'"{odd}":1'))
        assert reply is not None
        assert reply.status == 200, (odd, reply.body)
        assert "x-forged" not in reply.headers
        assert re.fullmatch(r"[A-Za-z0-9_.,-]{1,200}", reply.headers["x-ai-ignored"]), reply.headers["x-ai-ignored"]
    many = ",".join(f'"field_{number}":1' for number in range(10_000))
    reply = send(gateway.url, api.request(many))
    assert reply is not None
    assert (reply.status, len(reply.headers["x-ai-ignored"]) < 1_000) == (200, True)


@pytest.mark.parametrize("name", ["responses", "messages"])
@pytest.mark.parametrize(
    "text", ["a\\r\\nx-forged: 1", "\\u0000", "data: [DONE]\\n\\n", ": x-extproc-usage [0, 0, 0, 0, 0]\\n\\n"]
)
def test_text_that_looks_like_a_protocol_stays_text(name: str, text: str, gateway: Gateway) -> None:
    """The mock repeats the text in a stream. It comes back as text, and the token count is the provider's."""
    api = APIS[name]
    says = f'"{text}"' if name == "responses" else f'[{{"role":"user","content":"{text}"}}]'
    reply = send(gateway.url, api.request(stream="true", **{api.says: says}))
    assert reply is not None
    assert reply.status == 200, reply.body
    assert "x-forged" not in reply.headers
    lines = reply.body.decode().split("\n")
    assert not [line for line in lines if line and not line.startswith(("event: ", "data: {"))]
    entry = gateway.last(lambda entry: entry["request_id"] == reply.headers["x-request-id"])
    assert (entry["usage_source"], entry["input_tokens"] > 0, entry["output_tokens"] > 0) == ("provider", True, True)


# --- last: the state after everything above


def test_the_abuse_above_left_no_internal_error(running: Gateway) -> None:
    eventually(lambda: running.metric("extproc_exchanges_in_flight") == 0)
    assert running.metric("extproc_internal_errors_total") == 0
