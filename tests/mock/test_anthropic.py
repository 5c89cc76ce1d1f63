from __future__ import annotations

import json
from contextlib import suppress

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.doubles import anthropic
from tests.doubles.answers import Question, Refused
from tests.doubles.faults import NONE
from tests.samples import examples

PATH = "/v1/messages"
VERSION = {"anthropic-version": "2023-06-01"}
VERTEX = "/v1/projects/p/locations/l/publishers/anthropic/models/claude-sonnet-4-5@20250929:"
WEATHER = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
    },
}
CLOCK = {"name": "get_time", "input_schema": {"type": "object"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
MARK = {"type": "ephemeral"}
ENABLED = {"type": "enabled", "budget_tokens": 1024}


def user(content="hello there"):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def text(value, **more):
    return {"type": "text", "text": value, **more}


def use(id="toolu_1", name="get_weather", **input):
    return {"type": "tool_use", "id": id, "name": name, "input": input}


def result(content, id="toolu_1", **more):
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def body(*messages, **more):
    return {"model": "claude-x", "max_tokens": 2000, "messages": list(messages) or [user()]} | more


@pytest.fixture
def api(mock):
    mock.headers = VERSION
    return mock


async def said(api, *messages, **more):
    answer = await api.plain(PATH, body(*messages, **more))
    return "".join(block["text"] for block in answer["content"] if block["type"] == "text")


# --- plain answers


async def test_a_message_is_answered(api):
    answer = await api.plain(PATH, body(system="Be brief."))
    identity = answer.pop("id")
    assert identity.startswith("msg_")
    assert answer == {
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [{"type": "text", "text": "You said: hello there"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 4,
            "output_tokens_details": {"thinking_tokens": 0},
            "service_tier": "standard",
        },
    }
    seen = await api.seen()
    assert (seen["dialect"], seen["path"], seen["model"]) == ("anthropic", PATH, "claude-x")


async def test_the_last_turn_is_answered(api):
    assert (
        await said(api, user("a"), assistant("b"), user("c"), user([text("d"), IMAGE, text("e")])) == "You said: c d e"
    )
    assert await said(api, user("a"), assistant("go on")) == "You said: a"


async def test_limits_and_stop_sequences_end_the_text(api):
    cut = await api.plain(PATH, body(max_tokens=2))
    assert (cut["content"][0]["text"], cut["stop_reason"]) == ("You said:", "max_tokens")
    stopped = await api.plain(PATH, body(stop_sequences=["zzz", " there"]))
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", " there")
    assert stopped["content"][0]["text"] == "You said: hello"


async def test_images_and_documents_are_counted(api):
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    answer = await api.plain(PATH, body(user([text("what is this"), IMAGE, document])))
    assert answer["usage"]["input_tokens"] == 3 + 2 * 85


async def test_cache_marks_make_cached_tokens(api):
    system = [text("one two three", cache_control=MARK), text("four five", cache_control=MARK | {"ttl": "1h"})]
    usage = (await api.plain(PATH, body(system=system)))["usage"]
    assert (usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"], usage["input_tokens"]) == (3, 2, 2)
    assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 2}
    tools = [WEATHER | {"cache_control": MARK}]
    usage = (await api.plain(PATH, body(tools=tools, cache_control=MARK)))["usage"]
    assert (usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"], usage["input_tokens"]) == (0, 2, 0)
    usage = (await api.plain(PATH, body(model="claude-x+cached=1")))["usage"]
    assert (usage["cache_read_input_tokens"], usage["input_tokens"]) == (1, 1)


async def test_tokens_are_counted(api):
    counted = {"model": "claude-x", "messages": [user()], "system": "Be brief."}
    assert await api.plain(PATH + "/count_tokens", counted) == {"input_tokens": 4}
    status, _ = await api.refused(PATH + "/count_tokens", counted | {"max_tokens": 5})
    assert status == 400


# --- tools


async def test_tools_are_called(api):
    answer = await api.plain(PATH, body(tools=[WEATHER, CLOCK]))
    (call,) = answer["content"]
    assert call["type"] == "tool_use"
    assert call["id"].startswith("toolu_")
    assert (call["name"], call["input"]) == ("get_weather", {"city": "stub", "unit": "C"})
    assert answer["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["get_weather", "get_time"]),
        ({"type": "auto"}, ["get_weather", "get_time"]),
        ({"type": "any", "disable_parallel_tool_use": True}, ["get_weather"]),
        ({"type": "tool", "name": "get_time"}, ["get_time"]),
        ({"type": "none"}, []),
    ],
)
async def test_the_choice_of_tools_is_followed(api, choice, names):
    asked = body(user("in parallel"), tools=[WEATHER, CLOCK], **({"tool_choice": choice} if choice else {}))
    answer = await api.plain(PATH, asked)
    assert [block["name"] for block in answer["content"] if block["type"] == "tool_use"] == names


async def test_tool_results_are_answered(api):
    called = [user("weather?"), assistant([text("Let me see."), use()])]
    tools = {"tools": [WEATHER]}
    assert await said(api, *called, user([result("18 degrees")]), **tools) == "The tool said: 18 degrees"
    assert await said(api, *called, user([result([text('{"at": 18}'), IMAGE])]), **tools) == 'The tool said: {"at":18}'
    assert await said(api, *called, user([result("no", is_error=True)]), **tools) == "The tool failed: no"
    assert await said(api, *called, user([result("18"), text("thanks")])) == "You said: thanks"
    both = [user("weather?"), assistant([use(), use("toolu_2")]), user([result("a")]), user([result("b", "toolu_2")])]
    assert await said(api, *both, **tools) == "The tool said: a; b"


# --- thinking


async def test_thinking_comes_back_with_its_signature(api):
    asked = body(thinking=ENABLED, tools=[WEATHER])
    answer = await api.plain(PATH, asked)
    thought, call = answer["content"]
    assert thought["thinking"] == "Let me think. You said: hello there"
    assert answer["usage"]["output_tokens_details"] == {"thinking_tokens": 7}
    again = asked | {"messages": [user(), assistant([thought, call]), user([result("18", call["id"])])]}
    assert (await api.plain(PATH, again))["content"][1]["text"] == "The tool said: 18"
    for changed in ({"signature": "AAAA"}, {"thinking": "else"}, {"signature": thought["signature"][:-4]}):
        again["messages"][1] = assistant([thought | changed, call])
        _, refused = await api.refused(PATH, again)
        assert refused["error"]["message"] == "messages.1.content.0: Invalid `signature` in `thinking` block"


async def test_thinking_can_be_redacted(api):
    answer = await api.plain(PATH, body(user("redacted, please"), thinking=ENABLED))
    redacted, _ = answer["content"]
    assert set(redacted) == {"type", "data"}
    assert await said(api, user(), assistant([redacted]), user("b")) == "You said: b"
    _, refused = await api.refused(PATH, body(user(), assistant([redacted | {"data": "x"}]), user()))
    assert "redacted_thinking" in refused["error"]["message"]


async def test_thinking_may_be_omitted_or_adaptive(api):
    answer = await api.plain(PATH, body(thinking={"type": "adaptive", "display": "omitted"}))
    thought = answer["content"][0]
    assert thought["thinking"] == ""
    assert answer["usage"]["output_tokens_details"] == {"thinking_tokens": 7}
    assert await said(api, user(), assistant([thought, text("a")]), user("b")) == "You said: b"


# --- structured output

ADDRESS = {
    "type": "object",
    "properties": {"street": {"type": "string"}, "number": {"type": "integer"}},
    "required": ["street", "number"],
    "additionalProperties": False,
}


def structured(schema):
    return body(output_config={"format": {"type": "json_schema", "schema": schema}})


async def test_structured_output_fits_its_schema(api):
    answer = await api.plain(PATH, structured(ADDRESS))
    assert json.loads(answer["content"][0]["text"]) == {"street": "stub", "number": 1}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {}},
        ADDRESS | {"additionalProperties": True},
        ADDRESS | {"properties": {"street": {"type": "string", "maxLength": 5}}},
        ADDRESS | {"properties": {"inner": {"type": "object"}}},
        ADDRESS | {"properties": {"list": {"type": "array", "minItems": 2}}},
        ADDRESS | {"properties": {"x": {"oneOf": [{"type": "string"}]}}},
        ADDRESS | {"properties": {"x": {"$ref": "https://example.com"}}},
        ADDRESS | {"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}},
        ADDRESS | {"properties": {"x": {"type": "string", "format": "odd"}}},
        ADDRESS | {"properties": {"x": {"enum": [{}]}}},
        ADDRESS | {"properties": {"x": True}},
    ],
)
async def test_unsupported_schemas_are_refused(api, schema):
    assert (await api.refused(PATH, structured(schema)))[0] == 400
    strict = WEATHER | {"strict": True, "input_schema": schema}
    assert (await api.refused(PATH, body(tools=[strict])))[0] == 400


# --- streams


async def test_a_stream_has_the_events_of_the_api(api):
    events = await api.stream(PATH, body(stream=True))
    assert [name for name, _ in events] == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * 4,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert all(event["type"] == name for name, event in events)
    start = events[0][1]["message"]
    assert (start["content"], start["stop_reason"], start["usage"]["output_tokens"]) == ([], None, 1)
    assert events[-2][1]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2][1]["usage"]["output_tokens"] == 4


