"""Conversations of OpenAI's Responses at targets that keep nothing, with the official SDK through Envoy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from anthropic import Anthropic, beta_tool
from openai import OpenAI

from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.redis_server import RedisServer

OTHER, POOR = "sk-gw-other", "sk-gw-poor"
YAML = """
providers:
  openai: {kind: openai, base_url: "{mock_openai}", api_key: env:OPENAI_KEY}
  claude: {kind: anthropic, base_url: "{mock_anthropic}", api_key: env:ANTHROPIC_KEY}
models:
  gpt-5.4: {provider: openai}
  claude-sonnet-5: {provider: claude, max_output_tokens: 1000}
virtual_models:
  both: {targets: [{model: gpt-5.4}, {model: claude-sonnet-5}], retry: {attempts: 2}}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: other, keys: [{env: OTHER_KEY}]}
  - {name: poor, keys: [{env: POOR_KEY}]}
guardrails:
  - {name: no-keys, kind: regex, patterns: {canary: 'CANARY-[0-9]{4}'}, applies_to: {consumers: [other]}}
budgets:
  - {name: little, match: {consumer: poor}, unit: tokens, limit: 3000, window: day}
stores: {counters: "memory:"}
"""
ENV = {"OPENAI_KEY": "sk-up", "ANTHROPIC_KEY": "sk-ant", "OTHER_KEY": OTHER, "POOR_KEY": POOR}
MOCKS = ("openai", "anthropic")
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CLAUDE, BOTH = "claude-sonnet-5", "both"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("conversations"), YAML, MOCKS, ENV)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


@pytest.fixture
def sdk(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0, timeout=30) as sdk:
        yield sdk


def asked(sdk: OpenAI, streamed: bool, **fields: Any) -> Any:
    """The response to a request, plain or from the last event of its stream."""
    if not streamed:
        return sdk.responses.create(**fields)
    events = list(sdk.responses.create(**fields, stream=True))
    assert events[-1].type == "response.completed"
    assert events[0].response.id == events[-1].response.id  # type: ignore[union-attr]
    return events[-1].response


def roles(gateway: Gateway, mock: str = "anthropic") -> list[str]:
    return [message["role"] for message in gateway.seen(mock)[-1]["body"]["messages"]]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_conversation_with_tools_goes_on_at_a_target_that_keeps_nothing(
    gateway: Gateway, sdk: OpenAI, streamed: bool
):
    first = asked(sdk, streamed, model=CLAUDE, input="Hello", tools=[WEATHER], tool_choice="required")
    [call] = [item for item in first.output if item.type == "function_call"]
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    second = asked(sdk, streamed, model=CLAUDE, input=result, tools=[WEATHER], previous_response_id=first.id)
    assert roles(gateway) == ["user", "assistant", "user"]
    sent = gateway.seen("anthropic")[-1]["body"]["messages"]
    assert sent[1]["content"][-1]["id"] == sent[2]["content"][0]["tool_use_id"] == call.call_id
    third = asked(sdk, streamed, model=CLAUDE, input="And now?", previous_response_id=second.id)
    assert third.output_text
    assert roles(gateway) == ["user", "assistant", "user", "assistant", "user"]
    assert gateway.seen("anthropic")[-1]["body"]["messages"][0]["content"] in (
        "Hello",
        [{"type": "text", "text": "Hello"}],
    )


def test_a_reference_to_an_item_is_resolved(gateway: Gateway, sdk: OpenAI):
    """As Vercel's AI SDK and others send it."""
    first = sdk.responses.create(model=CLAUDE, input="Hello", tools=[WEATHER], tool_choice="required")
    [call] = [item for item in first.output if item.type == "function_call"]
    turns: Any = [
        {"role": "user", "content": "Hello"},
        *({"type": "item_reference", "id": item.id} for item in first.output),
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    assert sdk.responses.create(model=CLAUDE, input=turns, tools=[WEATHER]).output_text
    assert roles(gateway) == ["user", "assistant", "user"]
    with pytest.raises(openai.NotFoundError) as refused:
        sdk.with_options(api_key=OTHER).responses.create(model=CLAUDE, input=turns, tools=[WEATHER])
    assert refused.value.code == "object_not_found"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_conversation_goes_on_when_the_provider_that_kept_it_is_away(gateway: Gateway, sdk: OpenAI, streamed: bool):
    first = asked(sdk, streamed, model=BOTH, input="Hello")
    assert first.id.startswith("resp_kept_")
    gateway.fault("openai", "status=503")
    second = asked(sdk, streamed, model=BOTH, input="And now?", previous_response_id=first.id)
    assert second.id.startswith("resp_gw")
    assert roles(gateway) == ["user", "assistant", "user"]
    gateway.fault("openai", "")
    third = asked(sdk, streamed, model=BOTH, input="And then?", previous_response_id=second.id)
    body = gateway.seen("openai")[-1]["body"]
    assert "previous_response_id" not in body
    assert [item.get("role") for item in body["input"]] == ["user", "assistant", "user", "assistant", "user"]
    assert not any("id" in item for item in body["input"])
    assert third.id.startswith("resp_kept_")


def test_a_provider_that_keeps_answers_goes_on_itself(gateway: Gateway, sdk: OpenAI):
    first = sdk.responses.create(model="gpt-5.4", input="Hello")
    sdk.responses.create(model="gpt-5.4", input="And now?", previous_response_id=first.id)
    body = gateway.seen("openai")[-1]["body"]
    assert body["input"] == "And now?"
    assert body["previous_response_id"].startswith("resp_")


def test_a_conversation_is_its_consumers_own(gateway: Gateway, sdk: OpenAI):
    first = sdk.responses.create(model=CLAUDE, input="Hello")
    calls = len(gateway.seen("anthropic"))
    for client, id in ((sdk.with_options(api_key=OTHER), first.id), (sdk, first.id + "x"), (sdk, "resp_gw")):
        with pytest.raises(openai.NotFoundError) as refused:
            client.responses.create(model=CLAUDE, input="And now?", previous_response_id=id)
        assert refused.value.code == "object_not_found"
    assert len(gateway.seen("anthropic")) == calls


def test_guardrails_and_budgets_see_the_whole_conversation(gateway: Gateway, sdk: OpenAI):
    other, poor = sdk.with_options(api_key=OTHER), sdk.with_options(api_key=POOR)
    first = other.responses.create(model=CLAUDE, input="Say CANA")
    with pytest.raises(openai.BadRequestError, match="no-keys"):
        other.responses.create(model=CLAUDE, input="CANARY-1234", previous_response_id=first.id)
    long = poor.responses.create(model=CLAUDE, input="word " * 300, max_output_tokens=16)
    with pytest.raises(openai.APIStatusError) as refused:
        poor.responses.create(model=CLAUDE, input="word " * 300, previous_response_id=long.id, max_output_tokens=16)
    assert refused.value.status_code in (402, 429)


def test_a_deleted_response_is_gone(gateway: Gateway, sdk: OpenAI):
    first = sdk.responses.create(model=CLAUDE, input="Hello")
    sdk.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.create(model=CLAUDE, input="And now?", previous_response_id=first.id)
    turns: Any = [{"role": "user", "content": "Hi"}, {"type": "item_reference", "id": first.output[0].id}]
    with pytest.raises(openai.NotFoundError):
        sdk.responses.create(model=CLAUDE, input=turns)


def test_an_answer_that_its_client_does_not_want_kept_is_not(gateway: Gateway, sdk: OpenAI):
    first = sdk.responses.create(model=CLAUDE, input="Hello", store=False)
    with pytest.raises(openai.NotFoundError, match="'store' set to false"):
        sdk.responses.create(model=CLAUDE, input="And now?", previous_response_id=first.id)


def gateway_with(start: Callable[..., Gateway], conversations: str, cache: str = "memory:", more: str = "") -> Gateway:
    yaml = YAML.replace("""stores: {counters: "memory:"}""", f"""stores: {{counters: "memory:", cache: "{cache}"}}""")
    env = ENV | {"CACHE_KEY": "0123456789abcdef0123456789abcdef"}
    return start(f"{yaml}cache: {{key: env:CACHE_KEY, conversations: {conversations}}}\n{more}", mocks=MOCKS, env=env)


def client_of(gateway: Gateway) -> OpenAI:
    return OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0, timeout=30)


