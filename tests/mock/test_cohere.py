from __future__ import annotations

import json
from contextlib import suppress

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.doubles import cohere
from tests.doubles.answers import Question, Refused
from tests.doubles.faults import NONE
from tests.samples import examples

PATH = "/v2/chat"
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
THINKING = {"type": "enabled", "token_budget": 500}


def user(content="hello there"):
    return {"role": "user", "content": content}


def assistant(content=None, **more):
    return {"role": "assistant", **({"content": content} if content else {}), **more}


def system(content="Be brief."):
    return {"role": "system", "content": content}


def text(value):
    return {"type": "text", "text": value}


def call(id="c1", name="get_weather", arguments='{"city": "a"}'):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content, id="c1"):
    return {"role": "tool", "tool_call_id": id, "content": content}


def document(data):
    return [{"type": "document", "document": {"data": data}}]


def body(*messages, **more):
    return {"model": "command-a-03-2025", "messages": list(messages) or [user()]} | more


async def said(mock, *messages, **more):
    answer = await mock.plain(PATH, body(*messages, **more))
    return "".join(part["text"] for part in answer["message"]["content"] if part["type"] == "text")


# --- plain answers


async def test_an_answer_is_complete(mock):
    answer = await mock.plain(PATH, body(system(), user()))
    assert len(answer.pop("id")) == 36
    counts = {"input_tokens": 4, "output_tokens": 4}
    assert answer == {
        "message": {"role": "assistant", "content": [text("You said: hello there")]},
        "finish_reason": "COMPLETE",
        "usage": {"billed_units": counts, "tokens": counts, "cached_tokens": 0},
    }
    seen = await mock.seen()
    assert (seen["dialect"], seen["path"], seen["model"]) == ("cohere", PATH, "command-a-03-2025")


async def test_turns_are_read(mock):
    assert await said(mock, user("a"), assistant("b"), user([text("c"), IMAGE, text("d")])) == "You said: c d"
    answer = await mock.plain(PATH, body(user([text("what is this"), IMAGE]), documents=["one two", {"data": {}}]))
    assert answer["usage"]["tokens"]["input_tokens"] == 3 + 85 + 2 + 1


async def test_limits_and_stop_sequences_end_the_text(mock):
    cut = await mock.plain(PATH, body(max_tokens=2))
    assert (cut["message"]["content"], cut["finish_reason"]) == ([text("You said:")], "MAX_TOKENS")
    stopped = await mock.plain(PATH, body(stop_sequences=["zzz", " there"]))
    assert (stopped["message"]["content"], stopped["finish_reason"]) == ([text("You said: hello")], "STOP_SEQUENCE")


async def test_logprobs_are_given_when_asked_for(mock):
    answer = await mock.plain(PATH, body(logprobs=True))
    assert [each["text"] for each in answer["logprobs"]] == ["You", " said:", " hello", " there"]
    assert answer["logprobs"][0] == {"text": "You", "token_ids": [3], "logprobs": [-0.25]}
    events = await mock.stream(PATH, body(logprobs=True, stream=True))
    assert [event["logprobs"] for name, event in events if name == "content-delta"] == answer["logprobs"]


async def test_cached_tokens_are_counted_and_not_billed(mock):
    usage = (await mock.plain(PATH, body(model="command-a-03-2025+cached=1")))["usage"]
    assert (usage["tokens"]["input_tokens"], usage["billed_units"]["input_tokens"], usage["cached_tokens"]) == (2, 1, 1)


async def test_usage_can_be_false(mock):
    usage = (await mock.plain(PATH, body(model="c+usage=negative")))["usage"]
    assert usage["tokens"] == {"input_tokens": -2, "output_tokens": -4}
    assert "usage" not in await mock.plain(PATH, body(model="c+usage=none"))


# --- tools


async def test_tools_are_called(mock):
    answer = await mock.plain(PATH, body(tools=[WEATHER, CLOCK]))
    message = answer["message"]
    (made,) = message["tool_calls"]
    assert made["id"].startswith("get_weather_")
    assert (made["type"], made["function"]["name"]) == ("function", "get_weather")
    assert json.loads(made["function"]["arguments"]) == {"city": "stub", "unit": "C"}
    assert message["tool_plan"] == "I will use the get_weather tool."
    assert "content" not in message
    assert answer["finish_reason"] == "TOOL_CALL"