@pytest.mark.parametrize(
    "asked",
    [
        body(),
        body(max_tokens=2),
        body(stop_sequences=["there"]),
        body(user("parallel"), tools=[WEATHER, CLOCK], thinking=ENABLED),
        body(user("redacted"), thinking=ENABLED),
        body(thinking={"type": "adaptive", "display": "omitted"}),
        body(model="claude-x+words=0"),
        structured(ADDRESS),
    ],
)
async def test_streams_equal_plain_answers(api, asked):
    plain = await api.plain(PATH, asked)
    made = {}
    blocks = []
    for name, event in await api.stream(PATH, asked | {"stream": True}):
        match name:
            case "message_start":
                made = event["message"]
            case "content_block_start":
                blocks.append(event["content_block"] | {"json": ""})
            case "content_block_delta":
                for key, value in event["delta"].items():
                    target = {"partial_json": "json"}.get(key, key)
                    if key != "type":
                        blocks[event["index"]][target] += value
            case "message_delta":
                made |= event["delta"] | {"usage": made["usage"] | event["usage"]}
    for block in blocks:
        arguments = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(arguments)
    for block in [*blocks, *plain["content"]]:
        block.pop("id", "")
    assert made | {"content": blocks, "id": ""} == plain | {"id": ""}


async def test_faults_affect_streams(api):
    events = await api.stream(PATH, body(model="claude-x+errorevent=3", stream=True))
    assert len(events) == 4
    assert events[-1] == (
        "error",
        {
            "type": "error",
            "error": {"type": "api_error", "message": "A fault was asked for: errorevent."},
            "request_id": "req_mock",
        },
    )
    events = await api.stream(PATH, body(model="claude-x+sse=nodone+words=20", stream=True))
    assert events[-1][0] == "message_delta"
    assert len(events) == 20 + 5
    events = await api.stream(PATH, body(model="claude-x+usage=none", stream=True))
    assert not any("usage" in event or "usage" in event.get("message", {}) for _, event in events)
    events = await api.stream(PATH, body(model="claude-x+usage=early", stream=True))
    assert events[0][1]["message"]["usage"]["output_tokens"] == 4
    assert "usage" not in events[-2][1]
    with pytest.raises(httpx.RemoteProtocolError):
        await api.stream(PATH, body(model="claude-x+cut=3", stream=True))


