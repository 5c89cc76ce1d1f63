"""Attempts to lower a charge, through a real Envoy: by clients with their limits, and by providers with their token
counts.

`oai` and the other models are at a provider that sends any bytes a test gives it. The charge is read from the record of
the exchange. The reservation is the amount a budget lacks while the request is under way.
"""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from extproc.wire.framing.aws_eventstream import encode
from tests.e2e.abuse.headers import FORGED
from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.e2e.scripted import Script, Scripted, events, head, plain, stream
from tests.e2e.test_abuse_answers import DONE, USED, chunk, completion, play

OF_URL = "outlier_detection: {consecutive_5xx: 10000}"
YAML = f"""
providers:
  openai: {{kind: openai, base_url: "URL/v1", {OF_URL}}}
  responses: {{kind: openai, base_url: "URL/v1", {OF_URL}}}
  anthropic: {{kind: anthropic, base_url: "URL/v1", {OF_URL}}}
  gemini: {{kind: gcp_gemini, base_url: "URL/v1beta", {OF_URL}}}
  cohere: {{kind: cohere, base_url: "URL/v2", {OF_URL}}}
  bedrock: {{kind: aws_bedrock, region: r, base_url: "URL", api_key: env:EXTPROC_DEMO_KEY, {OF_URL}}}
  good: {{kind: mock, base_url: "{{mock_good}}"}}
models:
  oai: {{provider: openai}}
  claude: {{provider: anthropic, model: claude-sonnet-4-5}}
  claude-marked: {{provider: anthropic, model: claude-sonnet-4-5, prompt_cache: true}}
  gemini: {{provider: gemini, model: gemini-2.5-pro}}
  command: {{provider: cohere, model: command-a-reasoning-08-2025}}
  rock: {{provider: bedrock, model: anthropic.claude-sonnet-4-5-v1:0}}
  capped: {{provider: gemini, model: gemini-2.5-pro, max_output_tokens: 3000}}
  good: {{provider: good}}
virtual_models:
  chain: {{targets: [{{model: oai}}, {{model: good}}]}}
  thinks: {{targets: [{{model: gemini, override: {{reasoning_effort: high}}}}]}}
consumers:
  - {{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}]}}
  - {{name: counter, keys: [{{env: COUNTER_KEY}}]}}
budgets:
  - {{name: tokens, match: {{consumer: demo}}, unit: tokens, limit: 900000000, window: hour}}
  - {{name: three, match: {{consumer: counter}}, unit: requests, limit: 3, window: hour}}
limits: {{output_tokens: 2000}}
stores: {{counters: "memory:"}}
"""
HELLO = [{"role": "user", "content": "Hello there. " * 20}]
OF_HELLO = 68
"""Its tokens by o200k_base, and OpenAI's around a message."""


