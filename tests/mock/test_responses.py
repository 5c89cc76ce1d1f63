from __future__ import annotations

import json
from contextlib import suppress

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.doubles import responses
from tests.doubles.answers import CREATED, Question, Refused
from tests.doubles.faults import NONE
from tests.samples import examples

PATH = "/v1/responses"
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
CLOCK = {"type": "function", "name": "get_time", "parameters": None, "strict": False}
NOTES = {"type": "custom", "name": "write_notes", "format": {"type": "text"}}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}
REASONING = {"reasoning": {"effort": "low", "summary": "auto"}}
SEALED = REASONING | {"include": ["reasoning.encrypted_content"], "store": False}


def user(content="hello there"):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def text(value):
    return {"type": "input_text", "text": value}


def call(id="call_1", name="get_weather", arguments="{}"):
    return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}


def result(output, id="call_1"):
    return {"type": "function_call_output", "call_id": id, "output": output}


def thought(**more):
    return {"type": "reasoning", "id": "rs_1", "summary": []} | more


def body(*items, **more):
    return {"model": "gpt-x", "input": list(items) or [user()]} | more


def spoken(answer):
    (message,) = [item for item in answer["output"] if item["type"] == "message"]
    return message["content"][0]["text"]


async def said(mock, *items, **more):
    return spoken(await mock.plain(PATH, body(*items, **more)))


# --- plain answers


async def test_a_response_is_complete(mock):
    answer = await mock.plain(PATH, body(input="hello there", instructions="Be brief."))
    digest = answer["id"].removeprefix("resp_")
    assert len(digest) == 24
    message = {
        "id": "msg_" + digest,
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "You said: hello there"}],
    }
    assert answer == {
        "id": "resp_" + digest,
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "completed_at": CREATED,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": "Be brief.",
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "model": "gpt-x",
        "output": [message],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 4,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 8,
        },
        "user": None,
    }
    seen = await mock.seen()
    assert (seen["dialect"], seen["path"], seen["model"]) == ("openai_responses", PATH, "gpt-x")


async def test_the_last_turn_is_answered(mock):
    back = {"type": "output_text", "text": "b", "annotations": []}
    parts = [text("c"), IMAGE, text("d")]
    assert await said(mock, user("a"), assistant([back]), user(parts)) == "You said: c d"
    assert await said(mock, user("a"), assistant([{"type": "refusal", "refusal": "no"}]), user("b")) == "You said: b"
    developer = {"type": "message", "role": "developer", "content": [text("x")]}
    assert await said(mock, user("a"), developer) == "You said: a"


async def test_images_and_files_are_counted(mock):
    file = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}
    answer = await mock.plain(PATH, body(user([text("what is this"), IMAGE, file])))
    assert answer["usage"]["input_tokens"] == 3 + 2 * 85


async def test_the_output_limit_cuts_the_answer(mock):
    answer = await mock.plain(PATH, body(model="gpt-x+words=20", max_output_tokens=16))
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert answer["output"][0]["status"] == "incomplete"
    assert answer["usage"]["output_tokens"] == 16
    answer = await mock.plain(PATH, body(user("x " * 20), max_output_tokens=16, **REASONING))
    assert [item["type"] for item in answer["output"]] == ["reasoning"]


async def test_logprobs_are_given_when_asked_for(mock):
    asked = body(include=["message.output_text.logprobs"], top_logprobs=2)
    first = (await mock.plain(PATH, asked))["output"][0]["content"][0]["logprobs"][0]
    assert first == {
        "token": "You",
        "bytes": [89, 111, 117],
        "logprob": -0.25,
        "top_logprobs": [
            {"token": "You", "bytes": [89, 111, 117], "logprob": -0.25},
            {"token": " other1", "bytes": list(b" other1"), "logprob": -1.25},
        ],
    }


async def test_usage_can_be_false(mock):
    assert (await mock.plain(PATH, body(model="gpt-x+usage=negative")))["usage"]["output_tokens"] == -4
    assert (await mock.plain(PATH, body(model="gpt-x+usage=none")))["usage"] is None
    usage = (await mock.plain(PATH, body(model="gpt-x+cached=1")))["usage"]
    assert (usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]) == (2, 1)


# --- tools