@pytest.mark.parametrize(
    ("choice", "names"),
    [({}, ["get_weather", "get_time"]), ({"tool_choice": "REQUIRED"}, ["get_weather", "get_time"])],
)
async def test_calls_can_be_parallel(mock, choice, names):
    answer = await mock.plain(PATH, body(user("in parallel"), tools=[WEATHER, CLOCK], **choice))
    calls = answer["message"]["tool_calls"]
    assert [each["function"]["name"] for each in calls] == names
    assert calls[1]["function"]["arguments"] == "null"  # null, as the API writes them
    assert await said(mock, user("parallel"), tools=[WEATHER], tool_choice="NONE") == "You said: parallel"


async def test_tool_results_are_answered(mock):
    asked = [user("weather?"), assistant(tool_plan="I see.", tool_calls=[call()])]
    assert await said(mock, *asked, result("18 degrees"), tools=[WEATHER]) == "The tool said: 18 degrees"
    assert await said(mock, *asked, result(document({"at": 18}))) == 'The tool said: {"at":18}'
    assert await said(mock, *asked, result(document('{"at": 18}'))) == 'The tool said: {"at":18}'
    assert await said(mock, *asked, result(document({"output": "18 degrees"}))) == "The tool said: 18 degrees"
    assert await said(mock, *asked, result(document({"error": "no"}))) == "The tool failed: no"
    assert await said(mock, *asked, result([text("18")]), user("thanks")) == "You said: thanks"
    both = [user("weather?"), assistant(tool_calls=[call(), call("c2", arguments="null")])]
    assert await said(mock, *both, result("a"), result("b", "c2")) == "The tool said: a; b"


# --- thinking


@pytest.mark.parametrize(
    ("asked", "thinks"),
    [
        ({}, False),
        ({"thinking": THINKING}, True),
        ({"model": "command-a-reasoning-08-2025"}, True),
        ({"model": "command-a-reasoning-08-2025", "thinking": {"token_budget": 5}}, True),
        ({"model": "command-a-reasoning-08-2025", "thinking": {"type": "disabled"}}, False),
    ],
)
async def test_thinking_is_shown_when_asked_for(mock, asked, thinks):
    answer = await mock.plain(PATH, body(**asked))
    content = answer["message"]["content"]
    assert [part["type"] for part in content] == ["thinking"] * thinks + ["text"]
    assert answer["usage"]["tokens"]["output_tokens"] == 4 + 7 * thinks
    if thinks:
        assert content[0] == {"type": "thinking", "thinking": "Let me think. You said: hello there"}


async def test_thinking_comes_back(mock):
    asked = body(thinking=THINKING, tools=[WEATHER])
    message = (await mock.plain(PATH, asked))["message"]
    assert "tool_plan" not in message
    again = [user(), message, result("18", message["tool_calls"][0]["id"])]
    answer = await mock.plain(PATH, asked | {"messages": again})
    assert answer["message"]["content"][1] == text("The tool said: 18")


# --- structured output

ADDRESS = {
    "type": "object",
    "properties": {"street": {"type": "string"}, "number": {"type": "integer"}},
    "required": ["street", "number"],
}


async def test_structured_output_fits_its_schema(mock):
    wanted = {"type": "json_object", "json_schema": ADDRESS}
    assert json.loads(await said(mock, response_format=wanted)) == {"street": "stub", "number": 1}
    assert json.loads(await said(mock, response_format={"type": "json_object"})) == {"answer": "stub"}
    assert await said(mock, response_format={"type": "text"}) == "You said: hello there"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array"}, "schema must be an object"),
        (ADDRESS | {"required": ["x"]}, "required field x not found in properties"),
        (ADDRESS | {"properties": {"street": {}}, "required": ["street"]}, "property street must have a type"),
        (ADDRESS | {"required": []}, "object must have at least one required field"),
    ],
)
async def test_unsupported_schemas_are_refused(mock, schema, message):
    _, refused = await mock.refused(PATH, body(response_format={"type": "json_object", "json_schema": schema}))
    assert refused["message"] == message
    tool = {"type": "function", "function": {"name": "a", "parameters": schema}}
    await mock.plain(PATH, body(tools=[tool]))
    assert (await mock.refused(PATH, body(tools=[tool], strict_tools=True)))[0] == 400