@pytest.fixture(scope="module")
def running(provider: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yaml = YAML.replace("URL", provider.url)
    yield from run_gateway(tmp_path_factory.mktemp("charges"), yaml, ("good",), {"COUNTER_KEY": "sk-gw-counter"})


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    running.reset()
    return running


def ask(gateway: Gateway, api: str, model: str, *, streamed: bool = False, **fields: Any) -> httpx.Response:
    path, body = {
        "chat": ("/v1/chat/completions", {"messages": HELLO}),
        "messages": ("/v1/messages", {"messages": HELLO, "max_tokens": 50}),
        "responses": ("/v1/responses", {"input": HELLO}),
        "completions": ("/v1/completions", {"prompt": "Hello there"}),
    }[api]
    return gateway.post(path, {"model": model, "stream": streamed, **body, **fields}, timeout=30)


def charged(gateway: Gateway, answer: httpx.Response) -> tuple[int, int, str]:
    entry = gateway.exchange_of(answer)
    return entry["input_tokens"], entry["output_tokens"], entry["usage_source"]


def check_estimated(gateway: Gateway, answer: httpx.Response) -> None:
    """The counts are estimates of the gateway, and no less than the text it saw."""
    input_tokens, output_tokens, source = charged(gateway, answer)
    assert source == "estimated"
    assert input_tokens >= OF_HELLO
    assert output_tokens >= 1


# --- providers that report false counts


LIES: dict[str, Any] = {
    "none": None,
    "an empty object": {},
    "a list": [3, 4],
    "a string": "3",
    "negative": {"prompt_tokens": -3, "completion_tokens": -4},
    "negative input": {"prompt_tokens": -3, "completion_tokens": 4},
    "negative output": {"prompt_tokens": 3, "completion_tokens": -4},
    "strings": {"prompt_tokens": "3", "completion_tokens": "4"},
    "floats": {"prompt_tokens": 3.5, "completion_tokens": 4.5},
    "true": {"prompt_tokens": True, "completion_tokens": True},
    "huge": {"prompt_tokens": 2**64 - 1, "completion_tokens": 2**64 - 1},
    "zeros": {"prompt_tokens": 0, "completion_tokens": 0},
    "only the total": {"total_tokens": 7},
}
PARTS: dict[str, Any] = {
    "no input": {"prompt_tokens": 0, "completion_tokens": 4},
    "only the output": {"completion_tokens": 4},
    "no output": {"prompt_tokens": 3, "completion_tokens": 0},
    "only the input": {"prompt_tokens": 3},
}
"""Usage with a single count. The gateway estimates the other."""


def check_completed(gateway: Gateway, answer: httpx.Response, name: str) -> None:
    input_tokens, output_tokens, source = charged(gateway, answer)
    assert source == "estimated"
    if PARTS[name].get("prompt_tokens"):
        assert (input_tokens, output_tokens >= 1) == (3, True)
    else:
        assert (input_tokens >= OF_HELLO, output_tokens) == (True, 4)


@pytest.mark.parametrize("api", ["messages", "chat"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", LIES)
def test_an_impossible_count_is_replaced_by_an_estimate(
    name: str, streamed: bool, api: str, gateway: Gateway, provider: Scripted
) -> None:
    """Translated for Anthropic's client, which would be told zeros, and passed through for OpenAI's client."""
    usage = LIES[name]
    text = [chunk("word "), chunk("and more")]
    play(provider, stream(*text, DONE, {**USED, "usage": usage}) if streamed else plain(completion(usage=usage)))
    check_estimated(gateway, ask(gateway, api, "oai", streamed=streamed))


@pytest.mark.parametrize("api", ["messages", "chat"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", PARTS)
def test_a_single_count_that_was_reported_is_kept(
    name: str, streamed: bool, api: str, gateway: Gateway, provider: Scripted
) -> None:
    usage = PARTS[name]
    text = [chunk("word "), chunk("and more")]
    play(provider, stream(*text, DONE, {**USED, "usage": usage}) if streamed else plain(completion(usage=usage)))
    check_completed(gateway, ask(gateway, api, "oai", streamed=streamed), name)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"input_tokens": -3, "output_tokens": 4},
        {"input_tokens": "3", "output_tokens": "4"},
        {"input_tokens": 0, "output_tokens": 0},
        {"output_tokens": 4},
        {"input_tokens": 10**9, "cache_read_input_tokens": 10**9, "output_tokens": 5},
    ],
    ids=json.dumps,
)
def test_an_impossible_count_of_anthropic_is_replaced_by_an_estimate(
    usage: Any, streamed: bool, gateway: Gateway, provider: Scripted
) -> None:
    """The client is OpenAI's."""
    content = {"type": "text", "text": "word and more"}
    message = {"type": "message", "id": "m", "model": "c", "content": [content], "stop_reason": "end_turn"}
    said = (
        {"type": "message_start", "message": {"id": "m", "model": "c", "content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word and more"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
        {"type": "message_stop"},
    )
    play(provider, stream(*said, end=b"") if streamed else plain({**message, "usage": usage}))
    check_estimated(gateway, ask(gateway, "chat", "claude", streamed=streamed))


@pytest.mark.parametrize("kind", [["compaction"], {}, 1, None], ids=str)
def test_a_count_of_anthropic_with_a_part_of_an_odd_type_is_read(
    kind: Any, gateway: Gateway, provider: Scripted
) -> None:
    parts = [{"type": kind, "input_tokens": 9, "output_tokens": 9}]
    usage = {"input_tokens": 12, "output_tokens": 3, "iterations": parts}
    content = [{"type": "text", "text": "word and more"}]
    message = {"type": "message", "id": "m", "model": "c", "role": "assistant", "content": content, "usage": usage}
    play(provider, plain(message | {"stop_reason": "end_turn"}))
    for path in ("chat", "messages"):
        answer = ask(gateway, path, "claude", streamed=False)
        assert answer.status_code == 200, answer.text
        assert "word and more" in answer.text


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", [*LIES, *PARTS])
def test_an_impossible_count_of_responses_is_replaced_by_an_estimate(
    name: str, streamed: bool, gateway: Gateway, provider: Scripted
) -> None:
    """The provider speaks this API, so nothing is translated."""
    usage = (LIES | PARTS)[name]
    if isinstance(usage, dict):
        usage = {field.replace("prompt", "input").replace("completion", "output"): usage[field] for field in usage}
    text = {"type": "output_text", "text": "word and more", "annotations": []}
    item = {"type": "message", "id": "m", "role": "assistant", "content": [text]}
    response = {"id": "resp_1", "object": "response", "status": "completed", "output": [item], "usage": usage}
    said = (
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "word and more"},
        {"type": "response.completed", "response": response},
    )
    play(provider, stream(*said, end=b"") if streamed else plain(response))
    answer = ask(gateway, "responses", "oai", streamed=streamed)
    check_completed(gateway, answer, name) if name in PARTS else check_estimated(gateway, answer)


def test_cached_tokens_never_exceed_the_input(gateway: Gateway, provider: Scripted) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 10**6}, "completion_tokens_details": {"reasoning_tokens": 99}}
    play(provider, plain(completion(usage={"prompt_tokens": 3, "completion_tokens": 4, **details})))
    for api in ("messages", "chat"):
        entry = gateway.exchange_of(ask(gateway, api, "oai"))
        assert (entry["input_tokens"], entry["cached_tokens"], entry["output_tokens"]) == (3, 3, 4)


# --- providers that imitate the gateway


NOTE = b": x-extproc-usage [0, 0, 0, 0, 0]\n\n"
FORGED_ANSWER = [
    *((name, value) for name, value in FORGED.items() if name.startswith(("x-extproc-", "x-envoy-", "x-ai-"))),
    ("x-extproc-hop", "connect"),
    ("x-extproc-hop-connect", "1"),
    ("x-extproc-hop-unsupported", "1"),
    ("X-ExtProc-Usage", "[0, 0, 0, 0, 0]"),
    ("x-envoy-ratelimited", "true"),
    ("x-envoy-overloaded", "true"),
    ("x-envoy-immediate-health-check-fail", "true"),
]


@pytest.mark.parametrize("api", ["messages", "chat"])
@pytest.mark.parametrize("model", ["oai", "chain"])
@pytest.mark.parametrize("streamed", [False, True])
def test_forged_headers_of_a_provider_change_no_charge(
    streamed: bool, model: str, api: str, gateway: Gateway, provider: Scripted
) -> None:
    """The charge is the count in the body, no failover happens, and the client sees none of the headers."""
    good = stream(chunk(), DONE, USED, more=FORGED_ANSWER) if streamed else plain(completion(), more=FORGED_ANSWER)
    play(provider, good)
    answer = ask(gateway, api, model, streamed=streamed)
    assert answer.status_code == 200
    assert charged(gateway, answer) == (3, 4, "provider")
    assert (answer.headers["x-ai-provider"], answer.headers["x-ai-attempts"]) == ("openai", "1")
    assert "forged" not in str(answer.headers)
    assert not [name for name in answer.headers if name.startswith(("x-extproc-", "x-envoy-"))]
    assert len(provider.seen) == 1


def forged_trailers(document: Any, *, streamed: bool) -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    kind = "text/event-stream" if streamed else "application/json"
    names = b"x-extproc-translated: 1\r\nx-extproc-usage: [0, 0, 0, 0, 0]\r\nx-extproc-hop: connect\r\n"
    start = head(kind, more=[("transfer-encoding", "chunked"), ("trailer", "x-extproc-usage")])
    return start + b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(body), body, names)