async def test_tools_are_called(mock):
    answer = await mock.plain(PATH, body(tools=[WEATHER, CLOCK]))
    (made,) = answer["output"]
    assert (made["type"], made["name"], made["status"]) == ("function_call", "get_weather", "completed")
    assert made["id"].startswith("fc_")
    assert made["call_id"].startswith("call_")
    assert json.loads(made["arguments"]) == {"city": "stub", "unit": "C"}
    assert answer["status"] == "completed"
    assert answer["tools"] == [WEATHER | {"description": None, "strict": True}, CLOCK | {"description": None}]


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({}, ["get_weather", "get_time"]),
        ({"tool_choice": "required", "parallel_tool_calls": False}, ["get_weather"]),
        ({"tool_choice": {"type": "function", "name": "get_time"}}, ["get_time"]),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "get_time"}],
                }
            },
            ["get_time"],
        ),
        ({"tool_choice": "none"}, []),
    ],
)
async def test_the_choice_of_tools_is_followed(mock, more, names):
    answer = await mock.plain(PATH, body(user("in parallel"), tools=[WEATHER, CLOCK], **more))
    assert [item["name"] for item in answer["output"] if item["type"] == "function_call"] == names


async def test_custom_tools_are_called(mock):
    answer = await mock.plain(PATH, body(tools=[NOTES]))
    (made,) = answer["output"]
    assert (made["type"], made["input"]) == ("custom_tool_call", "stub")
    output = {"type": "custom_tool_call_output", "call_id": made["call_id"], "output": "written"}
    assert await said(mock, user(), made, output, tools=[NOTES]) == "The tool said: written"


async def test_tool_results_are_answered(mock):
    asked = [user("weather?"), assistant("Let me see."), call()]
    assert await said(mock, *asked, result("18 degrees"), tools=[WEATHER]) == "The tool said: 18 degrees"
    assert await said(mock, *asked, result([text('{"at": 18}'), IMAGE])) == 'The tool said: {"at":18}'
    assert await said(mock, *asked, result("18"), user("thanks")) == "You said: thanks"
    both = [user("weather?"), call(), call("call_2"), result("a"), result("b", "call_2")]
    assert await said(mock, *both, tools=[WEATHER]) == "The tool said: a; b"


# --- reasoning


async def test_reasoning_is_shown_and_sealed_when_asked_for(mock):
    hidden, _ = (await mock.plain(PATH, body(reasoning={"effort": "low"})))["output"]
    assert set(hidden) == {"id", "type", "summary"}
    assert hidden["summary"] == []
    answer = await mock.plain(PATH, body(**SEALED))
    shown, _ = answer["output"]
    assert shown["summary"] == [{"type": "summary_text", "text": "Let me think. You said: hello there"}]
    assert shown["encrypted_content"].startswith("gAAAA")
    assert answer["usage"]["output_tokens_details"] == {"reasoning_tokens": 7}
    redacted, _ = (await mock.plain(PATH, body(user("redacted"), **SEALED)))["output"]
    assert redacted["summary"] == []
    assert len((await mock.plain(PATH, body(reasoning={"effort": "none"})))["output"]) == 1


async def test_reasoning_comes_back(mock):
    asked = body(tools=[WEATHER], **SEALED)
    shown, made = (await mock.plain(PATH, asked))["output"]
    again = [user(), shown, made, result("18", made["call_id"])]
    assert spoken(await mock.plain(PATH, asked | {"input": again})) == "The tool said: 18"
    for changed in ("gAAAA", "extproc:e30=", shown["encrypted_content"][:-4]):
        again[1] = shown | {"encrypted_content": changed}
        status, refused = await mock.refused(PATH, asked | {"input": again})
        assert (status, refused["error"]["code"]) == (400, "invalid_encrypted_content")


async def test_unsealed_reasoning_is_not_stored(mock):
    items = [user(), thought(), assistant("a"), user("b")]
    status, refused = await mock.refused(PATH, body(*items, store=False))
    assert status == 404
    assert refused["error"]["message"] == (
        "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false. "
        "Try again with `store` set to true, or remove this item from your input."
    )
    assert await said(mock, *items) == "You said: b"  # as if it were stored
    status, refused = await mock.refused(PATH, body(user(), {"type": "item_reference", "id": "msg_1"}))
    assert (status, refused["error"]["message"]) == (404, "Item with id 'msg_1' not found.")


# --- structured output


def structured(schema, **more):
    return body(text={"format": {"type": "json_schema", "name": "person", "schema": schema, **more}})