# --- streams


async def test_a_stream_has_the_events_of_the_api(mock):
    events = await mock.stream(PATH, body(stream=True))
    assert [name for name, _ in events] == [
        "message-start",
        "content-start",
        *["content-delta"] * 4,
        "content-end",
        "message-end",
        "",
    ]
    assert events.pop() == ("", "[DONE]")
    assert all(event["type"] == name for name, event in events)
    assert events[0][1]["delta"]["message"]["role"] == "assistant"
    assert events[1][1] == {
        "type": "content-start",
        "index": 0,
        "delta": {"message": {"content": {"type": "text", "text": ""}}},
    }
    assert events[-1][1]["delta"]["finish_reason"] == "COMPLETE"
    assert events[-1][1]["delta"]["usage"]["tokens"] == {"input_tokens": 2, "output_tokens": 4}


@pytest.mark.parametrize(
    "asked",
    [
        body(),
        body(max_tokens=2),
        body(stop_sequences=["there"]),
        body(user("parallel"), tools=[WEATHER, CLOCK]),
        body(user("parallel"), tools=[WEATHER, CLOCK], thinking=THINKING),
        body(thinking=THINKING),
        body(model="command+words=0"),
    ],
)
async def test_streams_equal_plain_answers(mock, asked):
    plain = await mock.plain(PATH, asked)
    made: dict = {"role": "assistant"}
    content: dict = {}
    calls: dict = {}
    events = await mock.stream(PATH, asked | {"stream": True})
    for name, event in events[:-1]:
        message = event.get("delta", {}).get("message", {})
        match name:
            case "content-start":
                content[event["index"]] = message["content"]
            case "content-delta":
                for key, value in message["content"].items():
                    content[event["index"]][key] += value
            case "tool-plan-delta":
                made["tool_plan"] = made.get("tool_plan", "") + message["tool_plan"]
            case "tool-call-start":
                calls[event["index"]] = message["tool_calls"]
            case "tool-call-delta":
                calls[event["index"]]["function"]["arguments"] += message["tool_calls"]["function"]["arguments"]
    made |= {"content": list(content.values())} if content else {}
    made |= {"tool_calls": list(calls.values())} if calls else {}
    for each in [*calls.values(), *plain["message"].get("tool_calls", ())]:
        each["id"] = ""
        each["function"]["arguments"] = each["function"]["arguments"] or "null"
    assert made == plain["message"]
    assert events[-2][1]["delta"] == {name: plain[name] for name in ("finish_reason", "usage")}


async def test_faults_affect_streams(mock):
    events = await mock.stream(PATH, body(model="c+errorevent=3", stream=True))
    assert len(events) == 4
    assert events[-1] == (
        "message-end",
        {
            "type": "message-end",
            "delta": {"finish_reason": "ERROR", "error": "A fault was asked for: errorevent."},
        },
    )
    events = await mock.stream(PATH, body(model="c+sse=nodone+words=20", stream=True))
    assert events[-1][0] == "content-end"
    assert len(events) == 20 + 3
    events = await mock.stream(PATH, body(model="c+usage=none", stream=True))
    assert "usage" not in events[-2][1]["delta"]
    events = await mock.stream(PATH, body(model="c+usage=early", stream=True))
    assert events[0][1]["delta"]["usage"]["tokens"]["output_tokens"] == 4
    assert "usage" not in events[-2][1]["delta"]
    with pytest.raises(httpx.RemoteProtocolError):
        await mock.stream(PATH, body(model="c+cut=3", stream=True))


# --- refusals

