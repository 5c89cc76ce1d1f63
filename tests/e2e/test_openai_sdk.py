"""The official OpenAI SDK; only its base URL is changed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, AzureOpenAI, OpenAI
from pydantic import BaseModel

from tests.e2e.conftest import KEY, Gateway, chat_body, eventually

HELLO: Any = [{"role": "user", "content": "Hello"}]
SLOW = "any/stub+words=500+pace=20ms"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


class City(BaseModel):
    name: str
    population: int


@pytest.fixture(scope="module")
def sdk(shared_demo: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=shared_demo.base_url, api_key=KEY, max_retries=0, timeout=30) as sdk:
        yield sdk


@pytest.fixture
def client(demo: Gateway, sdk: OpenAI) -> OpenAI:
    return sdk


@pytest.fixture
async def aclient(demo: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=demo.base_url, api_key=KEY, max_retries=0, timeout=30) as sdk:
        yield sdk


def test_a_plain_chat_is_answered(client: OpenAI):
    answer = client.chat.completions.create(model="stub", messages=HELLO)
    assert answer.choices[0].message.content == "You said: Hello"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 4


async def test_a_plain_chat_is_answered_to_the_async_client(aclient: AsyncOpenAI):
    answer = await aclient.chat.completions.create(model="stub", messages=HELLO)
    assert answer.choices[0].message.content == "You said: Hello"


def test_a_stream_hides_the_usage_event_the_client_did_not_ask_for(client: OpenAI):
    chunks = list(client.chat.completions.create(model="stub", messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: Hello"
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_stream_shows_the_usage_event_the_client_asked_for(client: OpenAI):
    options: Any = {"include_usage": True}
    *chunks, last = client.chat.completions.create(model="stub", messages=HELLO, stream=True, stream_options=options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: Hello"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 4


async def test_the_async_client_streams(aclient: AsyncOpenAI):
    stream = await aclient.chat.completions.create(model="stub", messages=HELLO, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "You said: Hello"


def test_a_tool_is_called_and_its_result_comes_back(client: OpenAI):
    answer = client.chat.completions.create(model="stub", messages=HELLO, tools=[WEATHER])
    message = answer.choices[0].message
    assert message.tool_calls is not None
    call: Any = message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert json.loads(call.function.arguments) == {"city": "stub"}
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    answer = client.chat.completions.create(model="stub", messages=[*HELLO, message, result], tools=[WEATHER])
    assert answer.choices[0].message.content == "The tool said: sunny"


def test_tools_are_called_in_parallel(client: OpenAI):
    messages: Any = [{"role": "user", "content": "in parallel"}]
    answer = client.chat.completions.create(model="stub", messages=messages, tools=[WEATHER, CLOCK])
    calls: Any = answer.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["weather", "clock"]


def test_tool_calls_are_streamed(client: OpenAI):
    messages: Any = [{"role": "user", "content": "in parallel"}]
    stream = client.chat.completions.create(model="stub", messages=messages, tools=[WEATHER, CLOCK], stream=True)
    names, arguments = {}, {0: "", 1: ""}
    for chunk in stream:
        for call in chunk.choices[0].delta.tool_calls or ():
            assert call.function is not None
            names[call.index] = call.function.name or names[call.index]
            arguments[call.index] += call.function.arguments or ""
    assert names == {0: "weather", 1: "clock"}
    assert [json.loads(arguments[index]) for index in (0, 1)] == [{"city": "stub"}, {}]


def test_structured_output_is_parsed(client: OpenAI):
    answer = client.chat.completions.parse(model="stub", messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="stub", population=1)


async def test_structured_output_is_parsed_by_the_async_client(aclient: AsyncOpenAI):
    answer = await aclient.chat.completions.parse(model="stub", messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="stub", population=1)


def test_images_are_passed_on(demo: Gateway, client: OpenAI):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "Look"}, image]}]
    answer = client.chat.completions.create(model="stub", messages=messages)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 86
    assert demo.seen("sandbox")[-1]["body"]["messages"] == messages


def test_several_choices_are_passed_on(client: OpenAI):
    answer = client.chat.completions.create(model="stub", messages=HELLO, n=2)
    assert [choice.message.content for choice in answer.choices] == ["You said: Hello", "(1) You said: Hello"]


def test_embeddings_are_the_same_in_both_encodings(client: OpenAI):
    default = client.embeddings.create(model="stub", input=["one", "two"])  # the SDK asks for base64
    plain = client.embeddings.create(model="stub", input=["one", "two"], encoding_format="float")
    assert [len(item.embedding) for item in default.data] == [8, 8]
    for one, other in zip(default.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


async def test_the_async_client_gets_embeddings(aclient: AsyncOpenAI):
    answer = await aclient.embeddings.create(model="stub", input="one")
    assert len(answer.data[0].embedding) == 8


def test_models_are_listed(client: OpenAI):
    assert {"stub", "spare", "renamed", "assistant"} <= {model.id for model in client.models.list()}


@pytest.mark.parametrize("name", ["stub", "assistant", "any/thing", "any/deep/thing"])
def test_a_model_is_found_by_a_name_with_or_without_slashes(client: OpenAI, name: str):
    assert client.models.retrieve(name).id == name


@pytest.mark.parametrize("path", ["any/thing", "any%2Fthing"])
def test_an_escaped_slash_in_a_models_path_is_accepted(demo: Gateway, path: str):
    answer = demo.http.get(f"{demo.base_url}/models/{path}", headers={"authorization": f"Bearer {KEY}"})
    assert answer.json()["id"] == "any/thing"


# key, model, text; the SDK's exception, status, code
ERRORS: Any = [
    ("sk-gw-wrong", "stub", "Hello", openai.AuthenticationError, 401, "invalid_key"),
    ("sk-gw-poor", "stub", "Hello", openai.APIStatusError, 402, "budget_exceeded"),
    ("sk-gw-narrow", "spare", "Hello", openai.PermissionDeniedError, 403, "model_not_allowed"),
    (KEY, "nothing", "Hello", openai.NotFoundError, 404, "model_not_found"),
    (KEY, "stub", "AKIA" + "A" * 16, openai.BadRequestError, 400, "guardrail_blocked"),
    ("sk-gw-hasty", "stub", "Hello", openai.RateLimitError, 429, "rate_limited"),
    (KEY, "any/stub+status=429", "Hello", openai.RateLimitError, 429, "mock_fault"),
    (KEY, "any/stub+status=400", "Hello", openai.BadRequestError, 400, "mock_fault"),
    (KEY, "any/stub+status=503", "Hello", openai.InternalServerError, 503, "mock_fault"),
]


@pytest.mark.parametrize(("asked", "error", "status", "code"), [(row[:3], *row[3:]) for row in ERRORS])
def test_errors_are_the_exceptions_of_the_sdk(
    client: OpenAI, asked: tuple[str, str, str], error: Any, status: int, code: str
):
    key, model, text = asked
    messages: Any = [{"role": "user", "content": text}]
    with pytest.raises(error) as caught:
        client.with_options(api_key=key).chat.completions.create(model=model, messages=messages)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.type
    assert caught.value.request_id
    origin = "provider" if code == "mock_fault" else "gateway"
    assert caught.value.response.headers["x-ai-error-origin"] == origin


async def test_errors_are_the_exceptions_of_the_async_sdk(aclient: AsyncOpenAI):
    with pytest.raises(openai.NotFoundError) as caught:
        await aclient.chat.completions.create(model="nothing", messages=HELLO, stream=True)
    assert caught.value.code == "model_not_found"


def test_the_request_id_leads_to_the_exchange(demo: Gateway, client: OpenAI):
    answer = client.chat.completions.create(model="stub", messages=HELLO)
    assert answer._request_id
    assert demo.last(lambda entry: entry["request_id"] == answer._request_id)["consumer"] == "demo"


def test_headers_name_the_provider_and_the_model(client: OpenAI):
    raw = client.chat.completions.with_raw_response.create(model="renamed", messages=HELLO)
    told = {name: raw.headers[f"x-ai-{name}"] for name in ("provider", "model", "attempts")}
    assert told == {"provider": "sandbox", "model": "stub-v1", "attempts": "1"}
    assert not [name for name in raw.headers if name.startswith(("x-extproc-", "x-envoy-"))]


def left(demo: Gateway) -> dict[str, Any]:
    """Events sent and ending of the stream that the client did not read to its end."""
    eventually(lambda: demo.seen("sandbox")[-1]["aborted"])
    entry = demo.last(lambda entry: entry.get("model") == SLOW)
    assert (entry["error"], entry["usage_source"]) == ("incomplete", "estimated")
    return entry


def test_a_client_that_disconnects_stops_the_provider_and_is_charged_for_what_it_received(
    demo: Gateway, client: OpenAI
):
    stream = client.chat.completions.create(model=SLOW, messages=HELLO, stream=True)
    for _ in range(5):
        next(stream)
    stream.close()
    entry = left(demo)
    assert 3 <= entry["output_tokens"] < 450
    assert entry["input_tokens"] > 0
    assert demo.seen("sandbox")[-1]["events"] < 450


async def test_a_cancelled_async_task_stops_the_provider(demo: Gateway, aclient: AsyncOpenAI):
    arrived = asyncio.Event()

    async def read():
        async for _ in await aclient.chat.completions.create(model=SLOW, messages=HELLO, stream=True):
            arrived.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(arrived.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(left, demo)


def test_a_client_that_disconnects_before_the_answer_stops_the_provider(demo: Gateway, client: OpenAI):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(model="any/stub+hang", messages=HELLO)
    eventually(lambda: demo.seen("sandbox")[-1]["aborted"])
    entry = demo.last(lambda entry: entry.get("model") == "any/stub+hang")
    assert (entry["error"], entry["status"], entry["usage_source"]) == ("client_left", 0, "estimated")


def answered_id(body: bytes) -> str:
    """The id the mock gives its answer: a digest of the bytes it received."""
    return "chatcmpl-" + hashlib.blake2b(body, digest_size=12).hexdigest()


def test_unknown_fields_pass_through(demo: Gateway):
    sent = []
    with (
        httpx.Client(event_hooks={"request": [lambda request: sent.append(request.read())]}) as http,
        OpenAI(base_url=demo.base_url, api_key=KEY, http_client=http) as client,
    ):
        extra = {"zebra": [1, 2.50, {"y": None}], "a_new_field": {"b": "é\u2028", "a": True}, "service_tier": "flex"}
        answer = client.chat.completions.create(model="stub", messages=HELLO, temperature=1, extra_body=extra)
        client.chat.completions.create(model="renamed", messages=HELLO, temperature=1, extra_body=extra)
    plain, renamed = demo.seen("sandbox")
    assert answer.id == answered_id(sent[0])
    assert json.dumps(plain["body"]) == json.dumps(json.loads(sent[0]))
    assert json.dumps(renamed["body"]) == json.dumps(json.loads(sent[1]) | {"model": "stub-v1"})


ODD = (
    rb'{ "messages" : [ {"role":"user", "content" : "caf\u00e9 \/ \ud83d\ude00"} ],'
    b"\n\t"
    rb'"temperature": 1.0E+0, "seed": 123456789012345678901234567890, "zebra": {"b":1,  "a":-0.0}, "model":"%s" }'
)


@pytest.mark.parametrize("fields", [b"", b', "stream": true, "stream_options": {"include_usage": true} }'])
def test_an_unedited_body_arrives_byte_for_byte(demo: Gateway, fields: bytes):
    body = ODD % b"stub"
    body = body[:-2] + fields if fields else body
    answer = demo.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    assert answered_id(body) in answer.text
    assert demo.seen("sandbox")[-1]["body_length"] == len(body)


def test_an_edit_leaves_every_other_field_unchanged(demo: Gateway):
    answer = demo.post("/v1/chat/completions", content=ODD % b"renamed", headers={"content-type": "application/json"})
    edited = (
        rb'{"messages":[ {"role":"user", "content" : "caf\u00e9 \/ \ud83d\ude00"} ],'
        rb'"temperature":1.0E+0,"seed":123456789012345678901234567890,"zebra":{"b":1,  "a":-0.0},"model":"stub-v1"}'
    )
    assert answer.json()["id"] == answered_id(edited)


@pytest.mark.parametrize("model", ["stub", "stub+words=2000", "stub+size=100KB", "stub+status=418", "stub+headers=50"])
def test_a_plain_answer_arrives_byte_for_byte(demo: Gateway, model: str):
    body = chat_body(model, "naïve – 日本語")
    demo.fault("sandbox", model.partition("+")[2])
    through = demo.post("/v1/chat/completions", body | {"model": "stub"})
    direct = demo.direct("sandbox", body | {"model": "stub"})
    assert (through.status_code, through.content) == (direct.status_code, direct.content)
    ours = ("x-ai-", "x-request-id", "date", "x-envoy", "x-should-retry")
    theirs = {name: value for name, value in direct.headers.items() if not name.startswith(ours)}
    assert {name: value for name, value in through.headers.items() if not name.startswith(ours)} == theirs


def test_a_stream_arrives_byte_for_byte(demo: Gateway):
    body = chat_body("stub", "naïve – 日本語", stream=True, stream_options={"include_usage": True})
    through, direct = demo.post("/v1/chat/completions", body), demo.direct("sandbox", body)
    assert through.content == direct.content


def test_a_stream_with_hidden_usage_lacks_only_that_event(demo: Gateway):
    body = chat_body("stub", stream=True)
    direct = demo.direct("sandbox", body | {"stream_options": {"include_usage": True}}).content.split(b"\n\n")
    shown = [event for event in direct if b'"choices":[]' not in event]
    assert len(shown) == len(direct) - 1
    assert demo.post("/v1/chat/completions", body).content == b"\n\n".join(shown)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_of_azure_openai_works_unchanged(demo: Gateway, stream: bool):
    with AzureOpenAI(
        azure_endpoint=demo.url, api_key=KEY, api_version="2024-10-21", max_retries=0, azure_deployment="stub"
    ) as client:
        messages = [{"role": "user", "content": "hello"}]
        answer = client.chat.completions.create(model="ignored", messages=messages, stream=stream)
        text = (
            "".join(c.choices[0].delta.content or "" for c in answer) if stream else answer.choices[0].message.content
        )
    assert text == "You said: hello"
    seen = demo.seen("sandbox")[-1]
    assert (seen["path"], seen["body"]["model"]) == ("/v1/chat/completions", "stub")
    assert demo.last(lambda entry: entry["status"] == 200)["model"] == "stub"


def test_version_1_of_azure_openai_is_openais_api(demo: Gateway):
    with OpenAI(base_url=demo.url + "/openai/v1", api_key=KEY, max_retries=0) as client:
        assert client.responses.create(model="stub", input="hello").output_text == "You said: hello"
        assert client.embeddings.create(model="stub", input="hello").data[0].embedding


def test_a_large_body_at_a_path_of_azure_passes(demo: Gateway):
    with AzureOpenAI(azure_endpoint=demo.url, api_key=KEY, api_version="2024-10-21", max_retries=0) as client:
        messages = [{"role": "user", "content": "word " * 180_000}]
        assert client.chat.completions.create(model="stub", messages=messages, max_tokens=5).choices
