"""Providers that send invalid answers, through a real Envoy. A translated answer ends in a clear error, fails over
where another target is left, and never hangs.

The provider `bad` sends any bytes a test gives it, and is configured with OpenAI's API. Requests of Anthropic's client
are translated to it, those of OpenAI's client are passed through.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.e2e.scripted import Script, Scripted, endless, events, head, plain, stream
from tests.e2e.test_abuse_apis import check_error

YAML = """
providers:
  bad: {kind: openai, base_url: "URL/v1", outlier_detection: {consecutive_5xx: 10000}}
  claude: {kind: anthropic, base_url: "URL/v1", outlier_detection: {consecutive_5xx: 10000}}
  bedrock:
    kind: aws_bedrock
    region: r
    base_url: "URL"
    api_key: env:EXTPROC_DEMO_KEY
    outlier_detection: {consecutive_5xx: 10000}
  gone: {kind: openai, base_url: "http://127.0.0.1:9/v1", outlier_detection: {consecutive_5xx: 10000}}
  claude-gone: {kind: anthropic, base_url: "http://127.0.0.1:9/v1", outlier_detection: {consecutive_5xx: 10000}}
  good: {kind: mock, base_url: "{mock_good}"}
models:
  bad: {provider: bad}
  claude: {provider: claude}
  nova: {provider: bedrock, model: amazon.nova-pro-v1:0}
  gone: {provider: gone}
  claude-gone: {provider: claude-gone}
  good: {provider: good}
virtual_models:
  chain: {targets: [{model: bad}, {model: good}]}
  hasty: {targets: [{model: claude}], retry: {attempts: 1, per_try_timeout: 300ms, per_try_timeout_stream: 300ms}}
  claude-chain: {targets: [{model: claude}, {model: good}]}
  nova-chain: {targets: [{model: nova}, {model: good}]}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
limits: {buffered_response: 64KiB, sse_event: 16KiB}
stores: {counters: "memory:"}
"""
DONE = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USED = {"id": "c", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}


def chunk(text: str = "word ", **more: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}], **more}


def completion(**fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hello"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    return {
        "id": "c",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
        **fields,
    }


@pytest.fixture(scope="module")
def running(provider: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yaml = YAML.replace("URL", provider.url)
    yield from run_gateway(tmp_path_factory.mktemp("answers"), yaml, ("good",), {})


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    running.reset()
    return running


def ask(gateway: Gateway, model: str, *, stream: bool = False) -> httpx.Response:
    """A request of Anthropic's client. A hanging test fails by its timeout."""
    body = {"model": model, "max_tokens": 50, "stream": stream, "messages": [{"role": "user", "content": "Hi " * 99}]}
    return gateway.post("/v1/messages", body, timeout=30)


def play(provider: Scripted, what: bytes | Script) -> None:
    provider.seen.clear()
    provider.script = (lambda: [what]) if isinstance(what, bytes) else what


def check_bad_answer(answer: httpx.Response) -> None:
    assert answer.status_code == 502, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert "content-encoding" not in answer.headers
    assert answer.headers["x-ai-error-origin"] == "provider"
    assert not [name for name in answer.headers if name.startswith(("x-extproc-", "x-envoy-"))]
    assert "location" not in answer.headers
    check_error(answer.json(), "provider_bad_answer", anthropic=True)