PROPER = "For proper usage, please refer to https://docs.cohere.com/reference/chat"
UNANSWERED = "invalid request: An assistant message with 'tool_calls' must be followed by tool messages"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (body(messages=None), "invalid request: messages is required."),
        (body(messages="hi"), "invalid type: parameter 'messages' is of type string but should be of type []Object."),
        (body(max_tokens="5"), "invalid type: parameter 'max_tokens' is of type string but should be of type int."),
        (body(max_tokens=-1), "invalid request: max_tokens cannot be less than 0."),
        (body(temperature=1.5), "invalid request: temperature must be between 0 and 1.0 inclusive."),
        (body(p=1), "invalid request: p must be between 0.01 and 0.99 inclusive."),
        (body(stop_sequences=["a"] * 6), "invalid request: too many stop sequences provided, maximum is 5, received 6"),
        (body(frequency_penalty=1, presence_penalty=1), "invalid request: cannot specify both frequency_penalty and"),
        (body(thinking={"type": "enabled", "token_budget": 0}), "invalid request: thinking token_budget must be a"),
        (body(safety_mode="odd"), f"unrecognized safety mode 'odd'. {PROPER}"),
        (body({"role": "developer", "content": "a"}), "invalid request: messages[0]: Input tag 'developer'"),
        (body(user(), system()), "system turn must be the first in the list"),
        (body(messages=[]), "invalid request: message must be at least 1 token long or tool results must be"),
        (body(system()), "invalid request: message must be at least 1 token long or tool results must be"),
        (body(user("")), "message must not be empty in a turn"),
        (body(user([])), "message must not be empty in a turn"),
        (body(user(), assistant(), user()), "message must not be empty in a turn"),
        (body(user({"type": "text", "text": "a"})), "invalid type: parameter 'messages[0].content' is of type object"),
        (
            body(user([{"type": "image_url", "image_url": {"url": "gs://a"}}])),
            "invalid request: messages[0].content[0]",
        ),
        (body(result("a")), "tool call id not found in previous tool calls"),
        (body(user(), assistant(tool_calls=[call()]), result("a", None)), "tool call id must be provided with tool"),
        (body(user(), assistant(tool_calls=[call()]), user()), UNANSWERED),
        (body(user(), assistant(tool_calls=[call(), call("c2")]), result("a")), UNANSWERED),
        (body(user(), assistant(tool_calls=[call(), call()]), result("a")), "cannot have duplicate tool ids"),
        (body(user(), assistant(tool_calls=[call() | {"type": "x"}]), result("a")), "tool call must be of type"),
        (body(user(), assistant(tool_calls=[call(arguments="[1]")]), result("a")), "invalid request: tool call argu"),
        (
            body(user(), assistant("Let me see.", tool_calls=[call()]), result("a")),
            "text content is not allowed when tool_calls are provided. If you wish to pass a tool plan,",
        ),
        (body(tools=[WEATHER, WEATHER]), "invalid request: tool names must be unique."),
        (
            body(tools=[{"type": "function", "function": {"name": "get-it", "parameters": {}}}]),
            "invalid request: tool names can only contain certain characters (A-Za-z0-9_) and can't begin with a digit",
        ),
        (
            body(tools=[{"type": "function", "function": {"name": "a"}}]),
            "invalid request: tools[0].function.parameters",
        ),
        (body(tool_choice="REQUIRED"), "invalid request: tool_choice can only be specified with tools."),
        (body(tools=[WEATHER], tool_choice="AUTO"), "invalid request: tool_choice: Input should be 'REQUIRED' or"),
        (body(strict_tools=True), "invalid request: strict_tools can only be specified with tools."),
        (
            body(tools=[WEATHER], response_format={"type": "json_object"}),
            "invalid request: response_format is not supported with RAG.",
        ),
        (body(response_format={"type": "json_schema"}), "invalid request: response_format: Input tag 'json_schema'"),
    ],
)
async def test_wrong_requests_are_refused_as_the_api_does(mock, asked, message):
    status, refused = await mock.refused(PATH, asked)
    assert (status, set(refused)) == (400, {"id", "message"})
    assert refused["message"].startswith(message)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (body(top_p=0.5), "top_p"),
        (body(tools=[{"type": "function", "function": WEATHER["function"] | {"strict": True}}]), "strict"),
        (body(user(), assistant(tool_calls=[call() | {"index": 0}]), result("a")), "index"),
        (body(user([text("a") | {"cache_control": {}}])), "cache_control"),
    ],
)
async def test_unknown_fields_are_a_422(mock, asked, name):
    status, refused = await mock.refused(PATH, asked)
    assert (status, refused["message"]) == (422, f"unknown field: parameter '{name}' is not a valid field. {PROPER}")


