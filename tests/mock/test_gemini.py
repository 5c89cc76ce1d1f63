from __future__ import annotations

import json
from contextlib import suppress

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.doubles import gemini
from tests.doubles.answers import Question, Refused
from tests.doubles.faults import NONE
from tests.samples import examples

GOOGLE = "/v1beta/models/gemini-x"
VERTEX = "/v1/projects/p/locations/l/publishers/google/models/gemini-x"
PLAIN, STREAM = ":generateContent", ":streamGenerateContent?alt=sse"
WEATHER = {
    "name": "get_weather",
    "parameters": {
        "type": "OBJECT",
        "properties": {"city": {"type": "STRING"}, "unit": {"type": "STRING", "enum": ["C", "F"]}},
        "required": ["city", "unit"],
    },
}
CLOCK = {"name": "get_time"}
IMAGE = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}


def user(*parts):
    return {"role": "user", "parts": [{"text": part} if isinstance(part, str) else part for part in parts]}


def model(*parts):
    return user(*parts) | {"role": "model"}


def call(name="get_weather", args=None, **more):
    return {"functionCall": {"name": name, "args": args or {}, **more}}


def response(value, name="get_weather", **more):
    answer = value if isinstance(value, dict) else {"output": value}
    return {"functionResponse": {"name": name, "response": answer, **more}}


def body(*contents, tools=None, system=None, **more):
    made = {"contents": list(contents) or [user("hello there")]}
    made |= {"tools": [{"functionDeclarations": tools}]} if tools else {}
    made |= {"systemInstruction": {"parts": [{"text": system}]}} if system else {}
    return made | ({"generationConfig": more} if more else {})


def at(model, verb=PLAIN):
    return GOOGLE.replace("gemini-x", model.replace("+", "%2B").replace("=", "%3D")) + verb


def parts(answer):
    return answer["candidates"][0]["content"]["parts"]


async def said(mock, *contents, **more):
    return "".join(part["text"] for part in parts(await mock.plain(GOOGLE + PLAIN, body(*contents, **more))))


# --- plain answers


@pytest.mark.parametrize("place", [GOOGLE, VERTEX])
async def test_an_answer_is_complete(mock, place):
    answer = await mock.plain(place + PLAIN, body(system="Be brief."))
    identity = answer.pop("responseId")
    assert identity
    assert answer == {
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": "You said: hello there"}]},
                "index": 0,
                "finishReason": "STOP",
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 4,
            "candidatesTokenCount": 4,
            "totalTokenCount": 8,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 4}],
        },
        "modelVersion": "gemini-x",
    }
    seen = await mock.seen()
    dialect = "gemini" if place == GOOGLE else "gemini_vertex"
    assert (seen["dialect"], seen["path"], seen["model"]) == (dialect, place + PLAIN, "gemini-x")


@pytest.mark.parametrize("place", ["/v1/models/m", "/v1beta1/projects/p/locations/l/publishers/google/models/m"])
async def test_other_versions_of_the_paths(mock, place):
    assert parts(await mock.plain(place + PLAIN, body())) == [{"text": "You said: hello there"}]


async def test_names_in_both_cases_are_accepted(mock):
    asked = body(user("hello there", {"inline_data": {"mime_type": "image/png", "data": "-_AA"}}))
    asked |= {"system_instruction": {"parts": {"text": "x"}}, "generation_config": {"max_output_tokens": 2}}
    assert (await mock.refused(GOOGLE + PLAIN, asked))[0] == 400
    asked["system_instruction"]["parts"] = [{"text": "x"}]
    answer = await mock.plain(GOOGLE + PLAIN, asked)
    assert (parts(answer), answer["candidates"][0]["finishReason"]) == ([{"text": "You said:"}], "MAX_TOKENS")


async def test_the_last_turn_is_answered(mock):
    assert await said(mock, user("a"), model("b"), user("c"), user("d", IMAGE, "e")) == "You said: c d e"


