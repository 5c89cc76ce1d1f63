"""Any client API to any provider's API, through Envoy, with the official SDKs; only their base URL is changed.

The mock gives the same answer to the same conversation in every API. A client must read the same, whichever provider
serves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway

MOCKS = ("openai", "anthropic", "gemini", "vertex", "bedrock", "cohere")
FORGIVING = "outlier_detection: {consecutive_5xx: 10000}"
"""Tests share the gateway: the failures of one make no model cool down for the next."""
SETTINGS = """
providers:
  mock-openai: {kind: mock, base_url: "{mock_openai}"}
  mock-anthropic: {kind: mock, base_url: "{mock_anthropic}"}
  mock-gemini: {kind: mock, base_url: "{mock_gemini}"}
  mock-vertex: {kind: mock, base_url: "{mock_vertex}"}
  mock-bedrock: {kind: mock, base_url: "{mock_bedrock}"}
  mock-cohere: {kind: mock, base_url: "{mock_cohere}"}
  openai: {kind: openai, base_url: "{mock_openai}", api_key: env:PROVIDER_KEY, cool_down: {default: 0s}, FORGIVING}
  anthropic: {kind: anthropic, base_url: "{mock_anthropic}", api_key: env:PROVIDER_KEY, FORGIVING}
  gemini: {kind: gcp_gemini, base_url: "{at_gemini}/v1beta", api_key: env:PROVIDER_KEY, FORGIVING}
  vertex:
    kind: gcp_vertex_ai
    base_url: "{at_vertex}/v1/projects/p/locations/r/publishers"
    region: r
    project: p
    api_key: env:PROVIDER_KEY
  bedrock: {kind: aws_bedrock, region: us-east-1, base_url: "{at_bedrock}", api_key: env:PROVIDER_KEY, FORGIVING}
  cohere: {kind: cohere, base_url: "{at_cohere}/v2", api_key: env:PROVIDER_KEY}
models:
  gpt: {provider: openai, model: gpt-4o}
  claude: {provider: anthropic, model: claude-sonnet-4-5, max_output_tokens: 8192}
  gemini: {provider: gemini, model: gemini-2.5-flash}
  vertex-gemini: {provider: vertex, model: gemini-2.5-pro}
  vertex-claude: {provider: vertex, model: claude-sonnet-4-5}
  nova: {provider: bedrock, model: "amazon.nova-pro-v1:0"}
  bedrock-claude: {provider: bedrock, model: "anthropic.claude-sonnet-4-5-v1:0"}
  command: {provider: cohere, model: command-a-03-2025}
  embed-gemini: {provider: gemini, model: gemini-embedding-001}
  embed-cohere: {provider: cohere, model: embed-v4.0}
  embed-titan: {provider: bedrock, model: "amazon.titan-embed-text-v2:0"}
virtual_models:
  assistant:
    targets: [{model: gpt}, {model: claude}, {model: gemini}, {model: nova}]
    retry: {attempts: 4}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
budgets:
  - {name: tokens, per: [consumer], unit: tokens, limit: 100000000, window: minute}