# --- refusals


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (body(max_tokens=None), "max_tokens: Input should be a valid integer"),
        (body(max_tokens="5"), "max_tokens: Input should be a valid integer"),
        ({"model": "claude-x", "messages": [user()]}, "max_tokens: Field required"),
        (body(temperature=1.5), "temperature: Input should be less than or equal to 1"),
        (body(seed=1), "seed: Extra inputs are not permitted"),
        (body(user([text("a", annotations=[])])), "messages.0.content.0.annotations: Extra inputs are not permitted"),
        (body({"role": "tool", "content": "a"}), "messages.0: Input tag 'tool'"),
        (body(user([{"type": "input_text", "text": "a"}])), "messages.0.content.0: Input tag 'input_text'"),
        (body(user(5)), "messages.0.content: Input should be a valid string"),
        (body(messages=[]), "messages: at least one message is required"),
        (body(assistant("a"), user()), 'messages: first message must use the "user" role'),
        (body(user("")), "messages.0: all messages must have non-empty content"),
        (body(user([text("")])), "messages: text content blocks must be non-empty"),
        (body(user([text("", cache_control=MARK)])), "messages: cache_control cannot be set for empty text blocks"),
        (body(user("  ")), "messages: text content blocks must contain non-whitespace text"),
        (body(system=[text("")]), "system: text content blocks must be non-empty"),
        (body(user(), assistant("a ")), "messages: final assistant content cannot end with trailing whitespace"),
        (body(stop_sequences=[" "]), "stop_sequences.0: each stop sequence must contain non-whitespace"),
        (body(user([use()])), "messages.0.content.0: `tool_use` blocks cannot be in `user` messages"),
        (body(user(), assistant([result("a")]), user()), "messages.1.content.0: `tool_result` blocks cannot be in"),
        (body(user([result("a")])), "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks"),
        (body(user(), assistant([use()]), user("a")), "messages.1: `tool_use` ids were found without `tool_result`"),
        (body(user(), assistant([use()])), "messages.1: `tool_use` ids were found without `tool_result`"),
        (body(user(), assistant([use()]), user([text("a"), result("b")])), "messages.1: `tool_use` ids were found"),
        (body(user(), assistant([use(), use()]), user([result("b")])), "messages.1: `tool_use` ids must be unique"),
        (
            body(user(), assistant([use()]), user([result("b"), result("b")])),
            "messages.2.content.1: each tool_use must",
        ),
        (body(user(), assistant([use("a b")]), user([result("b", "a b")])), "messages.1.content.0.id: String should"),
        (body(tools=[WEATHER, WEATHER]), "tools: Tool names must be unique."),
        (body(tools=[{"name": "a"}]), "tools.0.input_schema: Field required"),
        (body(tools=[{"name": "a", "input_schema": {}}]), "tools.0.input_schema.type: Field required"),
        (body(tools=[{"name": "a b", "input_schema": {"type": "object"}}]), "tools.0.name: String should match"),
        (body(tools=[{"type": "function", "function": {}}]), "tools.0: Input tag 'function'"),
        (body(tool_choice={"type": "auto"}), "tool_choice: tools must be provided"),
        (body(tools=[WEATHER], tool_choice="auto"), "tool_choice: Input should be a valid dictionary"),
        (body(tools=[WEATHER], tool_choice={"type": "tool", "name": "x"}), "Tool 'x' not found in provided tools"),
        (body(thinking=ENABLED, max_tokens=1024), "`max_tokens` must be greater than `thinking.budget_tokens`."),
        (body(thinking={"type": "enabled", "budget_tokens": 5}), "thinking.budget_tokens: Input should be greater"),
        (body(thinking=ENABLED, temperature=0.5), "`temperature` may only be set to 1 when thinking is enabled"),
        (body(thinking=ENABLED, top_p=0.5), "`top_p` must be greater than or equal to 0.95 or unset"),
        (body(thinking=ENABLED, top_k=5), "`top_k` must be unset"),
        (body(thinking=ENABLED, tools=[WEATHER], tool_choice={"type": "any"}), "Thinking may not be enabled when"),
        (
            body(user(), assistant([use()]), user([result("a")]), tools=[WEATHER], thinking=ENABLED),
            "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`.",
        ),
        (
            body(user([IMAGE | {"source": {"type": "base64", "media_type": "image/bmp", "data": "AAAA"}}])),
            "messages.0.content.0.source.media_type: Input should be 'image/jpeg'",
        ),
        (
            body(user([IMAGE | {"source": {"type": "base64", "media_type": "image/png", "data": "a b"}}])),
            "messages.0.content.0.source.data: Invalid base64 data",
        ),
        (
            body(user([{"type": "image", "source": {"type": "url", "url": "data:image/png;base64,AAAA"}}])),
            "messages.0.content.0.source.url: Only HTTPS URLs are supported.",
        ),
        (body(user([text("a", cache_control=MARK)] * 5)), "A maximum of 4 blocks with cache_control may be provided."),
        (body(model="claude-opus-4-7", temperature=0.5), "`temperature` is deprecated for this model."),
        (body(model="claude-opus-4-8", thinking=ENABLED), '"thinking.type.enabled" is not supported for this model.'),
        (body(model="claude-sonnet-4-5", temperature=0.5, top_p=0.5), "`temperature` and `top_p` cannot both be"),
        (body(model="claude-haiku-4-5-20251001", thinking={"type": "adaptive"}), "adaptive thinking is not supported"),
        (body(model="claude-3-5-sonnet-latest", thinking=ENABLED), "thinking is not supported on this model"),
        (
            body(user(), assistant("a"), model="claude-opus-4-6"),
            "This model does not support assistant message prefill",
        ),
    ],
)
async def test_wrong_requests_are_refused_as_the_api_does(api, asked, message):
    status, refused = await api.refused(PATH, asked)
    assert (status, refused["type"], refused["error"]["type"]) == (400, "error", "invalid_request_error")
    assert refused["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (body(temperature=1), "temperature: Extra inputs are not permitted"),
        (body(user([text("a", citations=[{}])])), "messages.0.content.0.citations"),
        (
            body(user(), assistant([{"type": "document", "source": {"type": "file", "file_id": "f"}}]), user()),
            "messages.1.content.0: `document` blocks",
        ),
    ],
)
async def test_the_newest_version_accepts_fewer_fields(api, asked, message):
    await api.plain(PATH, asked)
    _, refused = await api.refused(PATH, asked, **{"anthropic-version": "2026-10-21"})
    assert refused["error"]["message"].startswith(message)