async def test_stops_media_candidates_and_cached(mock):
    assert await said(mock, stopSequences=[" there"]) == "You said: hello"
    file = {"fileData": {"fileUri": "https://example.com/a.pdf", "mimeType": "application/pdf"}}
    usage = (await mock.plain(GOOGLE + PLAIN, body(user("what is this", IMAGE, file))))["usageMetadata"]
    assert usage["promptTokenCount"] == 3 + 2 * 85
    assert usage["promptTokensDetails"][1] == {"modality": "IMAGE", "tokenCount": 170}
    two = await mock.plain(GOOGLE + PLAIN, body(candidateCount=2))
    assert [each["index"] for each in two["candidates"]] == [0, 1]
    assert two["candidates"][1]["content"]["parts"] == [{"text": "(1) You said: hello there"}]
    usage = (await mock.plain(at("gemini-x+cached=1"), body()))["usageMetadata"]
    assert (usage["promptTokenCount"], usage["cachedContentTokenCount"]) == (2, 1)


async def test_logprobs_are_given_when_asked_for(mock):
    answer = await mock.plain(GOOGLE + PLAIN, body(responseLogprobs=True, logprobs=2))
    candidate = answer["candidates"][0]
    assert candidate["avgLogprobs"] == -0.25
    assert [each["token"] for each in candidate["logprobsResult"]["chosenCandidates"]][:2] == ["You", " said:"]
    assert [each["token"] for each in candidate["logprobsResult"]["topCandidates"][0]["candidates"]] == [
        "You",
        " other1",
    ]


async def test_tokens_are_counted(mock):
    assert await mock.plain(GOOGLE + ":countTokens", body(system="a b")) == {"totalTokens": 4}
    asked = {"generateContentRequest": body() | {"model": "models/gemini-x"}}
    assert await mock.plain(GOOGLE + ":countTokens", asked) == {"totalTokens": 2}


# --- functions


async def test_functions_are_called(mock):
    answer = await mock.plain(GOOGLE + PLAIN, body(tools=[WEATHER, CLOCK]))
    assert parts(answer) == [call(args={"city": "stub", "unit": "C"})]
    assert answer["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize(
    ("calling", "names"),
    [
        ({}, ["get_weather", "get_time"]),
        ({"mode": "ANY"}, ["get_weather", "get_time"]),
        ({"mode": "ANY", "allowedFunctionNames": ["get_time"]}, ["get_time"]),
        ({"mode": "NONE"}, []),
    ],
)
async def test_the_mode_of_calling_is_followed(mock, calling, names):
    asked = body(user("in parallel"), tools=[WEATHER, CLOCK]) | {"toolConfig": {"functionCallingConfig": calling}}
    answer = await mock.plain(GOOGLE + PLAIN, asked)
    assert [part["functionCall"]["name"] for part in parts(answer) if "functionCall" in part] == names


@pytest.mark.parametrize("key", ["parametersJsonSchema", "parameters"])
async def test_arguments_fit_the_schema_of_the_parameters(mock, key):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    assert parts(await mock.plain(GOOGLE + PLAIN, body(tools=[{"name": "f", key: schema}])))[0]["functionCall"][
        "args"
    ] == {"city": "stub"}


async def test_results_of_functions_are_answered(mock):
    called = [user("weather?"), model("Let me see.", call())]
    assert await said(mock, *called, user(response("18 degrees"))) == "The tool said: 18 degrees"
    assert await said(mock, *called, user(response({"result": "18"}))) == "The tool said: 18"
    assert await said(mock, *called, user(response({"at": 18}))) == 'The tool said: {"at":18}'
    assert await said(mock, *called, user(response({"output": {"at": 18}}))) == 'The tool said: {"at":18}'
    assert await said(mock, *called, user(response({"error": "no"}))) == "The tool failed: no"
    both = [user("weather?"), model(call(), call()), user(response("a"), response("b"))]
    assert await said(mock, *both) == "The tool said: a; b"