stores: {counters: "memory:"}
"""
CHAT = ["gpt", "claude", "gemini", "vertex-gemini", "vertex-claude", "nova", "bedrock-claude", "command"]
THINKERS = ["claude", "gemini", "bedrock-claude"]
each = pytest.mark.parametrize("model", CHAT)

HELLO: Any = [{"role": "user", "content": "Hello there"}]
WEATHER: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}},
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("translation")
    yield from run_gateway(folder, SETTINGS.replace("FORGIVING", FORGIVING), MOCKS, {"PROVIDER_KEY": "sk-provider"})


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    running.reset()
    return running


@pytest.fixture(scope="module")
def sdks(running: Gateway) -> Iterator[tuple[OpenAI, Anthropic]]:
    options: Any = {"api_key": KEY, "max_retries": 0, "timeout": 30}
    with (
        OpenAI(base_url=running.base_url, **options) as openai,
        Anthropic(base_url=running.url, **options) as anthropic,
    ):
        yield openai, anthropic


@pytest.fixture
def chat(gateway: Gateway, sdks: tuple[OpenAI, Anthropic]) -> OpenAI:
    return sdks[0]


@pytest.fixture
def claude(gateway: Gateway, sdks: tuple[OpenAI, Anthropic]) -> Anthropic:
    return sdks[1]


# --- OpenAI chat


@each
def test_a_chat_is_answered(chat: OpenAI, gateway: Gateway, model: str):
    raw = chat.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "system", "content": "Be brief."}, *HELLO], max_completion_tokens=50
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == "You said: Hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 4)
    record = gateway.last(lambda entry: entry["request_id"] == raw.headers["x-request-id"])
    assert (record["input_tokens"], record["output_tokens"], record["usage_source"]) == (4, 4, "provider")


@each
def test_a_chat_is_streamed(chat: OpenAI, model: str):
    chunks = list(
        chat.chat.completions.create(model=model, messages=HELLO, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "You said: Hello there"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (2, 4)


@each
def test_a_stream_hides_the_usage_event_the_client_did_not_ask_for(chat: OpenAI, gateway: Gateway, model: str):
    with chat.chat.completions.with_streaming_response.create(model=model, messages=HELLO, stream=True) as answer:
        lines = list(answer.iter_lines())
        request_id = answer.headers["x-request-id"]
    assert lines[-2] == "data: [DONE]" or "data: [DONE]" in lines
    assert not any("extproc" in line for line in lines)
    assert not any('"usage":{' in line for line in lines)
    record = gateway.last(lambda entry: entry["request_id"] == request_id)
    assert (record["input_tokens"], record["output_tokens"]) == (2, 4)


@each
@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_calls_tools_and_sends_their_results(chat: OpenAI, model: str, stream: bool):
    messages: list[Any] = [{"role": "user", "content": "Both in parallel, please"}]
    with (
        chat.chat.completions.stream(model=model, messages=messages, tools=TOOLS)
        if stream
        else _whole(chat, model=model, messages=messages, tools=TOOLS) as answer
    ):
        message = answer.get_final_completion().choices[0].message if stream else answer.choices[0].message
    assert message.tool_calls is not None
    assert [call.function.name for call in message.tool_calls] == ["weather", "clock"]
    assert len({call.id for call in message.tool_calls}) == 2
    assert "city" in json.loads(message.tool_calls[0].function.arguments)
    messages += [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
                for call in message.tool_calls
            ],
        },
        *(
            {"role": "tool", "tool_call_id": call.id, "content": f"{index} degrees"}
            for index, call in enumerate(message.tool_calls)
        ),
    ]
    final = chat.chat.completions.create(model=model, messages=messages, tools=TOOLS)
    assert "0 degrees" in (final.choices[0].message.content or "")
    assert "1 degrees" in (final.choices[0].message.content or "")


class _whole:  # noqa: N801 - a plain answer as a context, like a stream
    def __init__(self, chat: OpenAI, **fields: Any) -> None:
        self._answer = chat.chat.completions.create(**fields)

    def __enter__(self) -> Any:
        return self._answer

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("model", [model for model in CHAT if model != "command"])
def test_a_chat_gets_structured_output(chat: OpenAI, model: str):
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
              "required": ["name", "age"], "additionalProperties": False}  # fmt: skip
    answer = chat.chat.completions.create(
        model=model,
        messages=HELLO,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}},
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"name", "age"}


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@each
def test_a_chat_sends_images(chat: OpenAI, gateway: Gateway, model: str):
    content: Any = [
        {"type": "text", "text": "What is this"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    answer = chat.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3 + 85


@each
def test_the_output_limit_is_kept_and_reported(chat: OpenAI, model: str):
    answer = chat.chat.completions.create(model=model, messages=HELLO, max_completion_tokens=2)
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    "model", [model for model in CHAT if model not in ("gpt", "gemini", "vertex-gemini", "command")]
)
def test_an_advisory_field_without_an_equivalent_is_named_in_the_answer(chat: OpenAI, model: str):
    raw = chat.chat.completions.with_raw_response.create(model=model, messages=HELLO, seed=7)
    assert "seed" in raw.headers["x-ai-ignored"].split(",")


@pytest.mark.parametrize("model", ["claude", "nova"])
def test_a_field_that_changes_the_meaning_without_an_equivalent_is_refused(chat: OpenAI, gateway: Gateway, model: str):
    with pytest.raises(openai.BadRequestError) as refused:
        chat.chat.completions.create(model=model, messages=HELLO, n=2)
    assert refused.value.code == "unsupported_by_targets"
    assert refused.value.param == "n"
    assert gateway.calls() == 0


def test_a_request_goes_to_the_targets_that_can_express_it(chat: OpenAI):
    raw = chat.chat.completions.with_raw_response.create(model="assistant", messages=HELLO, n=2)
    assert raw.headers["x-ai-provider"] == "openai"
    assert len(raw.parse().choices) == 2


# --- Anthropic messages


@each
def test_messages_are_answered(claude: Anthropic, model: str):
    answer = claude.messages.create(model=model, max_tokens=50, system="Be brief.", messages=HELLO)
    assert [block.type for block in answer.content] == ["text"]
    assert answer.content[0].text == "You said: Hello there"
    assert answer.stop_reason == "end_turn"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (4, 4)


@each
def test_messages_are_streamed(claude: Anthropic, model: str):
    with claude.messages.stream(model=model, max_tokens=50, messages=HELLO) as stream:
        assert "".join(stream.text_stream) == "You said: Hello there"
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == 4


@each
def test_messages_call_tools(claude: Anthropic, model: str):
    tools: Any = [{"name": "weather", "description": "The weather", "input_schema": WEATHER}]
    question: Any = [{"role": "user", "content": "How is it outside"}]
    with claude.messages.stream(model=model, max_tokens=500, messages=question, tools=tools) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    [call] = [block for block in final.content if block.type == "tool_use"]
    assert (call.name, set(call.input)) == ("weather", {"city"})
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "18 degrees"}
    again: Any = [
        *question,
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in final.content]},
        {"role": "user", "content": [result]},
    ]
    answer = claude.messages.create(model=model, max_tokens=500, messages=again, tools=tools)
    assert "18 degrees" in "".join(block.text for block in answer.content if block.type == "text")


@pytest.mark.parametrize("model", THINKERS)
def test_thinking_survives_a_round_trip(claude: Anthropic, model: str):
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    first = claude.messages.create(model=model, max_tokens=4000, messages=HELLO, thinking=thinking)
    thoughts = [block for block in first.content if block.type == "thinking"]
    assert "Hello there" in thoughts[0].thinking
    if model != "gemini":  # it signs the text, which comes last, and does not ask for that back
        assert any(thought.signature for thought in thoughts)
    again: Any = [
        *HELLO,
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]},
        {"role": "user", "content": "And now"},
    ]
    answer = claude.messages.create(model=model, max_tokens=4000, messages=again, thinking=thinking)
    assert "And now" in "".join(block.text for block in answer.content if block.type == "text")


@pytest.mark.parametrize("model", ["claude", "gpt"])
def test_tokens_of_a_request_are_counted(claude: Anthropic, model: str):
    assert claude.messages.count_tokens(model=model, messages=HELLO).input_tokens >= 2


def test_an_error_has_the_clients_shape(claude: Anthropic, gateway: Gateway):
    gateway.fault("openai", "status=429")
    with pytest.raises(anthropic.RateLimitError) as refused:
        claude.messages.create(model="gpt", max_tokens=50, messages=HELLO)
    assert refused.value.body["type"] == "error"
    assert refused.value.body["error"]["type"] == "rate_limit_error"


# --- OpenAI responses


@each
def test_responses_are_answered_and_streamed(chat: OpenAI, model: str):
    answer = chat.responses.create(model=model, input="Hello there", instructions="Be brief.", store=False)
    assert answer.output_text == "You said: Hello there"
    assert answer.status == "completed"
    with chat.responses.stream(model=model, input="Hello there", store=False) as stream:
        final = stream.get_final_response()
    assert final.output_text == "You said: Hello there"
    assert final.usage is not None
    assert final.usage.output_tokens == 4


@each
def test_responses_call_tools(chat: OpenAI, model: str):
    tools: Any = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}]
    question: Any = [{"role": "user", "content": "How is it outside"}]
    first = chat.responses.create(model=model, input=question, tools=tools, store=False)
    [call] = [item for item in first.output if item.type == "function_call"]
    again: Any = [
        *question,
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"},
    ]
    answer = chat.responses.create(model=model, input=again, tools=tools, store=False)
    assert "18 degrees" in answer.output_text


# --- failing over from one API to another


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["status=503", "status=529", "reset", "garbage"])
def test_a_chain_of_apis_answers_while_one_provider_lives(gateway: Gateway, chat: OpenAI, fault: str, stream: bool):
    said = []
    for served, broken in (("openai", None), ("anthropic", "openai"), ("gemini", "anthropic"), ("bedrock", "gemini")):
        if broken:
            gateway.fault(broken, fault)
        raw = chat.chat.completions.with_raw_response.create(
            model="assistant", messages=HELLO, tools=TOOLS, tool_choice="none", stream=stream
        )
        assert raw.headers["x-ai-provider"] == served
        answer = raw.parse()
        if stream:
            said.append("".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices))
        else:
            said.append(answer.choices[0].message.content)
    assert set(said) == {"You said: Hello there"}


def test_a_provider_that_breaks_off_ends_the_stream_with_an_error(gateway: Gateway, chat: OpenAI):
    gateway.fault("anthropic", "errorevent=2")
    with pytest.raises(openai.APIError):
        list(chat.chat.completions.create(model="claude", messages=HELLO, stream=True))


@pytest.mark.parametrize(("mock", "model"), [("anthropic", "claude"), ("gemini", "gemini"), ("bedrock", "nova")])
def test_an_invalid_answer_is_reported_as_the_providers_fault(gateway: Gateway, mock: str, model: str):
    gateway.fault(mock, "badjson")
    answer = gateway.chat(model)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_bad_answer")
    assert answer.headers["x-ai-error-origin"] == "provider"


def test_fields_that_a_translation_left_in_a_conversation_do_not_hinder_the_next_provider(
    gateway: Gateway, chat: OpenAI
):
    """A turn of Claude's with its thinking is sent on to OpenAI, which does not know `thinking_blocks`."""
    first = chat.chat.completions.create(model="claude", messages=HELLO, reasoning_effort="low")
    message = first.choices[0].message.model_dump(exclude_none=True)
    assert message["thinking_blocks"]
    chat.chat.completions.create(model="gpt", messages=[*HELLO, message, {"role": "user", "content": "And now"}])
    seen = eventually(lambda: gateway.seen("openai"))[-1]
    assert "thinking_blocks" not in json.dumps(seen["body"])


