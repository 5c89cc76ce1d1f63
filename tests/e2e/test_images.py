"""Images that models make, through Envoy: whole and streamed, several MiB each, in every client API that holds them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Gateway, run_gateway
from tests.e2e.scripted import Scripted, events, head, plain

YAML = """
providers:
  google: {kind: gcp_gemini, base_url: "AT/v1beta", api_key: env:EXTPROC_DEMO_KEY}
  router: {kind: openrouter, base_url: "AT/v1", api_key: env:EXTPROC_DEMO_KEY}
  anthropic: {kind: anthropic, base_url: "AT/v1", api_key: env:EXTPROC_DEMO_KEY}
models:
  painter: {provider: google, model: gemini-2.5-flash-image}
  routed: {provider: router, model: google/gemini-2.5-flash-image}
  writer: {provider: anthropic, model: claude-sonnet-4-6}
virtual_models:
  either: {targets: [{model: writer}, {model: painter}]}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
limits: {request_body: 20MiB}
stores: {counters: "memory:"}
"""
IMAGE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + os.urandom(3 << 20)).decode()  # 4 MiB
URL = "data:image/png;base64," + IMAGE
SAY: Any = [{"role": "user", "content": "A cat"}]
ASK = {"messages": SAY, "modalities": ["image", "text"]}
PART = {"inlineData": {"mimeType": "image/png", "data": IMAGE}}
GEMINI = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Here:"}, PART]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 1300, "totalTokenCount": 1304},
    "modelVersion": "gemini-2.5-flash-image",
}
SHOWN = {"type": "image_url", "image_url": {"url": URL}}
USAGE = {"prompt_tokens": 4, "completion_tokens": 1300, "total_tokens": 1304}
ROUTED = {"role": "assistant", "content": "Here:", "images": [SHOWN]}


def chat(name: str) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion" if name == "message" else "chat.completion.chunk",
        "created": 1,
        "model": "google/gemini-2.5-flash-image",
        "choices": [{"index": 0, name: ROUTED, "finish_reason": "stop"}],
        "usage": USAGE,
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: Scripted) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("images"), YAML.replace("AT", provider.url), (), {})


def answers(provider: Scripted, model: str, *, stream: bool) -> None:
    written: Any = GEMINI if model == "painter" else chat("delta" if stream else "message")
    end = b"" if model == "painter" else b"data: [DONE]\n\n"
    provider.answer(head("text/event-stream") + events(written, end=end) if stream else plain(written))


def chunks(body: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("model", ["painter", "routed"])
def test_an_image_reaches_clients_of_chat(gateway: Gateway, provider: Scripted, model: str):
    answers(provider, model, stream=False)
    answer = gateway.post("/v1/chat/completions", {"model": model, **ASK})
    assert answer.json()["choices"][0]["message"]["images"] == [SHOWN]
    asked = provider.seen[0]
    wanted = asked["generationConfig"]["responseModalities"] if model == "painter" else asked["modalities"]
    assert sorted(wanted, key=str.lower) in (["IMAGE", "TEXT"], ["image", "text"])
    answers(provider, model, stream=True)
    answer = gateway.post(
        "/v1/chat/completions",
        {"model": model, "stream": True, "stream_options": {"include_usage": True}, **ASK},
    )
    found = [
        image["image_url"]["url"]
        for chunk in chunks(answer.text)
        for choice in chunk["choices"]
        for image in choice["delta"].get("images", ())
    ]
    assert found == [URL]
    told = gateway.exchange_of(answer)
    assert (told["complete"], told["output_tokens"], told["usage_source"]) == (True, 1300, "provider")


def test_an_image_reaches_clients_of_responses(gateway: Gateway, provider: Scripted):
    for stream in (False, True):
        answers(provider, "painter", stream=stream)
        answer = gateway.post("/v1/responses", {"model": "painter", "input": "A cat", "stream": stream})
        said = answer.json() if not stream else chunks(answer.text)[-1]["response"]
        [call] = [item for item in said["output"] if item["type"] == "image_generation_call"]
        assert (call["status"], call["result"] == IMAGE) == ("completed", True)
        assert gateway.exchange_of(answer)["output_tokens"] == 1300


def test_targets_that_make_no_images_are_skipped(gateway: Gateway, provider: Scripted):
    answers(provider, "painter", stream=False)
    answer = gateway.post("/v1/chat/completions", {"model": "either", **ASK})
    assert (answer.status_code, answer.headers["x-ai-model"]) == (200, "gemini-2.5-flash-image")
    assert gateway.exchange_of(answer)["skipped"] == {"writer": "dialect"}
    refused = gateway.post("/v1/chat/completions", {"model": "writer", **ASK})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], error["code"]) == (400, "modalities", "unsupported_by_targets")
    assert "image_output ('modalities')" in error["message"]


def test_an_image_of_an_earlier_answer_goes_on(gateway: Gateway, provider: Scripted):
    """To Gemini in its own turn, to Claude in the user's."""
    turns = [*SAY, ROUTED, {"role": "user", "content": "Make it red"}]
    answers(provider, "painter", stream=False)
    assert gateway.post("/v1/chat/completions", {"model": "painter", "messages": turns}).status_code == 200
    assert provider.seen[0]["contents"][1] == {"role": "model", "parts": [{"text": "Here:"}, PART]}
    provider.answer(plain({"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6",
                           "content": [{"type": "text", "text": "Red."}], "stop_reason": "end_turn",
                           "usage": {"input_tokens": 9, "output_tokens": 2}}))  # fmt: skip
    assert gateway.post("/v1/chat/completions", {"model": "writer", "messages": turns}).status_code == 200
    said = provider.seen[0]["messages"]
    types = [[block["type"] for block in message["content"]] for message in said]
    assert types[1:] == [["text"], ["text", "image", "text"]]
    assert said[2]["content"][1]["source"]["data"] == IMAGE