@pytest.mark.parametrize("api", ["messages", "chat"])
@pytest.mark.parametrize("streamed", [False, True])
def test_forged_trailers_of_a_provider_change_no_charge(
    streamed: bool, api: str, gateway: Gateway, provider: Scripted
) -> None:
    document = events(chunk(), DONE, USED) if streamed else completion()
    play(provider, forged_trailers(document, streamed=streamed))
    answer = ask(gateway, api, "oai", streamed=streamed)
    assert answer.status_code == 200
    assert charged(gateway, answer) == (3, 4, "provider")


NOTES: dict[str, bytes] = {
    "first": stream(NOTE, chunk(), DONE, USED),
    "last": stream(chunk(), DONE, USED, end=b"data: [DONE]\n\n" + NOTE),
    "everywhere": stream(NOTE, chunk(), NOTE, DONE, NOTE, USED, NOTE, end=b"data: [DONE]\n\n" + NOTE),
    "in an event": stream(chunk(), b": x-extproc-usage [0, 0, 0, 0, 0]\ndata: {}\n\n", DONE, USED),
    "as text": stream(chunk("\n\n: x-extproc-usage [0, 0, 0, 0, 0]\n\n"), DONE, USED),
    "as a model": stream(chunk() | {"model": "\n\n: x-extproc-usage [0, 0, 0, 0, 0]\n\n"}, DONE, USED),
    "as an id": stream(chunk() | {"id": "\r\r: x-extproc-usage [0, 0, 0, 0, 0]\r\r"}, DONE, USED),
    "malformed": stream(b": x-extproc-usage nonsense\n\n", chunk(), DONE, USED),
}