WHOLE = json.dumps(completion()).encode()
ZIPPED = [("content-encoding", "gzip")]
ELSEWHERE = [("location", "http://evil.test/")]
PLAIN: dict[str, bytes | Script] = {
    "a page": plain(b"<html>It works</html>"),
    "a page that says so": plain(b"<html>It works</html>", "text/html"),
    "text": plain(b"Hello", "text/plain"),
    "nothing": plain(b""),
    "nothing, without a length": head(),
    "no content": head(None, 204),
    "a redirect": plain(b"", status=302, more=ELSEWHERE),
    "a redirect with a body": plain(b"moved", "text/plain", status=301, more=ELSEWHERE),
    "not modified": head(None, 304),
    "null": plain(b"null"),
    "a list": plain([completion()]),
    "an empty object": plain({}),
    "no choices": plain(completion(choices=[])),
    "choices that are none": plain(completion(choices="Hello")),
    "an error with status 200": plain({"error": {"message": "no"}}),
    "an error in a field": plain(completion(error="no")),
    "cut short": plain(WHOLE[:-5]),
    "two answers": plain(WHOLE + WHOLE),
    "invalid UTF-8": plain(WHOLE.replace(b"Hello", b"\xff\xfe")),
    "UTF-16": plain(WHOLE.decode().encode("utf-16"), "application/json; charset=utf-16"),
    "a lone surrogate": plain(WHOLE.replace(b"Hello", b"\\ud800")),
    "nested deeply": plain(b'{"choices":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
    "events": stream(chunk(), DONE, USED),
    "another API's": plain({"type": "message", "content": [{"type": "text", "text": "Hello"}]}),
    "too large": plain(completion(x="y" * 200_000)),
    "without end": endless(head(), b" " * 50_000),
    "compressed, cut short": plain(gzip.compress(WHOLE)[:-12], more=ZIPPED),
    "compressed, it is said": plain(WHOLE, more=ZIPPED),
    "compressed nonsense": plain(gzip.compress(b"<html>"), more=ZIPPED),
    "compressed, a bomb": plain(gzip.compress(bytes(64 << 20)), more=ZIPPED),
    "compressed in an unknown way": plain(WHOLE, more=[("content-encoding", "br")]),
    "compressed twice": plain(gzip.compress(gzip.compress(WHOLE)), more=[("content-encoding", "gzip, gzip")]),
    "an arguments object that is a list": plain(completion(choices=[{"message": {"tool_calls": 5}}])),
}
NO_STREAM: dict[str, bytes | Script] = {
    "a whole answer": plain(completion()),
    "a page": plain(b"<html>", "text/html"),
    "no type": head(None) + events(chunk(), DONE, USED),
    "another type": head("text/plain") + events(chunk(), DONE, USED),
    "another kind of events": head("application/vnd.amazon.eventstream") + events(chunk(), DONE, USED),
    "nothing": plain(b"", "text/event-stream"),
    "no content": head(None, 204),
    "compressed in an unknown way": stream(chunk(), DONE, more=[("content-encoding", "zstd")]),
}


def slowly(*pieces: bytes) -> Script:
    """The pieces, one by one."""

    def script() -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            time.sleep(0.1)

    return script


OVERSIZE = (b'data: {"x":"' + b"y" * 30_000, b"y" * 30_000, b'"}\n\n')
BROKEN: dict[str, bytes | Script] = {
    "cut short": stream(chunk(), chunk(), end=b""),
    "cut in an event": stream(chunk(), b'data: {"choices":[{"ind', end=b""),
    "an error": stream(chunk(), {"error": {"message": "no"}}, chunk(), DONE),
    "an error at once": stream({"error": {"message": "no"}}, end=b""),
    "garbage": stream(b"\0\1\2\xff" * 1_000, end=b""),
    "no events": stream(b"Hello\n\n", end=b""),
    "only comments": stream(b": a\n\n" * 1_000, end=b""),
    "events of another API": stream({"type": "content_block_delta", "delta": {"text": "a"}}, end=b""),
    "an event that is too large": slowly(stream(chunk(), end=b""), *OVERSIZE, events(chunk(), DONE, USED)),
    "an event that is too large, first": slowly(stream(end=b""), *OVERSIZE, events(chunk(), DONE, USED)),
    "an event that is too large, at once": stream(chunk(), b"".join(OVERSIZE), chunk(), DONE, USED),
    "an event without end": endless(stream(chunk(), b'data: {"x":"', end=b""), b"y" * 50_000),
    "compressed, cut short": head("text/event-stream", more=ZIPPED) + gzip.compress(events(chunk(), end=b""))[:-9],
    "compressed, it is said": stream(chunk(), DONE, more=ZIPPED),
    "an error and then no end": endless(stream(chunk(), {"error": {}}, end=b""), b": a\n\n" * 1_000),
}


@pytest.mark.parametrize("name", PLAIN)
def test_an_invalid_plain_answer_is_a_502_or_fails_over(name: str, gateway: Gateway, provider: Scripted) -> None:
    play(provider, PLAIN[name])
    check_bad_answer(ask(gateway, "bad"))
    served = ask(gateway, "chain")
    assert served.status_code == 200, served.text
    assert (served.headers["x-ai-provider"], served.headers["x-ai-attempts"]) == ("good", "2")


@pytest.mark.parametrize("name", NO_STREAM)
def test_an_invalid_stream_fails_over_before_anything_was_sent(name: str, gateway: Gateway, provider: Scripted) -> None:
    """The fault is known before the first byte leaves, so another provider can serve."""
    play(provider, NO_STREAM[name])
    check_bad_answer(ask(gateway, "bad", stream=True))
    served = ask(gateway, "chain", stream=True)
    assert (served.status_code, served.headers["x-ai-provider"]) == (200, "good")
    assert "event: message_stop" in served.text


@pytest.mark.parametrize("model", ["bad", "chain"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_that_turns_invalid_ends_with_an_error_event(
    name: str, model: str, gateway: Gateway, provider: Scripted
) -> None:
    """The headers have left, so the client gets an error event, nothing after it, and the end of the body."""
    play(provider, BROKEN[name])
    answer = ask(gateway, model, stream=True)
    assert answer.headers["x-ai-provider"] == "bad"
    names = [line[7:] for line in answer.text.splitlines() if line.startswith("event: ")]
    assert names.count("error") == 1
    assert names[-1] == "error"
    assert "message_stop" not in names
    assert "content-encoding" not in answer.headers
    [last] = [line for line in answer.text.splitlines() if line.startswith('data: {"type":"error"')]
    assert json.loads(last[6:])["error"]["message"]
    entry = gateway.exchange_of(answer)
    assert (entry["error"], entry["usage_source"]) == ("provider_error", "estimated")
    assert entry["input_tokens"] > 90


def test_an_answer_cut_by_the_provider_does_not_look_complete(gateway: Gateway, provider: Scripted) -> None:
    """A cut stream is cut for the client too. A cut plain answer is a 502."""
    begun = head("text/event-stream", more=[("content-length", "100000")]) + events(chunk(), end=b"")
    play(provider, slowly(begun, b": a\n\n", b": a\n\n"))
    with pytest.raises(httpx.RemoteProtocolError):
        ask(gateway, "bad", stream=True)
    play(provider, head(more=[("content-length", "100000")]) + WHOLE)
    answer = ask(gateway, "bad")
    assert answer.status_code == 502, answer.text
    check_error(answer.json(), "provider_bad_answer", anthropic=True)


ERRORS: dict[str, tuple[int, bytes]] = {
    "a page": (500, plain(b"<html>", "text/html", 500)),
    "nothing readable": (400, plain(b"\xff\xfe", "application/json", 400)),
    "a list": (429, plain([{"error": {"message": "slow down"}}], status=429)),
    "null": (500, plain(b"null", status=500)),
    "nested deeply": (400, plain(b"[" * 30_000, status=400)),
    "compressed": (400, plain(gzip.compress(b'{"error":{"message":"no"}}'), status=400, more=ZIPPED)),
    "compressed, it is said": (400, plain(b'{"error":{"message":"no"}}', status=400, more=ZIPPED)),
    "too large": (422, plain(b'{"error":{"message":"' + b"y" * 200_000 + b'"}}', status=422)),
    "its own status": (400, plain({"error": {"message": "no", "code": 500}}, status=400)),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", ERRORS)
def test_a_providers_error_without_a_message_keeps_its_status(
    name: str, streamed: bool, gateway: Gateway, provider: Scripted
) -> None:
    """The status is the provider's, the shape the client's."""
    status, script = ERRORS[name]
    play(provider, script)
    answer = ask(gateway, "bad", stream=streamed)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert "content-encoding" not in answer.headers
    document = answer.json()
    assert (document["type"], bool(document["error"]["message"])) == ("error", True)
    assert answer.headers["x-ai-error-origin"] == "provider"


def test_an_endless_error_of_a_provider_is_cut(gateway: Gateway, provider: Scripted) -> None:
    play(provider, endless(head(status=400), b" " * 50_000))
    answer = ask(gateway, "bad")
    assert answer.status_code == 400
    assert answer.json()["type"] == "error"


# --- answers that Envoy makes


@pytest.mark.parametrize("model", ["gone", "claude-gone"])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_unreachable_provider_is_reported_in_the_clients_shape(model: str, streamed: bool, gateway: Gateway) -> None:
    """Envoy answers in the provider's place, and the answer has the shape of the client's API, translated or not."""
    answer = ask(gateway, model, stream=streamed)
    assert answer.status_code == 503
    assert answer.headers["x-ai-error-origin"] == "gateway"
    check_error(answer.json(), "no_provider_available", anthropic=True)
    assert "gone" in answer.json()["error"]["message"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_silent_provider_is_a_timeout_in_the_clients_shape(
    streamed: bool, gateway: Gateway, provider: Scripted
) -> None:
    """The time runs out at the public listener. The client's path determines the shape of the error."""
    release = threading.Event()
    play(provider, lambda: [plain({}) for _ in [release.wait(5)]])
    answer = ask(gateway, "hasty", stream=streamed)
    release.set()
    assert answer.status_code == 504
    assert answer.headers["x-ai-error-origin"] == "gateway"
    check_error(answer.json(), "provider_timeout", anthropic=True)
    assert gateway.exchange_of(answer)["error"] in ("gateway", "timeout")


def test_a_refusal_of_the_translation_does_not_count_against_the_provider(gateway: Gateway, provider: Scripted) -> None:
    play(provider, plain(completion()))
    body = {"model": "bad", "max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}
    answer = gateway.post("/v1/messages", body)
    assert answer.status_code == 400
    check_error(answer.json(), "invalid_request", anthropic=True)
    assert answer.headers["x-ai-error-origin"] == "gateway"
    assert "x-ai-provider" not in answer.headers
    assert gateway.exchange_of(answer)["error"] == "invalid_request"
    assert provider.seen == []


# --- the other APIs of providers


CUT_TOOL = {"type": "message", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]}
OF_CLAUDE: dict[str, bytes] = {
    "an error with status 200": plain({"type": "error", "error": {"message": "no"}}),
    "another API's": plain(completion()),
    "cut short": plain(json.dumps(CUT_TOOL).encode()[:-3]),
    "blocks that are none": plain({"type": "message", "content": [5]}),
}


@pytest.mark.parametrize("name", OF_CLAUDE)
def test_an_invalid_answer_of_anthropic_is_a_502_or_fails_over(name: str, gateway: Gateway, provider: Scripted) -> None:
    play(provider, OF_CLAUDE[name])
    answer = gateway.chat("claude")
    assert answer.status_code == 502, answer.text
    check_error(answer.json(), "provider_bad_answer", anthropic=False)
    assert gateway.chat("claude-chain").headers["x-ai-provider"] == "good"


def test_an_event_of_amazon_with_a_wrong_checksum_ends_the_stream(gateway: Gateway, provider: Scripted) -> None:
    """Amazon's events carry checksums. Nothing after a damaged event is used."""
    from extproc.wire.framing.aws_eventstream import encode

    def event(kind: str, **payload: Any) -> bytes:
        return encode({":message-type": "event", ":event-type": kind}, json.dumps(payload).encode())

    good = event("contentBlockDelta", contentBlockIndex=0, delta={"text": "Hello"})
    bad = good[:-1] + bytes([good[-1] ^ 1])
    end = event("messageStop", stopReason="end_turn")
    for damaged in (good + bad + end, good + bad[:20], good + b"\0" * 100 + end, good + good[:-8]):
        play(provider, head("application/vnd.amazon.eventstream") + damaged)
        with gateway.stream("nova") as answer:
            text = answer.read().decode()
        assert answer.headers["x-ai-provider"] == "bedrock"
        assert "Hello" in text
        assert text.count('data: {"error"') == 1
        assert "[DONE]" not in text
    play(provider, head("text/event-stream") + good + end)
    with gateway.stream("nova-chain") as answer:
        assert "[DONE]" in answer.read().decode()
    assert answer.headers["x-ai-provider"] == "good"


# --- clients that disconnect


def test_a_client_that_disconnects_from_a_slow_answer_ends_the_providers_stream(
    gateway: Gateway, provider: Scripted
) -> None:
    """Headers held back or not, the provider is disconnected. No stream stays open."""
    for streamed in (False, True):
        release = threading.Event()

        def script(streamed: bool = streamed, release: threading.Event = release) -> Iterator[bytes]:
            yield (head("text/event-stream") + events(chunk(), end=b"")) if streamed else head() + WHOLE[:20]
            for _ in range(200):
                if release.wait(0.05):
                    return
                yield b": a\n\n" if streamed else b" "

        play(provider, script)
        body = {"model": "bad", "max_tokens": 50, "stream": streamed, "messages": [{"role": "user", "content": "Hi"}]}
        headers = {"authorization": f"Bearer {KEY}"}
        try:
            with gateway.http.stream(
                "POST", gateway.url + "/v1/messages", json=body, headers=headers, timeout=1
            ) as answer:
                next(answer.iter_raw())
        except httpx.ReadTimeout:
            assert not streamed
        eventually(lambda: gateway.metric("extproc_exchanges_in_flight") == 0)
        release.set()


# --- last: the state after everything above


def test_the_answers_above_caused_no_internal_error(running: Gateway) -> None:
    eventually(lambda: running.metric("extproc_exchanges_in_flight") == 0)
    eventually(lambda: running.metric("extproc_grpc_streams") == 0)
    assert running.metric("extproc_internal_errors_total") == 0
