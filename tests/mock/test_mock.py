"""The built-in mock, as `extproc up` starts it: four APIs, each fault in each of them, and its own endpoints."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from pydantic import BaseModel

from extproc.upstream import mock
from extproc.upstream.mock import Options, faults, serve
from extproc.upstream.mock.conversation import fitting

MESSAGES: Any = [{"role": "user", "content": "hello there"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT = "/v1/chat/completions"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": MESSAGES}),
    "responses": ("/v1/responses", {"input": "hello there"}),
    "messages": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 1000}),
}

each_way = pytest.mark.parametrize("way", WAYS)


@asynccontextmanager
async def serving(**options):
    server = await serve(Options(**options))
    try:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=5, verify=False) as client:
            yield client
    finally:
        await server.close()


@pytest.fixture
async def client():
    async with serving() as client:
        yield client


@pytest.fixture
async def sdk(client):
    base_url = str(client.base_url) + "/v1"
    async with openai.AsyncOpenAI(base_url=base_url, api_key="sk-test", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
async def claude(client):
    async with anthropic.AsyncAnthropic(base_url=str(client.base_url), api_key="sk-test", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def send(client):
    async def send(way, fault="", **more):
        path, body = WAYS[way]
        return await client.post(path, json=body | {"model": "stub" + fault} | more)

    return send


async def last_seen(client):
    return (await client.get("/requests")).json()[-1]


# --- the APIs, through the official SDKs


async def test_a_chat_is_answered(sdk):
    completion = await sdk.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert completion.choices[0].message.content == "You said: hello there"
    assert (completion.model, completion.choices[0].finish_reason) == ("gpt-4o", "stop")
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (2, 4)


async def test_a_chat_is_streamed(sdk):
    stream = await sdk.chat.completions.create(
        model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    said = [chunk.choices[0].delta.content for chunk in chunks[:-1]]
    assert said == ["", "You", " said:", " hello", " there", None]
    assert chunks[-1].usage.completion_tokens == 4
    stream = await sdk.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
    assert all(chunk.usage is None for chunk in [chunk async for chunk in stream])


async def test_a_message_tells_which_tool_to_call(sdk):
    tools: Any = [
        {"type": "function", "function": {"name": name, "parameters": CITY}}
        for name in ("first", "mcp__tools__weather")
    ]
    for text, name, given in (
        ('Please call weather with {"city": "Rome"}', "mcp__tools__weather", {"city": "Rome"}),
        ('Please call nothing with {"city": "Rome"}', "first", {"city": "stub"}),
    ):
        answer = await sdk.chat.completions.create(
            model="stub", messages=[{"role": "user", "content": text}], tools=tools
        )
        (call,) = answer.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == (name, given)


async def test_a_chat_calls_tools(sdk):
    function = {"name": "weather", "parameters": CITY}
    tools: Any = [{"type": "function", "function": {"name": "other"}}, {"type": "function", "function": function}]
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    async with sdk.chat.completions.stream(
        model="gpt-4o", messages=MESSAGES, tools=tools, tool_choice=choice
    ) as stream:
        completion = await stream.get_final_completion()
    [call] = completion.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "stub"})
    assert completion.choices[0].finish_reason == "tool_calls"
    told: Any = [
        *MESSAGES,
        completion.choices[0].message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}),
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"},
    ]
    answer = await sdk.chat.completions.create(model="gpt-4o", messages=told, tools=tools)
    assert answer.choices[0].message.content == "The tool said: 18 degrees"
    answer = await sdk.chat.completions.create(model="gpt-4o", messages=MESSAGES, tools=tools, tool_choice="none")
    assert answer.choices[0].message.content == "You said: hello there"


class Place(BaseModel):
    name: str
    visits: int


class Trip(BaseModel):
    places: list[Place]
    best: Place | None
    open: bool


async def test_structured_output_fits_its_schema(sdk):
    completion = await sdk.chat.completions.parse(model="gpt-4o", messages=MESSAGES, response_format=Trip)
    trip = completion.choices[0].message.parsed
    assert trip == Trip(places=[Place(name="stub", visits=1)], best=Place(name="stub", visits=1), open=True)


async def test_limits_and_choices_are_followed(sdk):
    completion = await sdk.chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=2, n=2)
    assert [choice.message.content for choice in completion.choices] == ["You said:", "(1) You"]
    assert {choice.finish_reason for choice in completion.choices} == {"length"}
    completion = await sdk.chat.completions.create(model="gpt-4o", messages=MESSAGES, stop=["there"])
    assert completion.choices[0].message.content == "You said: hello"


@pytest.mark.parametrize("streamed", [False, True])
async def test_responses_are_answered(sdk, streamed):
    tools: Any = [{"type": "function", "name": "weather", "parameters": CITY, "strict": False}]
    if streamed:
        async with sdk.responses.stream(model="gpt-4o", input="hello there") as stream:
            response = await stream.get_final_response()
        async with sdk.responses.stream(model="gpt-4o", input="hello there", tools=tools) as stream:
            called = await stream.get_final_response()
    else:
        response = await sdk.responses.create(model="gpt-4o", input="hello there")
        called = await sdk.responses.create(model="gpt-4o", input="hello there", tools=tools)
    assert (response.output_text, response.usage.output_tokens) == ("You said: hello there", 4)
    assert (called.output[0].name, json.loads(called.output[0].arguments)) == ("weather", {"city": "stub"})


@pytest.mark.parametrize("streamed", [False, True])
async def test_messages_are_answered(claude, streamed):
    body: Any = {"model": "claude", "max_tokens": 100, "messages": MESSAGES}
    tools: Any = [{"name": "weather", "input_schema": CITY}]
    if streamed:
        async with claude.messages.stream(**body) as stream:
            message = await stream.get_final_message()
        async with claude.messages.stream(**body, tools=tools) as stream:
            called = await stream.get_final_message()
    else:
        message = await claude.messages.create(**body)
        called = await claude.messages.create(**body, tools=tools)
    assert (message.content[0].text, message.stop_reason) == ("You said: hello there", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (2, 4)
    assert (called.content[0].name, called.content[0].input, called.stop_reason) == (
        "weather",
        {"city": "stub"},
        "tool_use",
    )


async def test_embeddings_are_the_same_in_both_encodings(sdk):
    by_default = await sdk.embeddings.create(model="e", input=["a", "b c"], dimensions=16)
    as_floats = await sdk.embeddings.create(model="e", input=["a", "b c"], dimensions=16, encoding_format="float")
    assert len(by_default.data[0].embedding) == 16
    assert by_default.data[1].embedding == pytest.approx(as_floats.data[1].embedding)
    assert by_default.usage.prompt_tokens == 3


async def test_models_are_listed(sdk):
    assert "stub" in [model.id async for model in sdk.models.list()]
    assert (await sdk.models.retrieve("any/name")).id == "any/name"


@each_way
async def test_a_repeated_request_gets_the_same_answer(send, way):
    one, two = [(await send(way)).json() for _ in range(2)]
    assert one["id"] == two["id"]
    assert one["usage"] == two["usage"]
    assert (await send(way, temperature=0.5)).json()["id"] != one["id"]


@each_way
async def test_an_invalid_request_is_refused_in_the_shape_of_its_api(send, client, way):
    answer = await send(way, temperature="warm")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    for content in (b"", b"[]", b"\xff", b"[" * 100_000, b'{"model": 3}'):
        answer = await client.post(WAYS[way][0], content=content)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert (await client.get(WAYS[way][0])).status_code == 405


@pytest.mark.parametrize(
    "path",
    ["/v2/chat", "/model/nova/converse", "/v1beta/models/g:countTokens", "/v1/completions", "/v1/models/", "/"],
)
async def test_an_unknown_api_is_a_404_that_names_the_known_ones(client, path):
    answer = await client.post(path, json={"model": "m"})
    said = answer.json()["error"]["message"]
    assert answer.status_code == 404
    assert said.startswith("The mock provider speaks /v1/")
    assert said.endswith(f"; not POST {path}.")
    assert all(spoken in said for spoken in (CHAT, "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/models"))


# --- faults


@each_way
async def test_faults_affect_plain_answers(send, way):
    failed = await send(way, "+status=429+retry_after=7")
    assert (failed.status_code, failed.headers["retry-after"]) == (429, "7")
    assert failed.json()["error"]["type"] == "rate_limit_error"
    assert "mock_fault" in failed.text
    assert "word word" not in (await send(way)).text
    long = await send(way, "+words=50")
    assert long.text.count("hello") == pytest.approx(12, abs=2)
    silent, usual = (await send(way, "+usage=none")).json(), (await send(way)).json()
    assert silent.get("usage") != usual["usage"]
    started = time.monotonic()
    assert (await send(way, "+delay=60ms+pause=60ms")).status_code == 200
    assert time.monotonic() - started >= 0.12
    for fault in ("+cut=0", "+reset", "+reset=1"):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await send(way, fault)
    unknown = await send(way, "+odd")
    assert (unknown.status_code, "unknown fault 'odd'" in unknown.text) == (400, True)


@each_way
async def test_faults_affect_streams(send, client, way):
    async def count(fault=""):
        answer = await send(way, fault, stream=True)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.content.count(b"data: ") == (await last_seen(client))["events"]
        return (await last_seen(client))["events"]

    usual = await count()
    assert await count("+words=40") == usual + 36
    assert (await send(way, "+status=503", stream=True)).status_code == 503
    started = time.monotonic()
    assert await count("+pace=10ms+pause=100ms") == usual
    assert time.monotonic() - started >= 0.1 + 0.01 * (usual - 1)
    broken = await send(way, "+errorevent=2", stream=True)
    assert b"errorevent" in broken.content
    assert (await last_seen(client))["events"] == 3
    for fault in ("+cut=2", "+reset=2"):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await send(way, fault, stream=True)
        assert (await last_seen(client))["events"] == 2


async def test_an_error_event_reaches_the_sdks(sdk, claude):
    with pytest.raises(openai.APIError, match="errorevent"):
        async for _ in await sdk.chat.completions.create(model="m+errorevent=2", messages=MESSAGES, stream=True):
            pass
    with pytest.raises(anthropic.APIError, match="errorevent"):
        async with claude.messages.stream(model="m+errorevent=2", messages=MESSAGES, max_tokens=9) as stream:
            await stream.get_final_message()


async def test_faults_that_count(send):
    assert [(await send("chat", "+status=503+every=2")).status_code for _ in range(3)] == [200, 503, 200]
    assert [(await send("chat", "+status=503+first=1")).status_code for _ in range(2)] == [503, 200]


@each_way
@pytest.mark.parametrize("fault", ["+hang", "+pace=30s", "+words=100000"])
async def test_a_client_that_disconnects_is_noticed(client, way, fault):
    path, body = WAYS[way]
    with pytest.raises(httpx.ReadTimeout):
        async with client.stream(
            "POST", path, json=body | {"model": "stub" + fault, "stream": True, "max_tokens": 100_000}, timeout=0.2
        ) as answer:
            async for _ in answer.aiter_bytes():
                await asyncio.sleep(0.01)
                if fault == "+words=100000":
                    raise httpx.ReadTimeout("as slow as the others")
    async with asyncio.timeout(2):
        while not (await last_seen(client))["aborted"]:
            await asyncio.sleep(0.01)


def test_every_fault_has_a_test_here():
    assert [name for name in faults.READERS if f"+{name}" not in Path(__file__).read_text()] == []


# --- its own endpoints and its command


async def test_the_servers_fault_is_set_and_cleared():
    async with serving(fault="status=500") as client:
        assert (await client.get("/v1/models")).status_code == 500
        await client.put("/control", json={"fault": "status=503+every=2"})
        assert [(await client.get("/v1/models")).status_code for _ in range(2)] == [200, 503]
        assert (await client.put("/control", json={"fault": "odd"})).status_code == 400
        assert (await client.request("DELETE", "/control")).json() == {"fault": ""}
        assert (await client.get("/requests?count")).json() == {"count": 0}
        assert (await client.get("/v1/models")).status_code == 200


async def test_requests_are_kept(send, client):
    await send("messages")
    seen = await last_seen(client)
    assert (seen["method"], seen["path"], seen["status"], seen["model"]) == ("POST", "/v1/messages", 200, "stub")
    assert (seen["dialect"], seen["body"]["messages"]) == ("anthropic_messages", MESSAGES)
    assert (await client.get("/healthz")).json() == {"status": "ok", "name": "mock"}


async def test_a_key_can_be_required():
    async with serving(api_key="sk-1") as client:
        for headers in ({"authorization": "Bearer sk-1"}, {"x-api-key": "sk-1"}, {"api-key": "sk-1"}):
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
        for headers in ({}, {"authorization": "sk-1"}, {"x-api-key": "sk-2"}):
            answer = await client.get("/v1/models", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_help_prints_the_table_and_wrong_faults_are_refused(capsys):
    parser = argparse.ArgumentParser(prog="mock")
    mock.add_arguments(parser)
    assert faults.__doc__.strip() in parser.format_help()
    assert parser.parse_args(["--fault", "hang"]).fault == "hang"
    with pytest.raises(SystemExit):
        parser.parse_args(["--fault", "forge"])
    assert "unknown fault 'forge'" in capsys.readouterr().err


# --- documents for schemas

NODE: Any = {
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["next"]}}
}


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ({"type": "object", "properties": {"a": {"type": "number"}, "b": {"const": None}}}, {"a": 1, "b": None}),
        ({"properties": {"a": {"enum": ["x", "y"]}, "b": {}}, "required": ["a"]}, {"a": "x"}),
        ({"type": ["array", "null"], "items": {"type": "boolean"}}, [True]),
        ({"oneOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"type": "integer"}}}, 1),
        ({"anyOf": 3, "properties": 3, "type": []}, "stub"),
        ({"type": "object", "enum": 3}, None),
        ({"type": "object", "properties": 3, "required": 3}, {}),
        ({"$ref": "#/nowhere"}, None),
        (True, None),
    ],
)
def test_a_schema_is_satisfied(schema, document):
    assert fitting(schema, schema) == document


def test_a_schema_without_a_finite_document_is_cut_off():
    made = fitting(NODE | {"$ref": "#/$defs/node"}, NODE)
    assert json.dumps(made).count("next") == 9