async def test_the_version_is_required(mock):
    _, refused = await mock.refused(PATH, body())
    assert refused["error"]["message"] == "anthropic-version: header is required"
    _, refused = await mock.refused(PATH, body(), **{"anthropic-version": "2022-01-01"})
    assert "not a valid version" in refused["error"]["message"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "authentication_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (418, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ],
)
async def test_errors_have_the_type_of_their_status(api, status, kind):
    got, refused = await api.refused(PATH, body(model=f"claude-x+status={status}"))
    assert (got, refused["error"]["type"]) == (status, kind)


async def test_credentials_are_checked(asking):
    async with asking(api_key="k") as mock:
        for good in ({"x-api-key": "k"}, {"authorization": "Bearer k"}):
            await mock.plain(PATH, body(), **VERSION, **good)
        for bad in ({}, {"x-api-key": "j"}, {"x-goog-api-key": "k"}):
            status, refused = await mock.refused(PATH, body(), **VERSION, **bad)
            assert (status, refused["error"]["type"]) == (401, "authentication_error")
        assert (await mock.client.get(PATH)).json()["type"] == "error"


# --- on Vertex


async def test_vertex_is_answered(mock):
    asked = body(anthropic_version="vertex-2023-10-16")
    del asked["model"]
    plain = await mock.plain(VERTEX + "rawPredict", asked)
    assert (plain["model"], plain["content"][0]["text"]) == ("claude-sonnet-4-5@20250929", "You said: hello there")
    assert len(await mock.stream(VERTEX + "streamRawPredict", asked | {"stream": True})) == 10
    seen = await mock.seen()
    assert (seen["dialect"], seen["model"]) == ("anthropic_vertex", "claude-sonnet-4-5@20250929")
    new = asked | {"anthropic_version": "2026-10-21"}
    await mock.plain(VERTEX + "rawPredict", new)
    for wrong in (asked | {"model": "x"}, body(), asked | {"anthropic_version": "2023-06-01"}, new | {"top_k": 1}):
        assert (await mock.refused(VERTEX + "rawPredict", wrong))[0] == 400
    status, _ = await mock.refused(VERTEX.replace("@20250929", "%2Bstatus%3D503") + "rawPredict", asked)
    assert status == 503


