"""A guardrail finds a secret in every field of every API before a provider sees it, through a real Envoy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.e2e.abuse.places import OPENAI_ONLY, SECRET, TABLES, Place
from tests.e2e.conftest import Gateway, run_gateway
from tests.e2e.test_abuse_apis import YAML, check_error

BLOCKED = "guardrail_blocked"
CASES = [(api, model, name) for api, (_, _, models, places) in TABLES.items() for model in models for name in places]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yaml = YAML.replace("sandbox: {kind: mock,", "sandbox: {kind: mock, hosted_tools: drop,")
    yield from run_gateway(tmp_path_factory.mktemp("places"), yaml, ("sandbox",), {})


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    running.reset()
    return running


def check_blocked(gateway: Gateway, api: str, body: Mapping[str, Any] | bytes, code: str = BLOCKED) -> str:
    """The difference from the expected refusal; empty if there is none."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = gateway.post(TABLES[api][0], content=content, headers={"content-type": "application/json"})
    if answer.status_code != 400:
        return f"{answer.status_code} {answer.text[:200]}"
    try:
        check_error(answer.json(), code, anthropic=api in ("messages", "count_tokens"))
    except (AssertionError, KeyError):
        return f"another refusal: {answer.text[:300]}"
    if SECRET in answer.text + str(answer.headers):
        return "the secret is in the answer"
    return ""


def expected(model: str, name: str) -> str:
    """The code of the refusal."""
    return "unsupported_by_targets" if model == "stub" and name in OPENAI_ONLY else BLOCKED


@pytest.mark.parametrize(("api", "model"), list(dict.fromkeys((api, model) for api, model, _ in CASES)))
def test_a_secret_is_found_in_every_field(api: str, model: str, gateway: Gateway) -> None:
    _, good, _, places = TABLES[api]
    found = {
        name: check_blocked(gateway, api, {"model": model, **good, **place}, expected(model, name))
        for name, place in places.items()
    }
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert gateway.calls() == 0


@pytest.mark.parametrize(("api", "model"), list(dict.fromkeys((api, model) for api, model, _ in CASES)))
def test_a_secret_is_found_in_streamed_requests_with_escapes(api: str, model: str, gateway: Gateway) -> None:
    """Letters are written as escapes in the body, and the request asks for a stream."""
    _, good, _, places = TABLES[api]
    wrong = {}
    for name, place in list(places.items())[::7]:
        text = json.dumps({"model": model, "stream": True, **good, **place}).replace("AKIA", "\\u0041\\u004bI\\u0041")
        if problem := check_blocked(gateway, api, text.encode(), expected(model, name)):
            wrong[name] = problem
    assert wrong == {}
    assert gateway.calls() == 0


def padded(place: Place, megabytes: float) -> Place:
    return {**place, "x_padding": "word " * int(megabytes * 200_000)}


@pytest.mark.parametrize("api", ["responses", "messages"])
def test_a_secret_is_found_in_a_large_body(api: str, gateway: Gateway) -> None:
    _, good, models, places = TABLES[api]
    body = {"model": models[0], **good, **padded(next(iter(places.values())), 0.9)}
    assert check_blocked(gateway, api, body) == ""
    assert gateway.calls() == 0


@pytest.mark.parametrize(
    ("api", "model"), [("responses", "stub"), ("messages", "stub"), ("messages", "claude"), ("count_tokens", "claude")]
)
def test_text_that_resembles_a_secret_passes(api: str, model: str, gateway: Gateway) -> None:
    path, good, _, _ = TABLES[api]
    tool = {"name": "AKIA", "description": f"AKIA{SECRET[4:].lower()}", "input_schema": {"type": "object"}}
    harmless = {"tools": [tool | ({"type": "function"} if api == "responses" else {})]}
    answer = gateway.post(path, {"model": model, **good, **harmless})
    assert answer.status_code == 200, answer.text


def test_a_token_count_that_the_gateway_estimates_is_not_scanned(gateway: Gateway) -> None:
    """The provider has no API for token counts, so nothing leaves the gateway."""
    answer = gateway.post(
        "/v1/messages/count_tokens", {"model": "stub", "messages": [{"role": "user", "content": SECRET}]}
    )
    assert answer.status_code == 200
    assert gateway.calls() == 0


def test_a_finding_is_not_written_to_any_output(gateway: Gateway) -> None:
    for api, model, name in CASES[::5]:
        _, good, _, places = TABLES[api]
        gateway.post(TABLES[api][0], {"model": model, **good, **places[name]})
    everything = (
        gateway.log.read_text() + json.dumps(gateway.exchanges()) + gateway.http.get(gateway.status + "/metrics").text
    )
    assert "CANARY7" not in everything


@pytest.mark.parametrize("kind", [{}, ["text"], 1, None], ids=str)
def test_a_block_of_an_odd_type_is_refused_where_hosted_tools_are_left_out(kind: Any, gateway: Gateway) -> None:
    said = [{"role": "user", "content": [{"type": kind, "text": "Hello"}]}]
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    body = {"model": "stub", "max_tokens": 50, "messages": said, "tools": tools}
    answer = gateway.post("/v1/messages", body)
    assert answer.status_code == 400, answer.text
    assert gateway.calls() == 0