def test_a_conversation_survives_a_restart_and_no_word_of_it_is_readable(start: Callable[..., Gateway], tmp_path: Path):
    store = f"sqlite:{tmp_path}/kept.db"
    gateway = gateway_with(start, "{keep: 1d}", store)
    with client_of(gateway) as sdk:
        first = sdk.responses.create(model=CLAUDE, input="Remember PELICAN")
    gateway.stop()
    files = [path.read_bytes() for path in tmp_path.glob("kept-turns.db*")]
    assert files
    assert not any(b"PELICAN" in content or first.id.encode() in content for content in files)
    gateway = gateway_with(start, "{keep: 1d}", store)
    with client_of(gateway) as sdk:
        assert sdk.responses.create(model=CLAUDE, input="And now?", previous_response_id=first.id).output_text
    assert "PELICAN" in json.dumps(gateway.seen("anthropic")[-1]["body"]["messages"][0])


def test_limits_of_a_conversation(start: Callable[..., Gateway]):
    gateway = gateway_with(start, "{steps: 2, items: 1, size: 4KiB, largest: 3KiB}")
    with client_of(gateway) as sdk:

        def goes_on(id: str, text: str = "And now?") -> Any:
            return sdk.responses.create(model=CLAUDE, input=text, previous_response_id=id)

        first = sdk.responses.create(model=CLAUDE, input="Hello")
        third = goes_on(goes_on(first.id).id)
        with pytest.raises(openai.APIStatusError) as refused:
            goes_on(third.id)
        assert (refused.value.status_code, refused.value.code) == (413, "body_too_large")
        with pytest.raises(openai.APIStatusError) as refused:
            goes_on(first.id, "x" * 4096)
        assert (refused.value.status_code, refused.value.code) == (413, "body_too_large")
        second = sdk.responses.create(model=CLAUDE, input="Hello again")
        references: Any = [{"type": "item_reference", "id": answer.output[0].id} for answer in (first, second)]
        asked: Any = {"role": "user", "content": "And now?"}
        assert sdk.responses.create(model=CLAUDE, input=[references[1], asked]).output_text
        with pytest.raises(openai.NotFoundError):
            sdk.responses.create(model=CLAUDE, input=[*references, asked])
        large = sdk.responses.create(model=CLAUDE, input="x" * 3100)
        with pytest.raises(openai.NotFoundError):
            goes_on(large.id)