async def test_a_gemini_3_requires_its_signatures(mock):
    path = at("gemini-3-pro")
    asked = body(user("in parallel"), tools=[WEATHER, CLOCK])
    calls = parts(await mock.plain(path, asked))
    assert ["thoughtSignature" in part for part in calls] == [True, False]
    identities = [part["functionCall"]["id"] for part in calls]
    answers = [response("a", id=identities[0]), response("b", "get_time", id=identities[1])]
    asked["contents"] += [model(*calls), user(*answers)]
    assert parts(await mock.plain(path, asked)) == [{"text": "The tool said: a; b"}]
    unsigned = {"functionCall": calls[0]["functionCall"]}
    asked["contents"][1] = model(unsigned, calls[1])
    _, refused = await mock.refused(path, asked)
    assert refused["error"]["message"].startswith("Function call is missing a thought_signature")
    asked["contents"] += [model("Well."), user("again")]  # earlier turns need none
    await mock.plain(path, asked)
    for signature in ("skip_thought_signature_validator", calls[0]["thoughtSignature"]):
        asked["contents"] = asked["contents"][:3]
        asked["contents"][1] = model(unsigned | {"thoughtSignature": signature}, calls[1])
        await mock.plain(path, asked)
    asked["contents"][1] = model(unsigned | {"thoughtSignature": "AAAA"}, calls[1])
    assert (await mock.refused(path, asked))[1]["error"]["message"] == "Corrupted thought signature."


# --- thinking


async def test_thoughts_are_shown_when_asked_for(mock):
    shown = body(thinkingConfig={"includeThoughts": True, "thinkingBudget": 1024})
    answer = await mock.plain(GOOGLE + PLAIN, shown)
    thought, text = parts(answer)
    assert thought == {"text": "Let me think. You said: hello there", "thought": True}
    assert set(text) == {"text", "thoughtSignature"}
    usage = answer["usageMetadata"]
    assert (usage["candidatesTokenCount"], usage["thoughtsTokenCount"], usage["totalTokenCount"]) == (4, 7, 13)
    assert await said(mock, user("a"), model(thought, text), user("b")) == "You said: b"
    hidden = await mock.plain(GOOGLE + PLAIN, body(thinkingConfig={"thinkingLevel": "LOW"}))
    assert len(parts(hidden)) == 1
    assert hidden["usageMetadata"]["thoughtsTokenCount"] == 7
    off = await mock.plain(GOOGLE + PLAIN, body(thinkingConfig={"thinkingBudget": 0, "includeThoughts": True}))
    assert "thoughtsTokenCount" not in off["usageMetadata"]


# --- structured output


@pytest.mark.parametrize("key", ["responseSchema", "responseJsonSchema"])
async def test_structured_output_fits_its_schema(mock, key):
    schema = {"type": "OBJECT", "properties": {"street": {"type": "STRING"}, "number": {"type": "INTEGER"}}}
    text = await said(mock, responseMimeType="application/json", **{key: schema})
    assert json.loads(text) == {"street": "stub", "number": 1}
    assert json.loads(await said(mock, responseMimeType="application/json")) == {"answer": "stub"}


# --- streams


async def test_a_stream_has_the_events_of_the_api(mock):
    events = [event for _, event in await mock.stream(GOOGLE + STREAM, body())]
    assert [parts(event) for event in events] == [[{"text": t}] for t in ("You", " said:", " hello", " there", "")]
    assert [event["candidates"][0].get("finishReason") for event in events] == [None] * 4 + ["STOP"]
    assert [event["usageMetadata"]["candidatesTokenCount"] for event in events] == [1, 2, 3, 4, 4]
    assert (await mock.post(GOOGLE + STREAM, body())).headers["content-type"].startswith("text/event-stream")
    answer = await mock.post(GOOGLE + ":streamGenerateContent", body())
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json() == events


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("gemini-x", body()),
        ("gemini-x", body(maxOutputTokens=2)),
        ("gemini-x", body(candidateCount=2, thinkingConfig={"includeThoughts": True})),
        ("gemini-3-pro", body(user("parallel"), tools=[WEATHER, CLOCK], thinkingConfig={"includeThoughts": True})),
        ("gemini-x+words=0", body()),
    ],
)
async def test_streams_equal_plain_answers(mock, model, asked):
    plain = await mock.plain(at(model), asked)
    events = [event for _, event in await mock.stream(at(model, STREAM), asked)]
    for index, candidate in enumerate(plain["candidates"]):
        mine = [each for event in events for each in event["candidates"] if each["index"] == index]
        assert mine[-1]["finishReason"] == candidate["finishReason"]
        made = []
        for part in (part for each in mine for part in each["content"]["parts"]):
            if made and "text" in part and made[-1].get("thought") == part.get("thought") and "text" in made[-1]:
                made[-1] |= part | {"text": made[-1]["text"] + part["text"]}
            elif part != {"text": ""} or len(mine) == 1:
                made.append(dict(part))
        assert made == candidate["content"]["parts"]
    assert events[-1]["usageMetadata"] == plain["usageMetadata"]


