"""Providers that fall silent in the middle of an answer, through a real Envoy."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conftest import TICK, Gateway, run_gateway

pytestmark = pytest.mark.alone  # it measures time

YAML = """
providers:
  sandbox: {kind: mock, base_url: "{mock_sandbox}"}
  claude: {kind: anthropic, base_url: "{mock_claude}"}
models: {stub: {provider: sandbox}, claude: {provider: claude}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
limits: {stream_idle: 1s}
stores: {counters: "memory:"}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("silence"), YAML, ("sandbox", "claude"), {})


@pytest.mark.parametrize(("model", "name"), [("stub", "sandbox"), ("claude", "claude")])
def test_a_provider_that_falls_silent_ends_the_stream_with_an_error(gateway: Gateway, model: str, name: str):
    """Long before the provider's `timeout` of ten minutes; `claude` is translated."""
    gateway.fault(name, "pause=60s")
    before = time.monotonic()
    with gateway.stream(model) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert 1 - TICK <= time.monotonic() - before < 20
    error = json.loads(lines[-1].removeprefix("data: "))["error"]
    assert (answer.status_code, error["code"]) == (200, "provider_timeout")
    assert "silent for 1s" in error["message"]
    entry = gateway.last(lambda entry: entry["error"] == "provider_timeout")
    assert (entry["complete"], entry["usage_source"]) == (False, "estimated"), "the client got some of it"
    gateway.reset()


@pytest.mark.parametrize(("model", "name"), [("stub", "sandbox"), ("claude", "claude")])
def test_a_plain_answer_in_silence_does_not_look_whole(gateway: Gateway, model: str, name: str):
    """The head of a translated answer has not left, so it is a real error."""
    gateway.fault(name, "pause=60s")
    before = time.monotonic()
    try:
        answer = gateway.chat(model)
    except httpx.RemoteProtocolError:
        assert name == "sandbox"
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "provider_timeout"), answer.text
        assert name == "claude"
    assert 1 - TICK <= time.monotonic() - before < 20
    gateway.reset()


def test_an_answer_that_begins_late_is_no_silence(gateway: Gateway):
    gateway.fault("sandbox", "delay=2500ms")
    with gateway.stream() as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert (answer.status_code, lines[-1]) == (200, "data: [DONE]")
    gateway.reset()


def test_a_slow_stream_is_no_silence(gateway: Gateway):
    gateway.fault("sandbox", "pace=400ms+words=6")
    with gateway.stream() as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert (answer.status_code, lines[-1]) == (200, "data: [DONE]")
    gateway.reset()