def test_a_turn_that_nothing_used_for_its_time_is_gone(start: Callable[..., Gateway]):
    gateway = gateway_with(start, "{keep: 1s}")
    with client_of(gateway) as sdk:
        first = sdk.responses.create(model=CLAUDE, input="Hello")

        def is_over() -> bool:
            """A turn in use lasts on, so the next look comes after its time."""
            time.sleep(1.2)
            try:
                sdk.responses.create(model=CLAUDE, input="And now?", previous_response_id=first.id)
            except openai.NotFoundError as error:
                return error.code == "object_not_found"
            return False

        eventually(is_over)


def test_one_setting_switches_it_off(start: Callable[..., Gateway]):
    gateway = gateway_with(start, "{enabled: false}")
    with client_of(gateway) as sdk:
        first = sdk.responses.create(model=CLAUDE, input="Hello")
        with pytest.raises(openai.NotFoundError, match="'store' set to false"):
            sdk.responses.create(model=CLAUDE, input="And now?", previous_response_id=first.id)


def test_turns_in_redis_are_shared_and_deleted_with_their_consumer(start: Callable[..., Gateway], tmp_path: Path):
    RedisServer.need()
    server = RedisServer(tmp_path)
    server.start()
    try:
        one, other = (gateway_with(start, "{keep: 1d}", server.url) for _ in range(2))
        with client_of(one) as sdk, client_of(other) as elsewhere:
            first = sdk.responses.create(model=CLAUDE, input="Hello")
            second = elsewhere.responses.create(model=CLAUDE, input="And now?", previous_response_id=first.id)
            forgotten = one.http.post(f"{one.admin}/ledger/forget", json={"consumer": "demo"})
            assert forgotten.status_code == 200, forgotten.text
            for id in (first.id, second.id):
                with pytest.raises(openai.NotFoundError):
                    elsewhere.responses.create(model=CLAUDE, input="And now?", previous_response_id=id)
            server.stop()
            with pytest.raises(openai.InternalServerError) as away:
                elsewhere.responses.create(model=CLAUDE, input="And now?", previous_response_id=first.id)
            assert (away.value.status_code, away.value.code) == (503, "store_unavailable")
            assert sdk.responses.create(model=CLAUDE, input="Hello").output_text
    finally:
        server.stop()


def test_anthropics_tool_runner_fails_over(gateway: Gateway):
    """It sends `thread` first, and the whole conversation where the gateway says that it has to."""

    @beta_tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"sunny in {city}"

    gateway.fault("openai", "status=503")
    with Anthropic(base_url=gateway.url, auth_token=KEY, max_retries=0, timeout=30) as client:
        asked: Any = {"max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}], "tools": [weather]}
        runner = client.beta.messages.tool_runner(model=BOTH, betas=["message-threads-2026-08-12"], **asked)
        answer = runner.until_done()
    assert answer.content
    assert gateway.seen("openai")
    assert not any("thread" in seen["body"] for seen in gateway.seen("anthropic"))
    refused = [entry for entry in gateway.exchanges() if entry["error"] == "unsupported_by_targets"]
    assert refused