async def test_faults_affect_streams(mock):
    events = await mock.stream(at("gemini-x+errorevent=2", STREAM), body())
    assert len(events) == 3
    message = "A fault was asked for: errorevent."
    assert events[-1][1] == {"error": {"code": 500, "message": message, "status": "INTERNAL"}}
    assert len(await mock.stream(at("gemini-x+words=20+sse=nodone", STREAM), body())) == 20
    events = [event for _, event in await mock.stream(at("gemini-x+usage=none", STREAM), body())]
    assert not any("usageMetadata" in event for event in events)
    events = [event for _, event in await mock.stream(at("gemini-x+usage=early", STREAM), body())]
    assert ["usageMetadata" in event for event in events] == [True] * 4 + [False]
    with pytest.raises(httpx.RemoteProtocolError):
        await mock.stream(at("gemini-x+cut=3", STREAM), body())
    broken = await mock.post(at("gemini-x+errorevent=1", ":streamGenerateContent"), body())
    assert "error" in broken.json()[1]


# --- refusals


def configured(**config):
    return body(**config)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "* GenerateContentRequest.contents: contents is not specified"),
        ({"contents": []}, "* GenerateContentRequest.contents: contents is not specified"),
        (body() | {"messages": []}, 'Invalid JSON payload received. Unknown name "messages": Cannot find field.'),
        (
            body(user({"text": "a", "type": "text"})),
            "Invalid JSON payload received. Unknown name \"type\" at 'contents[0].parts[0]': Cannot find field.",
        ),
        (body({"role": "user", "parts": "a"}), "Invalid value at 'contents[0].parts'"),
        (body({"role": "assistant", "parts": [{"text": "a"}]}), "Please use a valid role: user, model."),
        (body({"role": "user", "parts": []}), "* GenerateContentRequest.contents[0].parts: contents.parts must not be"),
        (body(user({})), "* GenerateContentRequest.contents[0].parts[0].data: required oneof field 'data'"),
        (body(user("")), "* GenerateContentRequest.contents[0].parts[0].data: required oneof field 'data'"),
        (body(user({"text": 5})), "Invalid value at 'contents[0].parts[0].text' (TYPE_STRING), 5"),
        (body() | {"systemInstruction": "x"}, "Invalid value at 'system_instruction' (type.googleapis.com/"),
        (body(maxOutputTokens="x"), "Invalid value at 'generation_config.max_output_tokens' (TYPE_INT32), \"x\""),
        (body(temperature=3), "Invalid value at 'generation_config.temperature'"),
        (body(stopSequences=["a"] * 6), "Invalid value at 'generation_config.stop_sequences'"),
        (body(user({"inlineData": {"mimeType": "image/png"}})), "* GenerateContentRequest.contents[0].parts[0].inline"),
        (body(user({"inlineData": {"mimeType": "x/y", "data": "AAAA"}})), "Unsupported MIME type: x/y"),
        (body(user({"fileData": {"fileUri": "data:x"}})), "Invalid or unsupported file uri"),
        (body(user("a"), model(call()), user("b")), "Please ensure that the number of function response parts"),
        (body(user("a"), model(call(), call()), user(response("b"))), "Please ensure that the number of function"),
        (body(user(response("b"))), "Please ensure that function response turn comes immediately after"),
        (body(model(call()), user(response("b"))), "Please ensure that function call turn comes immediately after"),
        (body(user("a"), model("b"), model(call()), user(response("b"))), "Please ensure that function call turn"),
        (body(user("a"), model(call())), "Please ensure that a function call turn is followed"),
        (body(user("a"), model(call()), user(response("b", "x"))), "The function responses"),
        (body(user("a"), model(call(id="1")), user(response("b", id="2"))), "The function responses"),
        (
            body(user("a"), model(call()), user({"functionResponse": {"name": "get_weather", "response": "b"}})),
            "Invalid value at 'contents[2].parts[0].function_response.response' (type.googleapis.com/",
        ),
        (body(tools=[{"name": "a b"}]), "* GenerateContentRequest.tools[0].function_declarations[0].name"),
        (body(tools=[CLOCK, CLOCK]), "Duplicate function declaration found: get_time"),
        (body() | {"toolConfig": {"functionCallingConfig": {"mode": "any"}}}, "Invalid value at 'tool_config.function"),
        (
            body(tools=[CLOCK])
            | {"toolConfig": {"functionCallingConfig": {"mode": "AUTO", "allowedFunctionNames": ["get_time"]}}},
            "Function calling config: allowed_function_names is only for",
        ),
        (body(responseSchema={"type": "OBJECT"}), "generation_config: a response schema requires"),
        (body(logprobs=2), "generation_config.logprobs: response_logprobs must be true."),
        (body(thinkingConfig={"thinkingBudget": 1, "thinkingLevel": "LOW"}), "You can only set only one of thinking"),
        (body(thinkingConfig={"thinkingLevel": "low"}), "Invalid value at 'generation_config.thinking_config.thinking"),
    ],
)
async def test_wrong_requests_are_refused_as_the_api_does(mock, asked, message):
    status, refused = await mock.refused(GOOGLE + PLAIN, asked)
    assert (status, refused["error"]["code"], refused["error"]["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert refused["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("schema", "message", "on_vertex"),
    [
        ({"additionalProperties": False}, 'Unknown name "additionalProperties"', False),
        ({"$ref": "#/$defs/a"}, 'Unknown name "$ref"', True),
        ({"type": ["string", "null"]}, "Proto field is not repeating, cannot start list.", True),
        ({"type": "INTEGER", "enum": ["1"]}, "enum: only allowed for STRING type", True),
        ({"type": "STRING", "enum": [1]}, "(TYPE_STRING), 1", True),
        ({"type": "STRING", "enum": [""]}, "cannot be empty", True),
        ({"type": "ARRAY"}, "items: missing field.", True),
        ({"type": "STRING", "format": "email"}, "only 'enum' and 'date-time' are supported", False),
        ({"type": "OBJECT", "required": ["a"]}, "required[0]: property is not defined", True),
        ({"description": "x"}, "type: must be specified", True),
        ({"type": "STRING", "const": "a"}, 'Unknown name "const"', True),
    ],
)
async def test_unsupported_schemas_are_refused(mock, schema, message, on_vertex):
    parameters = {"type": "OBJECT", "properties": {"a": schema}}
    if "additionalProperties" in schema:
        parameters |= schema | {"properties": {}}
    asked = body(tools=[{"name": "f", "parameters": parameters}])
    _, refused = await mock.refused(GOOGLE + PLAIN, asked)
    assert message in refused["error"]["message"]
    assert (await mock.post(VERTEX + PLAIN, asked)).status_code == (400 if on_vertex else 200)


async def test_vertex_is_stricter_elsewhere(mock):
    one = {"type": "OBJECT", "properties": {"a": {"type": "STRING", "anyOf": [{"type": "STRING"}]}}}
    for asked in (
        body({"parts": [{"text": "a"}]}),
        body(tools=[{"name": "f", "parameters": one}]),
        body(user({"fileData": {"fileUri": "https://example.com"}})),
    ):
        await mock.plain(GOOGLE + PLAIN, asked)
        assert (await mock.refused(VERTEX + PLAIN, asked))[0] == 400


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("gemini-2.5-flash", body(tools=[CLOCK], responseMimeType="application/json")),
        ("gemini-2.5-flash", body(thinkingConfig={"thinkingLevel": "LOW"})),
        ("gemini-2.5-flash", body(thinkingConfig={"thinkingBudget": 32768})),
        ("gemini-2.5-flash-lite", body(thinkingConfig={"thinkingBudget": 100})),
        ("gemini-2.5-pro", body(thinkingConfig={"thinkingBudget": 0})),
    ],
)
async def test_fields_that_a_model_does_not_support_are_refused(mock, model, asked):
    await mock.plain(GOOGLE + PLAIN, asked)
    assert (await mock.refused(at(model), asked))[0] == 400


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
    ],
)
async def test_errors_have_the_name_of_their_status(mock, status, name):
    got, refused = await mock.refused(at(f"gemini-x+status={status}"), body())
    assert (got, refused["error"]["code"], refused["error"]["status"]) == (status, status, name)


