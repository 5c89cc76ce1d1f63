"""What is charged is what was used, through a real Envoy: long answers, pictures, lies, and clients that leave."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import pytest

from extproc.money.budgets import tokenizer
from tests.e2e import raw
from tests.e2e.conftest import KEY, Gateway, run_gateway
from tests.e2e.scripted import Scripted, events, head, plain, stream
from tests.e2e.test_abuse_answers import DONE, USED, chunk, completion, play
from tests.e2e.test_abuse_charges import charged, pausing

OF_URL = "outlier_detection: {consecutive_5xx: 10000}"
YAML = f"""
providers:
  openai: {{kind: openai, base_url: "URL/v1", {OF_URL}}}
  anthropic: {{kind: anthropic, base_url: "URL/v1", {OF_URL}}}
models:
  plain: {{provider: openai, model: gpt-4o, price: {{input: 1, output: 2}}}}
  thinker: {{provider: openai, model: o3, price: {{input: 1, output: 2}}}}
  claude: {{provider: anthropic, model: claude-sonnet-4-5}}
consumers:
  - {{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}]}}
budgets:
  - {{name: tokens, unit: tokens, limit: 900000000, window: hour}}
  - {{name: usd, unit: usd, limit: 100000, window: month}}
stores: {{counters: "memory:"}}
"""
HELLO = [{"role": "user", "content": "Hello there. " * 20}]
PICTURE = b64encode(Random(1).randbytes(3 << 20)).decode()


@pytest.fixture(scope="module")
def running(provider: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("usage"), YAML.replace("URL", provider.url), (), {})


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    running.reset()
    return running


def ask(gateway: Gateway, model: str = "plain", **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": HELLO} | fields
    return gateway.post("/v1/chat/completions", body, timeout=30)


def leave(gateway: Gateway, provider: Scripted, body: dict[str, Any], until: bytes, *said: bytes) -> dict[str, Any]:
    """The record of a client that leaves when it has seen `until`."""
    script, release = pausing(*said)
    play(provider, script)
    url, headers = gateway.url + "/v1/chat/completions", {"authorization": f"Bearer {KEY}"}
    with gateway.http.stream("POST", url, json=body | {"stream": True}, headers=headers) as answer:
        seen = b""
        for piece in answer.iter_raw():
            seen += piece
            if until in seen:
                break
    entry = gateway.exchange_of(answer)
    release.set()
    return entry


# --- lengths


def test_usage_in_the_middle_of_an_answer_over_the_limit_is_charged(gateway: Gateway, provider: Scripted) -> None:
    """As one long event, and as a plain body over its limit. A call's arguments that look like usage are none."""
    used = {"prompt_tokens": 300, "completion_tokens": 40, "total_tokens": 340}
    lie = {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    long = {"logprobs": [lie, PICTURE * 3], "usage": used, "more": [PICTURE], "also": {"text": "word " * 60_000, **lie}}
    for streamed in (True, False):
        play(provider, stream(long) if streamed else plain(long))
        answer = ask(gateway, stream=streamed)
        assert len(answer.content) > 12 << 20
        assert charged(gateway, answer) == (300, 40, "provider")


def test_an_answer_does_not_begin_in_the_one_before(gateway: Gateway, provider: Scripted) -> None:
    """A stream whose provider says its length loses an event; the next answer on the connection is whole."""
    said = events(chunk("Hello"), DONE, USED)
    streamed = head("text/event-stream", more=[("content-length", str(len(said)))]) + said
    body = json.dumps({"model": "plain", "messages": HELLO, "stream": True}).encode()
    request = raw.message(
        headers=[
            ("host", "gateway"),
            ("authorization", f"Bearer {KEY}"),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
        ],
        body=body,
    )
    with raw.connect(gateway.url) as connection:
        for _ in range(3):
            play(provider, streamed)
            reply = raw.exchange(connection, [request])
            assert reply is not None
            assert reply.status == 200
            assert "content-length" not in reply.headers
            assert reply.body == events(chunk("Hello"), DONE), "without the usage, which the client did not ask for"


@pytest.mark.parametrize("first", [False, True])
def test_embeddings_of_many_inputs(first: bool, gateway: Gateway, provider: Scripted) -> None:
    vectors = [{"object": "embedding", "index": index, "embedding": [0.0123456789] * 1536} for index in range(650)]
    usage = {"usage": {"prompt_tokens": 6500, "total_tokens": 6500}}
    answer = {**(usage if first else {}), "object": "list", "data": vectors, "model": "e", **usage}
    data = json.dumps(answer).encode()
    assert len(data) > 10 << 20
    play(provider, plain(data))
    reply = gateway.post("/v1/embeddings", {"model": "plain", "input": ["a longer text"] * 650}, timeout=30)
    assert reply.content == data
    assert charged(gateway, reply) == (6500, 0, "provider")


def test_a_streamed_picture(gateway: Gateway, provider: Scripted) -> None:
    item = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": PICTURE}
    usage = {"input_tokens": 50, "output_tokens": 4200}
    response = {"id": "r", "model": "m", "status": "completed", "output": [item], "usage": usage, "user": None}
    said = (
        {"type": "response.image_generation_call.partial_image", "partial_image_b64": PICTURE},
        {"type": "response.completed", "response": response},
    )
    play(provider, stream(*said, end=b""))
    body = {"model": "plain", "input": "Draw a cat", "stream": True, "max_output_tokens": 5000}
    answer = gateway.post("/v1/responses", body, timeout=30)
    assert answer.content == events(*said, end=b"")
    assert charged(gateway, answer) == (50, 4200, "provider")


# --- lies


def test_usage_that_cannot_be_true(gateway: Gateway, provider: Scripted) -> None:
    play(provider, plain(completion(usage={"prompt_tokens": 3, "completion_tokens": 10**9})))
    answer = ask(gateway, max_tokens=5)
    assert charged(gateway, answer) == (3, 5, "disputed")
    assert gateway.exchange_of(answer)["cost_usd"] == pytest.approx(13e-6)
    assert gateway.metric("extproc_usage_total", source="disputed") >= 1


# --- clients that leave


def test_hidden_thinking(gateway: Gateway, provider: Scripted) -> None:
    text = stream(*[chunk("word ") for _ in range(33)], chunk("over "), end=b"")
    entry = leave(gateway, provider, {"model": "thinker", "messages": HELLO}, b"over ", text)
    assert entry["usage_source"] == "estimated"
    assert 0.9 * 6_020 <= entry["output_tokens"] <= 1.6 * 6_020, "of 6,020 tokens, 5,986 of them thoughts"


@pytest.mark.parametrize("kind", ["base64", "Chinese", "JSON"])
def test_dense_text(kind: str, gateway: Gateway, provider: Scripted) -> None:
    tokenizer.load().join()
    rows = [{"id": 1_000_003 * i, "ok": i % 2 == 0, "tags": ["a", "bc"]} for i in range(90)]
    text = {
        "base64": b64encode(Random(2).randbytes(3_000)).decode(),
        "Chinese": "今天天气很好，我们去公园散步。人工智能正在改变世界，许多公司都在使用大型语言模型来提高工作效率。"
        * 20,
        "JSON": json.dumps(rows),
    }[kind]
    pieces = [chunk(text[start : start + 40]) for start in range(0, len(text), 40)]
    entry = leave(
        gateway, provider, {"model": "plain", "messages": HELLO}, b"THE END", stream(*pieces, chunk("THE END"), end=b"")
    )
    true = tokenizer.count([text])
    assert true is not None
    assert 0.9 * true <= entry["output_tokens"] <= 1.6 * true


def test_the_beginning_of_an_anthropic_stream(gateway: Gateway, provider: Scripted) -> None:
    """Translated: what it told of the input is charged, not a guess of the body."""
    usage = {"input_tokens": 10, "cache_read_input_tokens": 4_000, "output_tokens": 1}
    said = (
        {"type": "message_start", "message": {"id": "m", "model": "c", "content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 34 + "over"}},
    )
    body = {"model": "claude", "messages": [{"role": "user", "content": "word " * 40_000}], "max_tokens": 900}
    entry = leave(gateway, provider, body, b"over", stream(*said, end=b""))
    assert (entry["input_tokens"], entry["cached_tokens"], entry["usage_source"]) == (4_010, 4_000, "estimated")
    assert 34 <= entry["output_tokens"] <= 55


# --- what is sent


def test_no_silent_cap(gateway: Gateway, provider: Scripted) -> None:
    play(provider, plain(completion()))
    answer = ask(gateway)
    assert answer.status_code == 200
    assert set(provider.seen[-1]) == {"model", "messages"}
    assert "x-ai-capped" not in answer.headers


def test_an_option_without_a_price_is_left_out(gateway: Gateway, provider: Scripted) -> None:
    play(provider, plain(completion()))
    answer = ask(gateway, service_tier="scale")
    assert set(provider.seen[-1]) == {"model", "messages"}
    assert answer.headers["x-ai-ignored"] == "service_tier"