async def test_structured_output_fits_its_schema(mock):
    assert json.loads(spoken(await mock.plain(PATH, structured(PARAMETERS, strict=True)))) == {
        "city": "stub",
        "unit": "C",
    }
    any_json = body(user("JSON, please"), text={"format": {"type": "json_object"}})
    assert json.loads(spoken(await mock.plain(PATH, any_json))) == {"answer": "stub"}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "array"}, "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'."),
        (
            PARAMETERS | {"additionalProperties": True},
            "In context=(), 'additionalProperties' is required to be supplied",
        ),
        (
            PARAMETERS | {"required": ["city"]},
            "In context=(), 'required' is required to be supplied and to be an array",
        ),
        (
            PARAMETERS | {"properties": {"city": {"type": "string", "minLength": 5}}},
            "In context=('properties', 'city'), 'minLength' is not permitted.",
        ),
        (
            PARAMETERS | {"properties": {"city": {"type": "string", "format": "uri"}}},
            "In context=('properties', 'city'), 'uri' is not a valid format.",
        ),
        (
            PARAMETERS | {"properties": {"city": {"type": "array", "items": {"type": "object"}}}},
            "In context=('properties', 'city', 'items'), 'additionalProperties' is required",
        ),
        (
            PARAMETERS | {"properties": {"city": {"anyOf": [{"allOf": []}]}}},
            "In context=('properties', 'city', 'anyOf', '0'), 'allOf' is not permitted.",
        ),
        (
            PARAMETERS | {"properties": {"city": {"type": "array"}}},
            "In context=('properties', 'city'), array schema missing",
        ),
        (
            PARAMETERS | {"properties": {"city": {}}},
            "In context=('properties', 'city'), schema must have a 'type' key.",
        ),
    ],
)
async def test_schemas_that_strict_mode_does_not_support_are_refused(mock, schema, problem):
    await mock.plain(PATH, structured(schema))
    _, refused = await mock.refused(PATH, structured(schema, strict=True))
    assert refused["error"]["message"].startswith(f"Invalid schema for response_format 'person': {problem}")
    assert (refused["error"]["param"], refused["error"]["code"]) == ("text.format.schema", "invalid_json_schema")
    _, refused = await mock.refused(PATH, body(tools=[WEATHER | {"parameters": schema, "strict": True}]))
    assert refused["error"]["message"].startswith(f"Invalid schema for function 'get_weather': {problem}")
    assert (refused["error"]["param"], refused["error"]["code"]) == (
        "tools[0].parameters",
        "invalid_function_parameters",
    )


# --- streams


async def test_a_stream_has_the_events_of_the_api(mock):
    events = await mock.stream(PATH, body(stream=True))
    assert [name.removeprefix("response.") for name, _ in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 4,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert all(event["type"] == name for name, event in events)
    assert [event["sequence_number"] for _, event in events] == list(range(len(events)))
    assert (events[0][1]["response"]["status"], events[0][1]["response"]["usage"]) == ("in_progress", None)
    assert events[4][1] == {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        "output_index": 0,
        "item_id": events[2][1]["item"]["id"],
        "content_index": 0,
        "delta": "You",
        "logprobs": [],
        "obfuscation": "defghijklmnop",
    }
    bare = await mock.stream(PATH, body(stream=True, stream_options={"include_obfuscation": False}))
    assert not any("obfuscation" in event for _, event in bare)


async def test_the_events_of_each_kind_of_item(mock):
    asked = body(user("parallel"), tools=[WEATHER, NOTES], stream=True, **SEALED)
    events = await mock.stream(PATH, asked)
    kinds = [name.removeprefix("response.") for name, _ in events if not name.endswith(".delta")]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "custom_tool_call_input.done",
        "output_item.done",
        "completed",
    ]