async def test_credentials_are_checked(asking):
    async with asking(api_key="k") as mock:
        await mock.plain(GOOGLE + PLAIN, body(), **{"x-goog-api-key": "k"})
        await mock.plain(GOOGLE + PLAIN + "?key=k", body())
        status, refused = await mock.refused(GOOGLE + PLAIN, body(), **{"x-goog-api-key": "j"})
        assert (status, refused["error"]["details"][0]["reason"]) == (400, "API_KEY_INVALID")
        assert (await mock.refused(GOOGLE + PLAIN, body()))[0] == 403
        await mock.plain(VERTEX + PLAIN, body(), authorization="Bearer k")
        status, refused = await mock.refused(VERTEX + PLAIN, body(), authorization="Bearer j")
        assert (status, refused["error"]["status"]) == (401, "UNAUTHENTICATED")


# --- hostile requests

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "cachedContent"]
PART = st.sampled_from([{"text": "a"}, IMAGE, call(), response("a"), {"functionCall": {"name": "f"}}])
CONTENT = st.builds(
    lambda role, many: {"role": role, "parts": many}, st.sampled_from(["user", "model"]), st.lists(PART)
)


@settings(max_examples=examples(150))
@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.lists(CONTENT | JSON, max_size=4), JSON, st.booleans())
def test_any_json_is_answered_or_refused(more, contents, schema, vertex):
    asked = body(*contents, tools=[{"name": "f", "parameters": {"type": "object", "properties": {"a": schema}}}]) | more
    with suppress(Refused):
        gemini.generate_content(Question(asked, "0" * 24, "mock", NONE, "gemini-3"), vertex=vertex)