# --- hostile requests

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["system", "tools", "tool_choice", "thinking", "output_config", "messages", "cache_control", "stop_sequences"]
BLOCK = st.sampled_from([text("a"), IMAGE, use(), result("a"), {"type": "thinking"}, {"type": "redacted_thinking"}])


@settings(max_examples=examples(150))
@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.lists(BLOCK | JSON, max_size=4), JSON)
def test_any_json_is_answered_or_refused(more, content, schema):
    asked = body(user(), assistant(content), user(content)) | more
    asked.setdefault("output_config", {"format": {"type": "json_schema", "schema": schema}})
    with suppress(Refused):
        anthropic.messages(Question(asked, "0" * 24, "mock", NONE, "m", [(b"anthropic-version", b"2026-10-21")]))


# --- the official SDK


async def test_the_sdk_reads_the_answers(mock):
    sdk = pytest.importorskip("anthropic")
    async with sdk.AsyncAnthropic(base_url=mock.url, api_key="k", max_retries=0) as client:
        asked = body(user("parallel"), tools=[WEATHER, CLOCK], thinking=ENABLED)
        plain = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            final = await stream.get_final_message()
        assert [block.type for block in plain.content] == ["thinking", "tool_use", "tool_use"]
        assert [block.type for block in final.content] == [block.type for block in plain.content]
        assert final.usage.output_tokens == plain.usage.output_tokens
        answers = [result("18", block.id) for block in plain.content if block.type == "tool_use"]
        again = await client.messages.create(
            **asked | {"messages": [user("parallel"), assistant(plain.content), user(answers)]}
        )
        assert again.content[-1].text == "The tool said: 18; 18"
        counted = await client.messages.count_tokens(model="claude-x", messages=[user()])
        assert counted.input_tokens == 2
        with pytest.raises(sdk.RateLimitError, match="status=429"):
            await client.messages.create(**body(model="claude-x+status=429"))
        with pytest.raises(sdk.APIStatusError, match="errorevent"):
            async with client.messages.stream(**body(model="claude-x+errorevent=3")) as stream:
                await stream.get_final_message()


async def test_the_sdk_reads_the_answers_of_vertex(mock):
    sdk = pytest.importorskip("anthropic")
    async with sdk.AsyncAnthropicVertex(
        base_url=mock.url + "/v1", region="l", project_id="p", access_token="t", max_retries=0
    ) as client:
        plain = await client.messages.create(**body())
        assert plain.content[0].text == "You said: hello there"
        async with client.messages.stream(**body()) as stream:
            assert (await stream.get_final_message()).content[0].text == plain.content[0].text
        counted = await client.messages.count_tokens(model="claude-x", messages=[user()])
        assert counted.input_tokens == 2