@pytest.mark.parametrize(
    "asked",
    [
        body(),
        body(model="gpt-x+words=20", max_output_tokens=16),
        body(user("parallel"), tools=[WEATHER, CLOCK, NOTES], **SEALED),
        body(**REASONING),
        body(include=["message.output_text.logprobs"]),
        body(model="gpt-x+words=0"),
        structured(PARAMETERS),
    ],
)
async def test_streams_equal_plain_answers(mock, asked):
    plain = await mock.plain(PATH, asked)
    events = await mock.stream(PATH, asked | {"stream": True})
    made: dict = {}
    for _, event in events:
        name, at = event["type"].removeprefix("response."), event.get("output_index")
        match name:
            case "output_text.delta":
                made[at]["content"][0]["text"] += event["delta"]
                made[at]["content"][0]["logprobs"] += event["logprobs"]
            case "content_part.added":
                made[at]["content"].append(event["part"])
            case "reasoning_summary_part.added":
                made[at]["summary"].append(event["part"])
            case "reasoning_summary_text.delta":
                made[at]["summary"][0]["text"] += event["delta"]
            case "function_call_arguments.delta":
                made[at]["arguments"] += event["delta"]
            case "custom_tool_call_input.delta":
                made[at]["input"] += event["delta"]
            case "output_item.added":
                made[at] = event["item"]
            case "output_item.done":
                assert made[at] | ({"status": event["item"]["status"]} if "status" in made[at] else {}) == event["item"]
                made[at] = event["item"]
    whole = events[-1][1]["response"]
    assert events[-1][0] == f"response.{plain['status']}"
    assert list(made.values()) == whole["output"]
    for answer in (plain, whole):
        del answer["id"]
        for item in answer["output"]:
            item["id"] = item["call_id"] = ""
    assert whole == plain


async def test_faults_affect_streams(mock):
    events = await mock.stream(PATH, body(model="gpt-x+errorevent=3", stream=True))
    assert len(events) == 4
    error = {"message": "A fault was asked for: errorevent.", "type": "server_error", "param": None}
    assert events[-1] == ("error", {"type": "error", "sequence_number": 3, "error": error | {"code": "server_error"}})
    events = await mock.stream(PATH, body(model="gpt-x+sse=nodone+words=20", stream=True))
    assert events[-1][0] == "response.output_item.done"
    assert len(events) == 20 + 7
    events = await mock.stream(PATH, body(model="gpt-x+usage=none", stream=True))
    assert events[-1][1]["response"]["usage"] is None
    events = await mock.stream(PATH, body(model="gpt-x+usage=early", stream=True))
    assert events[0][1]["response"]["usage"]["output_tokens"] == 4
    assert events[-1][1]["response"]["usage"] is None
    with pytest.raises(httpx.RemoteProtocolError):
        await mock.stream(PATH, body(model="gpt-x+cut=3", stream=True))


# --- refusals

CODES = {
    "Missing required": "missing_required_parameter",
    "Unknown": "unknown_parameter",
    "Unsupported": "unsupported_parameter",
    "Invalid type": "invalid_type",
    "Invalid '": "invalid_value",
}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (body(input=5), "Invalid type for 'input': expected a string, but got an integer instead."),
        (body(odd=1), "Unknown parameter: 'odd'."),
        (
            body(messages=[]),
            "Unsupported parameter: 'messages'. In the Responses API, this parameter has moved to 'input'",
        ),
        (body(max_output_tokens="5"), "Invalid type for 'max_output_tokens': expected an integer, but got a string"),
        (body({"content": "a"}), "Missing required parameter: 'input[0].type'."),
        (body({"role": "user"}), "Missing required parameter: 'input[0].content'."),
        (
            body(user([IMAGE | {"image_url": {"url": "https://a"}}])),
            "Invalid type for 'input[0].content[0].image_url': expected a string, but got an object instead.",
        ),
        (
            body(user([IMAGE | {"image_url": "gs://a"}])),
            "Invalid 'input[0].content[0].image_url': Expected a valid URL",
        ),
        (body(user([{"type": "input_image"}])), "Missing required parameter: 'input[0].content[0].image_url'."),
        (
            body(user([{"type": "input_file", "file_data": "AAAA"}])),
            "Invalid 'input[0].content[0].file_data': Expected a base64-encoded data URL",
        ),
        (
            body(user([{"type": "input_file", "file_data": "data:a"}])),
            "Missing required parameter: 'input[0].content[0].filename'.",
        ),
        (body(user([text("a") | {"parsed": 1}])), "Unknown parameter: 'input[0].content[0].parsed'."),
        (
            body(user(), call() | {"parsed_arguments": {}}, result("a")),
            "Unknown parameter: 'input[1].parsed_arguments'.",
        ),
        (
            body(user(), call() | {"id": "x"}, result("a")),
            "Invalid 'input[1].id': 'x'. Expected an ID that begins with 'fc'.",
        ),
        (
            body(user(), thought(id=""), assistant("a")),
            "Invalid 'input[1].id': ''. Expected an ID that contains letters, numbers, underscores, or dashes,",
        ),
        (
            body(user(), {"type": "reasoning", "id": "rs_1"}, assistant("a")),
            "Missing required parameter: 'input[1].summary'.",
        ),
        (
            body(tools=[{"type": "function", "function": {"name": "a"}}]),
            "Missing required parameter: 'tools[0].name'.",
        ),
        (body(tools=[WEATHER | {"name": "a b"}]), "Invalid 'tools[0].name': string does not match pattern."),
        (body(tools=None), "Invalid type for 'tools': expected an array, but got null instead."),
        (
            body(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "x"}}),
            "Missing required parameter: 'tool_choice.name'.",
        ),
        (
            body(text={"format": {"type": "json_schema", "json_schema": {}}}),
            "Missing required parameter: 'text.format.name'.",
        ),
        (
            body(model="gpt-4o", **REASONING),
            "Unsupported parameter: 'reasoning.effort' is not supported with this model.",
        ),
        (
            body(model="o3-mini", temperature=0.5),
            "Unsupported parameter: 'temperature' is not supported with this model.",
        ),
    ],
)
async def test_wrong_fields_are_refused_as_the_api_does(mock, asked, message):
    status, refused = await mock.refused(PATH, asked)
    error = refused["error"]
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith(message)
    assert error["param"] == message.split("'")[1]
    assert error["code"] == next(code for beginning, code in CODES.items() if message.startswith(beginning))


