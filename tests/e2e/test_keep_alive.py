"""Comments for clients while a provider thinks, through a real Envoy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import anthropic
import httpx
import openai
import pytest

from extproc.dialects import client_apis
from tests.e2e.conftest import KEY, Gateway, run_gateway
from tests.e2e.scripted import Scripted, head
from tests.guardrails.streams import PATHS as ALL
from tests.guardrails.streams import request, stream

PATHS = {api: path for api, path in ALL.items() if api != "gemini_generate_content"}  # whose clients skip no comments
COMMENT = b": keep-alive\n\n"
PAUSE = 2.3  # seconds: silent streams are looked at about every second
YAML = """
models: {%s}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: guarded, keys: [{env: GUARDED_KEY}]}
guardrails:
  - {name: words, kind: regex, longest: 10, patterns: {word: 'CANARY'}, on: [output], action: block,
     applies_to: {consumers: [guarded]}}
limits: {keep_alive: 1s}
stores: {counters: "memory:"}
"""
COMMENTED = [api for api in PATHS if client_apis()[api].answers.comments]
TEXTS = ["Hello ", "there, ", "friend"]
SAY: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def providers() -> Iterator[dict[str, Scripted]]:
    """One for each API, which is its name."""
    with ExitStack() as stack:
        yield {api: stack.enter_context(Scripted().running()) for api in COMMENTED}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, providers: dict[str, Scripted]) -> Iterator[Gateway]:
    head = "providers:\n"
    for api, one in providers.items():
        kind = "anthropic" if api == "anthropic_messages" else "openai"
        head += f'  {api}: {{kind: {kind}, base_url: "{one.url}/v1", api_key: env:EXTPROC_DEMO_KEY}}\n'
    text = head + YAML % ", ".join(f"{api}: {{provider: {api}}}" for api in providers)
    yield from run_gateway(tmp_path_factory.mktemp("alive"), text, (), {"GUARDED_KEY": "sk-gw-guarded"})


def pauses(body: bytes) -> Callable[[], Iterator[bytes]]:
    """An answer with a pause in the middle of its second event."""
    place = body.index(b"\n\n") + 20

    def script() -> Iterator[bytes]:
        yield head("text/event-stream") + body[:place]
        time.sleep(PAUSE)
        yield body[place:]

    return script


def posted(gateway: Gateway, api: str, key: str = KEY) -> httpx.Response:
    return gateway.post(PATHS[api], request(api) | {"model": api}, key=key)


def test_clients_get_comments_while_the_provider_thinks(gateway: Gateway, providers: dict[str, Scripted]):
    written = {api: stream(api, TEXTS) for api in COMMENTED}
    for api, one in providers.items():
        one.script = pauses(written[api])
    with ThreadPoolExecutor() as pool:
        answers = dict(zip(COMMENTED, pool.map(lambda api: posted(gateway, api), COMMENTED), strict=True))
    for api, answer in answers.items():
        assert COMMENT in answer.content, api
        assert answer.content.replace(COMMENT, b"") == written[api], "the provider's events are as they were"
        assert gateway.exchange_of(answer)["complete"]


def test_sdks_read_answers_with_comments(gateway: Gateway, providers: dict[str, Scripted]):
    """Two of the answers are translated."""
    models = "anthropic_messages", "openai_chat"
    for api in models:
        providers[api].script = pauses(stream(api, TEXTS))

    def chat(model: str) -> str:
        with openai.OpenAI(api_key=KEY, base_url=gateway.base_url, max_retries=0, timeout=20) as client:
            chunks = list(client.chat.completions.create(model=model, messages=SAY, stream=True))
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    def messages(model: str) -> str:
        with (
            anthropic.Anthropic(api_key=KEY, base_url=gateway.url, max_retries=0, timeout=20) as client,
            client.messages.stream(model=model, messages=SAY, max_tokens=9) as answer,
        ):
            return answer.get_final_text()

    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(ask, model) for ask in (chat, messages) for model in models]
    assert {one.result() for one in asked} == {"".join(TEXTS)}


def test_nothing_leaves_before_the_first_window_of_guardrails(gateway: Gateway, providers: dict[str, Scripted]):
    """The pause is shorter than the window's longest wait, so a block in it is a real 400."""
    providers["openai_chat"].script = pauses(stream("openai_chat", ["CANARY", "..."]))
    answer = posted(gateway, "openai_chat", "sk-gw-guarded")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "guardrail_blocked")


def test_nothing_leaves_before_the_first_bytes(gateway: Gateway, providers: dict[str, Scripted]):
    """Not even behind the head of the answer: Envoy would end it."""

    def script() -> Iterator[bytes]:
        yield head("text/event-stream")
        time.sleep(PAUSE)
        yield stream("openai_chat", TEXTS)

    providers["openai_chat"].script = script
    assert posted(gateway, "openai_chat").content == stream("openai_chat", TEXTS)