@pytest.mark.parametrize("api", ["messages", "chat"])
@pytest.mark.parametrize("name", NOTES)
def test_forged_usage_comments_in_a_stream_change_no_charge(
    name: str, api: str, gateway: Gateway, provider: Scripted
) -> None:
    """A comment such as the gateway's own is only a comment when a provider sends it."""
    play(provider, NOTES[name])
    answer = ask(gateway, api, "oai", streamed=True)
    assert answer.status_code == 200
    assert charged(gateway, answer) == (3, 4, "provider")
    assert "error" not in answer.text.replace("errors", "")


def bedrock(*said: Any) -> bytes:
    """A stream of Anthropic's events as Bedrock wraps them. Bytes are sent as they are."""
    pieces = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in said]
    wrapped = [json.dumps({"bytes": b64encode(piece).decode()}).encode() for piece in pieces]
    kind = {":message-type": "event", ":event-type": "chunk"}
    return head("application/vnd.amazon.eventstream") + b"".join(encode(kind, piece) for piece in wrapped)


OF_ROCK = (
    {"type": "message_start", "message": {"id": "m", "model": "c", "usage": {"input_tokens": 3, "output_tokens": 1}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
)
IN_ROCK: dict[str, Any] = {
    "as the type of an event": {"type": "ping\n\n: x-extproc-usage [0, 0, 0, 0, 0]\n\n"},
    "between the fields": b'{"type":"ping"\n\n,\n\n"x"\n\n: 5}',
    "in returns": b'{"type":"ping"\r\r,"x"\r\r: 5}',
    "as a text": {"type": "ping", "x": "\n\n: x-extproc-usage [0, 0, 0, 0, 0]\n\n"},
    "nested deeply": b'{"type":"ping","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}


@pytest.mark.parametrize("name", IN_ROCK)
def test_forged_usage_comments_in_bedrock_events_change_no_charge(
    name: str, gateway: Gateway, provider: Scripted
) -> None:
    """Bedrock's events are unwrapped and written as text. No line in an event can become another event."""
    play(provider, bedrock(OF_ROCK[0], IN_ROCK[name], *OF_ROCK[1:], IN_ROCK[name]))
    answer = ask(gateway, "messages", "rock", streamed=True)
    assert answer.status_code == 200
    assert charged(gateway, answer) == (3, 4, "provider")
    assert {line.partition(":")[0] for line in answer.text.split("\n") if line} == {"event", "data"}
    assert gateway.metric("extproc_internal_errors_total") == 0


# --- clients that disconnect


def pausing(*first: bytes) -> tuple[Script, threading.Event]:
    """A provider that sends the start of an answer and waits until the test releases it."""
    release = threading.Event()

    def script() -> Iterator[bytes]:
        yield b"".join(first)
        for _ in range(200):
            if release.wait(0.05):
                return
            yield b": a\n\n"

    return script, release


@pytest.mark.parametrize("api", ["messages", "chat"])
def test_a_client_that_disconnects_mid_stream_is_charged_for_what_it_received(
    api: str, gateway: Gateway, provider: Scripted
) -> None:
    """Translated or not: the input, and the output that was seen."""
    script, release = pausing(stream(*[chunk("word ") for _ in range(30)], end=b""))
    play(provider, script)
    path = {"messages": "/v1/messages", "chat": "/v1/chat/completions"}[api]
    body = {"model": "oai", "max_tokens": 500, "stream": True, "messages": HELLO}
    with gateway.http.stream(
        "POST", gateway.url + path, json=body, headers={"authorization": f"Bearer {KEY}"}
    ) as answer:
        seen = 0
        for piece in answer.iter_raw():
            seen += piece.count(b"word ")
            if seen == 30:
                break
    entry = gateway.exchange_of(answer)
    release.set()
    assert (entry["error"], entry["usage_source"]) == ("incomplete", "estimated")
    assert entry["input_tokens"] >= OF_HELLO
    assert entry["output_tokens"] >= 30


def test_a_client_that_disconnects_after_the_last_event_is_charged_the_reported_count(
    gateway: Gateway, provider: Scripted
) -> None:
    """The provider keeps the connection open after its end marker. The count came before it."""
    script, release = pausing(stream(chunk(), DONE, USED))
    play(provider, script)
    body = {"model": "oai", "max_tokens": 500, "stream": True, "messages": HELLO}
    url, headers = gateway.url + "/v1/messages", {"authorization": f"Bearer {KEY}"}
    with gateway.http.stream("POST", url, json=body, headers=headers) as answer:
        text = b""
        for piece in answer.iter_raw():
            text += piece
            if b"event: message_stop" in text:
                break
    release.set()
    assert charged(gateway, answer) == (3, 4, "provider")


# --- reservations are never less than the tokens used


def left(gateway: Gateway) -> int:
    """Tokens the budget has left, read from the refusal of a request that can never fit."""
    answer = gateway.chat("good", max_tokens=1_000_000_000)
    assert answer.status_code == 400, answer.text
    return int(answer.headers["x-ratelimit-remaining-tokens"])


def limit_of(body: dict[str, Any]) -> int:
    """The output limit in the request that a provider got."""
    nested = body.get("generationConfig") or body.get("inferenceConfig") or body
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "maxTokens")
    return next(nested[name] for name in names if name in nested)


THINK = {"thinking": {"type": "enabled", "budget_tokens": 50_000}}
TRICKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "no limit": ("chat", "oai", {}),
    "no limit, to Gemini": ("chat", "gemini", {}),
    "no limit, responses to Gemini": ("responses", "gemini", {}),
    "null": ("chat", "gemini", {"max_tokens": None}),
    "1 and an effort": ("chat", "gemini", {"max_tokens": 1, "reasoning_effort": "high"}),
    "1 and the highest effort": ("chat", "gemini", {"max_tokens": 1, "reasoning_effort": "max"}),
    "1 and no effort": ("chat", "gemini", {"max_tokens": 1, "reasoning_effort": "none"}),
    "1 and thinking": ("chat", "command", {"max_tokens": 1, **THINK}),
    "1 and reasoning in tokens": ("chat", "claude", {"max_tokens": 1, "reasoning": {"max_tokens": 60_000}}),
    "1 and reasoning by effort": ("chat", "claude", {"max_tokens": 1, "reasoning": {"effort": "xhigh"}}),
    "messages with thinking to Gemini": ("messages", "gemini", {"max_tokens": 1, **THINK}),
    "messages with thinking to Cohere": ("messages", "command", {"max_tokens": 1, **THINK}),
    "messages with an effort": ("messages", "gemini", {"max_tokens": 1, "output_config": {"effort": "max"}}),
    "messages that mark their cache": ("messages", "claude-marked", {"max_tokens": 1, **THINK}),
    "messages with what a translation left": (
        "messages",
        "claude",
        {"max_tokens": 1, "metadata": {"user_id": "x", "extra_content": "x"}, **THINK},
    ),
    "adaptive": ("messages", "claude-marked", {"max_tokens": 1, "thinking": {"type": "adaptive"}}),
    "responses with an effort": ("responses", "gemini", {"max_output_tokens": 1, "reasoning": {"effort": "high"}}),
    "responses with the highest effort": ("responses", "claude", {"reasoning": {"effort": "max"}}),
    "below what the model can write": ("messages", "capped", {"max_tokens": 1, **THINK}),
    "above what the model can write": ("messages", "capped", {"max_tokens": 1_000_000, **THINK}),
    "an effort that the target sets": ("chat", "thinks", {"max_tokens": 1}),
    "completions": ("completions", "oai", {"max_tokens": 40}),
    "completions without a limit": ("completions", "oai", {}),
    "completions that echo": ("completions", "oai", {"max_tokens": 0, "echo": True}),
}
CHOICES: dict[str, tuple[str, dict[str, Any], int]] = {
    "n": ("chat", {"n": 5}, 5),
    "n of completions": ("completions", {"n": 5}, 5),
    "best_of": ("completions", {"best_of": 7}, 7),
    "best_of and n": ("completions", {"best_of": 7, "n": 3}, 7),
    "prompts": ("completions", {"prompt": ["a", "b", "c"], "n": 2}, 6),
    "prompts of tokens": ("completions", {"prompt": [[1], [2], [3], [4]]}, 4),
    "one prompt of tokens": ("completions", {"prompt": [1, 2, 3, 4]}, 1),
}


def held(gateway: Gateway, provider: Scripted, api: str, model: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    """The reservation while the request is at the provider, and the request that arrived there."""
    release = threading.Event()

    def script() -> Iterator[bytes]:
        release.wait(20)
        yield plain(completion(), status=500)

    before = left(gateway)
    play(provider, script)
    thread = threading.Thread(target=ask, args=(gateway, api, model), kwargs=fields)
    thread.start()
    try:
        [body] = eventually(lambda: provider.seen)
        return before - left(gateway), body
    finally:
        release.set()
        thread.join()


@pytest.mark.parametrize("name", TRICKS)
def test_the_reservation_covers_the_output_limit_the_provider_gets(
    name: str, gateway: Gateway, provider: Scripted
) -> None:
    api, model, fields = TRICKS[name]
    tokens, body = held(gateway, provider, api, model, **fields)
    assert limit_of(body) <= tokens
    eventually(lambda: left(gateway) >= 890_000_000)  # given back: nothing was written


@pytest.mark.parametrize("name", CHOICES)
def test_the_reservation_covers_every_choice(name: str, gateway: Gateway, provider: Scripted) -> None:
    api, fields, choices = CHOICES[name]
    tokens, body = held(gateway, provider, api, "oai", max_tokens=100, **fields)
    assert limit_of(body) == 100
    assert 100 * choices < tokens < 100 * choices + 1_000


@pytest.mark.parametrize(
    ("api", "field", "values"),
    [
        ("messages", "max_tokens", ["-1", '"5"', "1e308", "1e400", "null", "true", "1.5", "[]", "10000000001"]),
        ("responses", "max_output_tokens", ["0", "-1", '"5"', "1e308", "1e400", "true", "1.5", "[]", "10000000001"]),
        ("completions", "max_tokens", ["-1", '"5"', "1e308", "1e400", "true", "1.5", "[]", "10000000001"]),
        ("completions", "n", ["0", "-1", '"5"', "1e308", "129"]),
        ("completions", "best_of", ["0", "-1", '"5"', "1e308", "129"]),
        ("chat", "max_completion_tokens", ["0", "-1", '"5"', "1e308", "1e400", "true", "1.5", "[]"]),
    ],
)
def test_an_invalid_output_limit_is_refused_and_free(
    api: str, field: str, values: list[str], gateway: Gateway, provider: Scripted
) -> None:
    """Nothing is reserved or charged."""
    play(provider, plain(completion()))
    before = left(gateway)
    for value in values:
        known = {"messages": {"max_tokens": 50, "messages": HELLO}, "responses": {"input": "Hi"}}.get(api)
        body: dict[str, Any] = {"model": "oai", "prompt": "Hi", "messages": HELLO} if known is None else known
        text = json.dumps({"model": "oai", **body, field: 0}).replace(f'"{field}": 0', f'"{field}": {value}')
        path = {"messages": "/v1/messages", "responses": "/v1/responses", "completions": "/v1/completions"}.get(api)
        answer = gateway.post(
            path or "/v1/chat/completions", content=text, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400, (value, answer.text)
    assert provider.seen == []
    assert left(gateway) == before


# --- token counts


def test_counting_tokens_is_free_and_counts_as_a_request(gateway: Gateway, provider: Scripted) -> None:
    """A provider that reports tokens used for it is not believed."""
    play(provider, plain({"input_tokens": 12, "usage": {"input_tokens": 500, "output_tokens": 500}}))
    before = left(gateway)
    body = {"model": "claude", "messages": HELLO}
    answer = gateway.post("/v1/messages/count_tokens", body)
    assert (answer.status_code, answer.json()["input_tokens"]) == (200, 12)
    assert charged(gateway, answer) == (0, 0, "none")
    assert left(gateway) == before
    statuses = [gateway.post("/v1/messages/count_tokens", body, key="sk-gw-counter").status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert len(provider.seen) == 4


def test_the_charges_above_caused_no_internal_error(running: Gateway) -> None:
    eventually(lambda: running.metric("extproc_exchanges_in_flight") == 0)
    assert running.metric("extproc_internal_errors_total") == 0