@pytest.mark.parametrize(
    ("asked", "message", "param", "code"),
    [
        (body(input=None), 'One of "input" or "previous_response_id"', "input", "missing_required_parameter"),
        (body(input=[]), 'One of "input" or "previous_response_id"', "input", "missing_required_parameter"),
        (
            body(previous_response_id="r"),
            "Previous response with id 'r' not found.",
            "previous_response_id",
            "previous_response_not_found",
        ),
        (
            body(max_output_tokens=5),
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 5 instead.",
            "max_output_tokens",
            "integer_below_min_value",
        ),
        (
            body(temperature=2.5),
            "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 2.5 instead.",
            "temperature",
            "decimal_above_max_value",
        ),
        (
            body(user(), call("c" * 65), result("a")),
            "Invalid 'input[1].call_id': string too long. Expected a string with maximum length 64, but got a string",
            "input[1].call_id",
            "string_above_max_length",
        ),
        (
            body(truncation="odd"),
            "Invalid value: 'odd'. Supported values are: 'auto' and 'disabled'.",
            "truncation",
            "invalid_value",
        ),
        (body({"role": "tool", "content": "a"}), "Invalid value: 'tool'. Supported", "input[0]", "invalid_value"),
        (body({"type": "odd"}), "Invalid value: 'odd'. Supported values are: 'message', ", "input[0]", "invalid_value"),
        (
            body(user([{"type": "text", "text": "a"}])),
            "Invalid value: 'text'. Supported values are: 'input_text', 'input_image', and 'input_file'.",
            "input[0].content[0]",
            "invalid_value",
        ),
        (
            body(user(), assistant([text("a")]), user()),
            "Invalid value: 'input_text'. Supported values are: 'output_text' and 'refusal'.",
            "input[1].content[0]",
            "invalid_value",
        ),
        (body(user(), result("a")), "No tool call found for function call output with call_id call_1.", "input", None),
        (body(user(), result("a"), call()), "No tool call found for function call output with", "input", None),
        (body(user(), call()), "No tool output found for function call call_1.", "input", None),
        (
            body(user(), thought(), user()),
            "Item 'rs_1' of type 'reasoning' was provided without its required following item.",
            "input",
            None,
        ),
        (body(tool_choice="required"), "Tool choice 'required' must be specified", "tool_choice", "invalid_value"),
        (
            body(tools=[WEATHER], tool_choice={"type": "function", "name": "x"}),
            "Tool choice 'function' not found in 'tools' parameter.",
            "tool_choice",
            "invalid_value",
        ),
        (body(text={"format": {"type": "json_object"}}), "Response input messages must contain", "input", None),
        (
            body(model="gpt-4.1-mini", include=["reasoning.encrypted_content"]),
            "Encrypted content is not supported with this model.",
            "include",
            None,
        ),
    ],
)
async def test_wrong_requests_are_refused_as_the_api_does(mock, asked, message, param, code):
    status, refused = await mock.refused(PATH, asked)
    error = refused["error"]
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith(message)
    assert (error["param"], error["code"]) == (param, code)