async def test_a_null_counts_as_absent(mock):
    nulls = dict.fromkeys(("temperature", "tools", "stream", "response_format", "thinking", "stop_sequences"))
    assert await said(mock, **nulls) == "You said: hello there"


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 498, 500, 503])
async def test_errors_have_the_same_shape_for_every_status(mock, status):
    got, refused = await mock.refused(PATH, body(model=f"c+status={status}"))
    assert (got, refused["message"]) == (status, f"A fault was asked for: status={status}.")


async def test_credentials_are_checked(asking):
    async with asking(api_key="k") as mock:
        await mock.plain(PATH, body(), authorization="Bearer k")
        for bad in ({}, {"x-api-key": "k"}, {"authorization": "Bearer j"}):
            status, refused = await mock.refused(PATH, body(), **bad)
            assert (status, refused["message"]) == (401, "invalid api token")


# --- hostile requests

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["tools", "tool_choice", "thinking", "response_format", "messages", "documents", "stop_sequences", "stream"]
MESSAGE = st.sampled_from([user(), system(), assistant("a"), assistant(tool_calls=[call()]), result("a")])


@settings(max_examples=examples(150))
@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.lists(MESSAGE | JSON, max_size=4), JSON)
def test_any_json_is_answered_or_refused(more, messages, schema):
    asked = body(user(), *messages) | more
    asked.setdefault("response_format", {"type": "json_object", "json_schema": {"type": "object", "x": schema}})
    with suppress(Refused):
        cohere.chat(Question(asked, "0" * 24, "mock", NONE))


# --- the official SDK


@pytest.fixture
async def sdk(mock):
    library = pytest.importorskip("cohere")
    async with httpx.AsyncClient(verify=False, trust_env=False) as client:
        yield library.AsyncClientV2(api_key="k", base_url=mock.url, httpx_client=client)


async def test_the_sdk_reads_the_answers(sdk):
    asked = body(user("parallel"), tools=[WEATHER, CLOCK], thinking=THINKING)
    plain = await sdk.chat(**asked)
    assert plain.message.content[0].thinking == "Let me think. You said: parallel"
    assert [each.function.name for each in plain.message.tool_calls] == ["get_weather", "get_time"]
    assert plain.usage.tokens.output_tokens == 6 + 5
    results = [result(document({"output": "18"}), each.id) for each in plain.message.tool_calls]
    again = await sdk.chat(**asked | {"messages": [user("parallel"), plain.message, *results]})
    assert again.message.content[1].text == "The tool said: 18; 18"
    assert again.finish_reason == "COMPLETE"


async def test_the_sdk_reads_streams(sdk):
    events = [event async for event in sdk.chat_stream(**body(user("parallel"), tools=[WEATHER, CLOCK]))]
    assert [event.type for event in events if event.type.startswith("tool-call") and event.index == 1] == [
        "tool-call-start",
        "tool-call-end",
    ]
    plan = "".join(event.delta.message.tool_plan for event in events if event.type == "tool-plan-delta")
    assert plan == "I will use the get_weather tool."
    assert events[-1].delta.finish_reason == "TOOL_CALL"
    events = [event async for event in sdk.chat_stream(**body(model="c+errorevent=3"))]
    assert events[-1].delta.error == "A fault was asked for: errorevent."


async def test_the_sdk_reads_the_errors(sdk):
    library = pytest.importorskip("cohere")
    with pytest.raises(library.BadRequestError, match="temperature must be between"):
        await sdk.chat(**body(temperature=2))
    with pytest.raises(library.UnprocessableEntityError, match="unknown field"):
        await sdk.chat(**body(), request_options={"additional_body_parameters": {"odd": 1}})
    with pytest.raises(library.TooManyRequestsError):
        await sdk.chat(**body(model="c+status=429"), request_options={"max_retries": 0})
