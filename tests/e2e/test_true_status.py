"""The status that a client gets is the true one, and that of the record, through a real Envoy."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from threading import Event

import httpx
import pytest

from tests.e2e.conftest import Gateway
from tests.e2e.scripted import Scripted, events, head, plain

YAML = """
providers:
  noisy: {kind: mock, base_url: "%s/v1", outlier_detection: {consecutive_5xx: 10000}}
  other: {kind: anthropic, base_url: "%s/v1", outlier_detection: {consecutive_5xx: 10000}}
  sandbox: {kind: mock, base_url: "{mock_sandbox}"}
models: {noisy: {provider: noisy}, guarded: {provider: noisy}, translated: {provider: other}, stub: {provider: sandbox}}
virtual_models: {chain: {targets: [{model: noisy}, {model: stub}]}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
budgets: [{name: t, unit: tokens, limit: 1000000000, window: day}]
guardrails:
  - {name: held, kind: regex, patterns: {number: "forbidden[0-9]+"}, on: [output], applies_to: {models: [guarded]}}
stores: {counters: "memory:", ledger: "memory:"}
"""
CHUNKED = head("text/event-stream", more=[("transfer-encoding", "chunked")])
BROKEN = CHUNKED + b"5\r\ndata:\r\nzz\r\n"


@pytest.fixture
def gateway(start: Callable[..., Gateway], provider: Scripted) -> Gateway:
    return start(YAML % (provider.url, provider.url))


def test_a_status_that_http_does_not_have_is_a_bad_answer(gateway: Gateway, provider: Scripted) -> None:
    for status in (600, 999):
        provider.answer(plain({"x": 1}, status=status))
        for model in ("noisy", "translated"):
            answer = gateway.chat(model)
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_bad_answer")
        assert gateway.chat("chain").headers["x-ai-provider"] == "sandbox", "another target may do better"


def test_a_stream_that_breaks_off_before_its_head_has_left_is_no_answer_and_costs_nothing(
    gateway: Gateway, provider: Scripted
) -> None:
    """The provider breaks the answer off while the processor looks at its head, so Envoy answers 503 in its place."""

    def script() -> Iterator[bytes]:
        gateway.process.send_signal(signal.SIGSTOP)
        yield BROKEN

    provider.script = script
    try:
        with gateway.stream("noisy") as answer:
            gateway.process.send_signal(signal.SIGCONT)
            answer.read()
    finally:
        gateway.process.send_signal(signal.SIGCONT)
    assert answer.status_code == 503
    entry = gateway.last(lambda entry: entry.get("model") == "noisy")
    assert (entry["status"], entry["complete"], entry["usage_source"]) == (503, False, "none")
    assert (entry["input_tokens"], entry["output_tokens"], entry["error"]) == (0, 0, "cut")
    assert [each["provider"] for each in entry["tries"]] == ["noisy"]


@pytest.mark.parametrize(("text", "status"), [("one two", 503), ("one two " * 50, 200)])
def test_a_stream_that_breaks_off_while_guardrails_hold_it_costs_what_the_client_got(
    gateway: Gateway, provider: Scripted, text: str, status: int
) -> None:
    """Text that was held back was not sold. Of a longer text the first window has left."""
    event, got = events({"choices": [{"index": 0, "delta": {"content": text}}]}, end=b""), Event()

    def script() -> Iterator[bytes]:
        yield CHUNKED + b"%x\r\n%b\r\n" % (len(event), event)
        got.wait(0.3 if status == 503 else 30)  # nobody is told of text that is held back
        yield b"zz\r\n"

    provider.script = script
    with gateway.stream("guarded") as answer, contextlib.suppress(httpx.RemoteProtocolError):
        for _ in answer.iter_raw():
            got.set()
    entry = gateway.last(lambda entry: entry.get("model") == "guarded")
    assert (answer.status_code, entry["status"], entry["complete"]) == (status, status, False)
    assert (entry["output_tokens"] > 0) is (status == 200)


def test_grpc_is_refused_with_a_status_of_its_own(gateway: Gateway) -> None:
    """Envoy answers requests of gRPC with 200 whatever refuses them; no client would notice."""
    for path, kind in (
        ("/v1/chat/completions", "application/grpc"),
        ("/nowhere", "application/grpc+proto"),
        ("/v1/models", "application/grpc-web"),
    ):
        answer = gateway.http.post(gateway.url + path, content=b"x", headers={"content-type": kind})
        assert (answer.status_code, answer.headers["content-type"]) == (415, "application/json")
        assert answer.json()["error"]["code"] == "unsupported_encoding"
        assert answer.headers["x-ai-error-origin"] == "gateway"
        assert "grpc-status" not in answer.headers