async def test_nulls_are_accepted_where_allowed(mock):
    names = ("temperature", "top_p", "max_output_tokens", "instructions", "reasoning", "include", "metadata", "store")
    assert await said(mock, **dict.fromkeys(names)) == "You said: hello there"


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "authentication_error"), (429, "rate_limit_error"), (503, "server_error")]
)
async def test_errors_have_the_type_of_their_status(mock, status, kind):
    got, refused = await mock.refused(PATH, body(model=f"gpt-x+status={status}"))
    assert (got, refused["error"]["type"]) == (status, kind)


async def test_credentials_are_checked(asking):
    async with asking(api_key="k") as mock:
        await mock.plain(PATH, body(), authorization="Bearer k")
        status, refused = await mock.refused(PATH, body(), authorization="Bearer j")
        assert (status, refused["error"]["code"]) == (401, "invalid_api_key")


# --- hostile requests

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["tools", "tool_choice", "text", "reasoning", "input", "include", "metadata", "stream", "stream_options"]
HOSTED = st.builds(lambda more: {"type": "mcp_call", "output": more, "content": more, "id": more}, JSON)
ITEM = st.sampled_from([user(), assistant("a"), call(), result("a"), thought(), {"type": "item_reference", "id": "a"}])
CHOSEN = st.builds(
    lambda more: {"type": "allowed_tools", "mode": "auto", "tools": [{"type": more, "name": more}]}, JSON
)


@settings(max_examples=examples(200))
@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.lists(ITEM | HOSTED | JSON, max_size=4), JSON, JSON | CHOSEN)
def test_any_json_is_answered_or_refused(more, items, schema, choice):
    asked = body(user(), *items) | more
    asked.setdefault("text", {"format": {"type": "json_schema", "name": "a", "schema": {"x": schema}, "strict": True}})
    asked.setdefault("tools", [{"type": "mcp", "name": schema}, CLOCK])
    asked.setdefault("tool_choice", choice)
    with suppress(Refused):
        responses.create(Question(asked, "0" * 24, "mock", NONE))


# --- the official SDK


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture
async def sdk(mock):
    async with openai.AsyncOpenAI(base_url=mock.url + "/v1", api_key="k", max_retries=0) as sdk:
        yield sdk


async def test_the_sdk_reads_the_answers(sdk):
    asked = body(user("parallel"), tools=[WEATHER, CLOCK], **SEALED)
    plain = await sdk.responses.create(**asked)
    async with sdk.responses.stream(**asked) as stream:
        final = await stream.get_final_response()
    assert [item.type for item in plain.output] == ["reasoning", "function_call", "function_call"]
    assert [item.type for item in final.output] == [item.type for item in plain.output]
    assert final.usage.output_tokens == plain.usage.output_tokens
    results = [result("18", item.call_id) for item in plain.output if item.type == "function_call"]
    again = [user("parallel"), *(item.model_dump(exclude_none=True) for item in plain.output), *results]
    answer = await sdk.responses.create(**asked | {"input": again})
    assert answer.output_text == "The tool said: 18; 18"


async def test_the_sdk_parses_structured_output(sdk):
    answer = await sdk.responses.parse(model="gpt-4o", input="hello", text_format=Person)
    assert answer.output_parsed == Person(name="stub", age=1)
    async with sdk.responses.stream(model="gpt-4o", input="hello", text_format=Person) as stream:
        assert (await stream.get_final_response()).output_parsed == Person(name="stub", age=1)


async def test_the_sdk_reads_the_errors(sdk):
    with pytest.raises(openai.BadRequestError, match="No tool call found") as refused:
        await sdk.responses.create(**body(user(), result("a")))
    assert refused.value.param == "input"
    with pytest.raises(openai.NotFoundError, match="Items are not persisted"):
        await sdk.responses.create(**body(user(), thought(), assistant("a"), store=False))
    with pytest.raises(openai.APIError, match="errorevent"):
        async for _ in await sdk.responses.create(**body(model="gpt-x+errorevent=3", stream=True)):
            pass