# --- embeddings


@pytest.mark.parametrize("model", ["embed-gemini", "embed-cohere", "embed-titan"])
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_are_answered(chat: OpenAI, model: str, encoding: Any):
    answer = chat.embeddings.create(model=model, input="Hello there", encoding_format=encoding)
    assert len(answer.data) == 1
    assert answer.data[0].embedding


# --- conversations that Anthropic keeps


@each
def test_a_thread_of_anthropics_sdk_goes_on_whoever_serves(gateway: Gateway, claude: Anthropic, model: str) -> None:
    """Where no thread can be kept the SDK is told so, and sends the whole conversation."""
    thread = claude.beta.messages.thread(
        max_tokens=500, model=model, unsupported_request_behavior="continue_unthreaded"
    )
    assert text_of(thread.send({"role": "user", "content": "One"})) == "You said: One"
    assert text_of(thread.send({"role": "user", "content": "Two"})) == "You said: Two"


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_anthropics_sdk_lists_the_models(sdks: tuple[OpenAI, Anthropic]):
    chat, messages = sdks
    listed = [model.id for model in messages.models.list()]
    assert listed == [model.id for model in chat.models.list()]
    assert messages.models.retrieve(listed[0]).display_name == listed[0]


@pytest.mark.parametrize("model", ["claude", "gemini", "nova"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_of_functions_gets_a_call_of_a_function(gateway: Gateway, model: str, stream: bool) -> None:
    """The form before tools, and its result in the next request."""
    functions = [{"name": "weather", "parameters": WEATHER}]
    body: Any = {"model": model, "messages": [*HELLO], "functions": functions, "stream": stream}
    answer = gateway.post("/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    if stream:
        events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
        choices = [choice for event in events for choice in event["choices"]]
        calls = [choice["delta"]["function_call"] for choice in choices if "function_call" in choice["delta"]]
        call = {"name": calls[0]["name"], "arguments": "".join(part["arguments"] for part in calls)}
        reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
        assert "tool_calls" not in answer.text.replace('"finish_reason":"tool_calls"', "")
    else:
        [choice] = answer.json()["choices"]
        call, reasons = choice["message"]["function_call"], [choice["finish_reason"]]
        assert "tool_calls" not in choice["message"]
    assert (call["name"], reasons) == ("weather", ["function_call"])
    assert json.loads(call["arguments"]).keys() == {"city"}
    said = {"role": "assistant", "content": None, "function_call": call}
    result = {"role": "function", "name": "weather", "content": "18 degrees"}
    again = gateway.post("/v1/chat/completions", body | {"stream": False, "messages": [*HELLO, said, result]})
    assert "18 degrees" in again.json()["choices"][0]["message"]["content"], again.text