# --- the official SDK


async def test_the_sdk_reads_the_answers(mock):
    genai = pytest.importorskip("google.genai")
    types = genai.types
    options = types.HttpOptions(base_url=mock.url)
    client = genai.Client(api_key="k", http_options=options).aio
    config = types.GenerateContentConfig(
        system_instruction="Be brief.",
        tools=[types.Tool(function_declarations=[WEATHER, CLOCK])],
        thinking_config=types.ThinkingConfig(include_thoughts=True),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    contents = [types.UserContent("in parallel")]
    plain = await client.models.generate_content(model="gemini-3-pro", contents=contents, config=config)
    assert [each.name for each in plain.function_calls] == ["get_weather", "get_time"]
    assert plain.candidates[0].content.parts[0].thought
    assert plain.usage_metadata.thoughts_token_count == 7
    answers = [
        types.Part(function_response=types.FunctionResponse(id=each.id, name=each.name, response={"output": "18"}))
        for each in plain.function_calls
    ]
    contents += [plain.candidates[0].content, types.UserContent(answers)]
    chunks = [
        chunk
        async for chunk in await client.models.generate_content_stream(
            model="gemini-3-pro", contents=contents, config=config
        )
    ]
    assert "".join(chunk.text or "" for chunk in chunks) == "The tool said: 18; 18"
    picture = types.Part.from_bytes(data=b"\xff\xef", mime_type="image/png")
    pictured = await client.models.generate_content(model="gemini-x", contents=[picture, "hi"])
    assert pictured.text == "You said: hi"
    assert (await client.models.count_tokens(model="gemini-x", contents="a b c")).total_tokens == 3
    with pytest.raises(genai.errors.ServerError) as failed:
        await client.models.generate_content(model="gemini-x+status=503", contents="a")
    assert failed.value.status == "UNAVAILABLE"
    with pytest.raises(genai.errors.ServerError, match="errorevent"):
        async for _ in await client.models.generate_content_stream(model="gemini-x+errorevent=1", contents="a"):
            pass


async def test_the_sdk_reads_the_answers_of_vertex(mock):
    genai = pytest.importorskip("google.genai")
    credentials = pytest.importorskip("google.oauth2.credentials").Credentials("t")
    options = genai.types.HttpOptions(base_url=mock.url)
    client = genai.Client(vertexai=True, project="p", location="l", credentials=credentials, http_options=options).aio
    schema = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}, "required": ["a"]}
    config = {"response_mime_type": "application/json", "response_schema": schema}
    plain = await client.models.generate_content(model="gemini-x", contents="hello there", config=config)
    assert plain.parsed == {"a": "stub"}
