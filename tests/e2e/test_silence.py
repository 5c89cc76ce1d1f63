"""Providers that fall silent in the middle of an answer, through a real Envoy. All are asked at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e.conftest import TICK, Gateway, run_gateway

pytestmark = pytest.mark.alone  # it measures time

YAML = """
providers:
  sandbox: {kind: mock, base_url: "{mock_sandbox}"}
  claude: {kind: anthropic, base_url: "{mock_claude}"}
  late: {kind: mock, base_url: "{mock_late}"}
  slow: {kind: mock, base_url: "{mock_slow}"}
models: {stub: {provider: sandbox}, claude: {provider: claude}, late: {provider: late}, slow: {provider: slow}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
limits: {stream_idle: 1s}
stores: {counters: "memory:"}
"""
FAULTS = {"sandbox": "pause=60s", "claude": "pause=60s", "late": "delay=2500ms", "slow": "pace=400ms+words=6"}


@dataclass
class End:
    """The end of an answer: its status, its lines, its time in seconds. Status 0: the connection broke off."""

    status: int
    lines: list[str]
    seconds: float
    id: str


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("silence"), YAML, tuple(FAULTS), {})


@pytest.fixture(scope="module")
def ends(gateway: Gateway) -> Mapping[tuple[str, bool], End]:
    """The ends of answers by model, and whether they are streamed."""
    for name, fault in FAULTS.items():
        gateway.fault(name, fault)

    def ask(model: str, streamed: bool) -> End:
        before = time.monotonic()
        try:
            answer = gateway.chat(model, stream=streamed)
        except httpx.RemoteProtocolError:
            return End(0, [], time.monotonic() - before, "")
        lines = [line for line in answer.text.splitlines() if line]
        return End(answer.status_code, lines, time.monotonic() - before, answer.headers["x-request-id"])

    asked = [("stub", True), ("claude", True), ("stub", False), ("claude", False), ("late", True), ("slow", True)]
    with ThreadPoolExecutor(len(asked)) as pool:
        return dict(zip(asked, pool.map(lambda each: ask(*each), asked), strict=True))


@pytest.mark.parametrize("model", ["stub", "claude"])
def test_a_provider_that_falls_silent_ends_the_stream_with_an_error(gateway: Gateway, ends, model: str):
    """Long before the provider's `timeout` of ten minutes; `claude` is translated."""
    end = ends[model, True]
    assert 1 - TICK <= end.seconds < 20
    error = json.loads(end.lines[-1].removeprefix("data: "))["error"]
    assert (end.status, error["code"]) == (200, "provider_timeout")
    assert "silent for 1s" in error["message"]
    entry = gateway.last(lambda entry: entry["request_id"] == end.id)
    assert entry["error"] == "provider_timeout"
    assert (entry["complete"], entry["usage_source"]) == (False, "estimated"), "the client got some of it"


@pytest.mark.parametrize(("model", "status"), [("stub", 0), ("claude", 504)])
def test_a_plain_answer_in_silence_does_not_look_whole(ends, model: str, status: int):
    """The head of a translated answer has not left, so it is a real error."""
    end = ends[model, False]
    assert end.status == status, end
    if status:
        assert json.loads("".join(end.lines))["error"]["code"] == "provider_timeout"
    assert 1 - TICK <= end.seconds < 20


@pytest.mark.parametrize("model", ["late", "slow"])
def test_an_answer_that_begins_late_or_comes_slowly_is_no_silence(ends, model: str):
    end = ends[model, True]
    assert (end.status, end.lines[-1]) == (200, "data: [DONE]")
    assert end.seconds > 2, "longer than the silence that ends a stream"
