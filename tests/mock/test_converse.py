from __future__ import annotations

import asyncio
import contextlib
import json
import os
from contextlib import suppress
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.framing.aws_eventstream import CORRUPT, AWSEventStream
from tests.doubles import converse
from tests.doubles.answers import Question, Refused
from tests.doubles.credentials import Asked, signature
from tests.doubles.faults import NONE
from tests.samples import examples

OTHER, CLAUDE = "amazon.nova-x", "anthropic.claude-sonnet-4-5-20250929-v1%3A0"
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
}
TOOLS = [
    {"toolSpec": {"name": "get_weather", "inputSchema": {"json": WEATHER}}},
    {"toolSpec": {"name": "get_time", "inputSchema": {"json": {"type": "object"}}}},
]
IMAGE = {"image": {"format": "png", "source": {"bytes": "AAAA"}}}
MARK = {"cachePoint": {"type": "default"}}
ENABLED = {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1024}}}


def at(model=OTHER, verb="converse"):
    return f"/model/{model.replace('+', '%2B').replace('=', '%3D')}/{verb}"


def user(*blocks):
    return {"role": "user", "content": [{"text": block} if isinstance(block, str) else block for block in blocks]}


def assistant(*blocks):
    return user(*blocks) | {"role": "assistant"}


def use(id="t1", name="get_weather", **input):
    return {"toolUse": {"toolUseId": id, "name": name, "input": input}}


def result(*content, id="t1", **more):
    blocks = [{"text": each} if isinstance(each, str) else each for each in content]
    return {"toolResult": {"toolUseId": id, "content": blocks, **more}}


def document(name="a b"):
    return {"document": {"name": name, "format": "txt", "source": {"bytes": "AAAA"}}}


def body(*messages, tools=None, choice=None, **more):
    config = {"toolConfig": {"tools": tools} | ({"toolChoice": choice} if choice else {})} if tools else {}
    return {"messages": list(messages) or [user("hello there")]} | config | more


def content(answer):
    return answer["output"]["message"]["content"]


async def said(mock, *messages, **more):
    return "".join(block["text"] for block in content(await mock.plain(at(), body(*messages, **more))))


# --- plain answers


async def test_an_answer_is_complete(mock):
    assert await mock.plain(at(), body(system=[{"text": "Be brief."}])) == {
        "output": {"message": {"role": "assistant", "content": [{"text": "You said: hello there"}]}},
        "stopReason": "end_turn",
        "metrics": {"latencyMs": 1},
        "usage": {"inputTokens": 4, "outputTokens": 4, "totalTokens": 8},
    }
    seen = await mock.seen()
    assert (seen["dialect"], seen["path"], seen["model"]) == ("aws_converse", at(), OTHER)


async def test_models_are_percent_encoded(mock):
    await mock.plain(at("arn%3Aaws%3Abedrock%3Aeu-west-1%3A123456789012%3Ainference-profile%2Feu.x"), body())
    assert (await mock.seen())["model"].endswith(":inference-profile/eu.x")
    assert (await mock.refused(at("x+status=503"), body()))[0] == 503


async def test_the_last_turn_is_answered(mock):
    assert await said(mock, user("a"), assistant("b"), user("c", IMAGE, "d")) == "You said: c d"


async def test_limits_stops_and_media(mock):
    cut = await mock.plain(at(), body(inferenceConfig={"maxTokens": 2}))
    assert (content(cut), cut["stopReason"]) == ([{"text": "You said:"}], "max_tokens")
    asked = body(inferenceConfig={"stopSequences": [" there"]}, additionalModelResponseFieldPaths=["/stop_sequence"])
    stopped = await mock.plain(at(), asked)
    assert stopped["stopReason"] == "stop_sequence"
    assert stopped["additionalModelResponseFields"] == {"stop_sequence": " there"}
    usage = (await mock.plain(at(), body(user("what is this", IMAGE, document()))))["usage"]
    assert usage["inputTokens"] == 3 + 2 * 85


async def test_cache_points_make_cached_tokens(mock):
    system = [{"text": "one two three"}, MARK, {"text": "four five"}, {"cachePoint": {"type": "default", "ttl": "1h"}}]
    assert (await mock.plain(at(), body(system=system)))["usage"] == {
        "inputTokens": 2,
        "outputTokens": 4,
        "totalTokens": 11,
        "cacheReadInputTokens": 3,
        "cacheWriteInputTokens": 2,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 2}],
    }
    usage = (await mock.plain(at(), body(user("hello there", MARK), tools=[*TOOLS, MARK])))["usage"]
    assert (usage["inputTokens"], usage["cacheReadInputTokens"], usage["cacheWriteInputTokens"]) == (0, 0, 2)
    usage = (await mock.plain(at("x+cached=1"), body()))["usage"]
    assert (usage["inputTokens"], usage["cacheReadInputTokens"]) == (1, 1)


# --- tools, thinking, structured output


async def test_tools_are_called(mock):
    answer = await mock.plain(at(), body(tools=TOOLS))
    (call,) = content(answer)
    assert (call["toolUse"]["name"], call["toolUse"]["input"]) == ("get_weather", {"city": "stub", "unit": "C"})
    assert answer["stopReason"] == "tool_use"
    answer = await mock.plain(at(), body(user("in parallel"), tools=TOOLS, choice={"any": {}}))
    assert [block["toolUse"]["name"] for block in content(answer)] == ["get_weather", "get_time"]
    answer = await mock.plain(at(), body(tools=TOOLS, choice={"tool": {"name": "get_time"}}))
    assert [block["toolUse"]["name"] for block in content(answer)] == ["get_time"]


async def test_tool_results_are_answered(mock):
    called = [user("weather?"), assistant("Let me see.", use())]
    assert await said(mock, *called, user(result("18 degrees")), tools=TOOLS) == "The tool said: 18 degrees"
    assert await said(mock, *called, user(result({"json": {"at": 18}})), tools=TOOLS) == 'The tool said: {"at":18}'
    assert await said(mock, *called, user(result("no", status="error")), tools=TOOLS) == "The tool failed: no"
    both = [user("weather?"), assistant(use(), use("t2")), user(result("a"), result("b", id="t2"))]
    assert await said(mock, *both, tools=TOOLS) == "The tool said: a; b"


async def test_thinking_is_shown_when_asked_for(mock):
    answer = await mock.plain(at(CLAUDE), body(tools=TOOLS, inferenceConfig={"maxTokens": 2000}, **ENABLED))
    thought, call = content(answer)
    shown = thought["reasoningContent"]["reasoningText"]
    assert shown["text"] == "Let me think. You said: hello there"
    assert answer["usage"]["outputTokens"] == 7 + 4
    again = body(user("a"), assistant(thought, call), user(result("18", id=call["toolUse"]["toolUseId"])), tools=TOOLS)
    assert content(await mock.plain(at(CLAUDE), again | ENABLED))[1] == {"text": "The tool said: 18"}
    again["messages"][1] = assistant({"reasoningContent": {"reasoningText": shown | {"signature": "AAAA"}}}, call)
    _, refused = await mock.refused(at(CLAUDE), again)
    assert "Invalid `signature` in `thinking` block" in refused["message"]
    redacted, _ = content(await mock.plain(at(), body(user("redacted"), **ENABLED)))
    assert set(redacted["reasoningContent"]) == {"redactedContent"}
    await mock.plain(at(CLAUDE), body(user("a"), assistant(redacted, "b"), user("c")))


@pytest.mark.parametrize(
    "extra",
    [
        {"reasoning_config": {"type": "enabled", "budget_tokens": 1024}},
        {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}},
        {"reasoning_effort": "low"},
    ],
)
async def test_other_models_think_too(mock, extra):
    answer = await mock.plain(at(), body(additionalModelRequestFields=extra))
    assert "reasoningContent" in content(answer)[0]


async def test_structured_output_fits_its_schema(mock):
    schema = json.dumps(WEATHER | {"additionalProperties": False})
    wanted = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": schema}}}}
    assert json.loads(await said(mock, outputConfig=wanted)) == {"city": "stub", "unit": "C"}
    await mock.plain(at(CLAUDE), body(outputConfig=wanted))
    wanted["textFormat"]["structure"]["jsonSchema"]["schema"] = "{"
    assert (await mock.refused(at(), body(outputConfig=wanted)))[0] == 400


# --- streams


async def test_a_stream_has_the_events_of_the_api(mock):
    events = await mock.stream(at(verb="converse-stream"), body())
    assert [name for name, _ in events] == [
        "messageStart",
        *["contentBlockDelta"] * 4,
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
    assert all(event.pop("p").isalpha() for _, event in events)
    assert events[0][1] == {"role": "assistant"}
    assert events[1][1] == {"contentBlockIndex": 0, "delta": {"text": "You"}}
    assert events[-2][1] == {"stopReason": "end_turn"}
    assert events[-1][1]["usage"]["totalTokens"] == 6


@pytest.mark.parametrize(
    "asked",
    [
        body(),
        body(inferenceConfig={"maxTokens": 2}),
        body(user("parallel"), tools=TOOLS, **ENABLED),
        body(user("redacted"), **ENABLED),
    ],
)
async def test_streams_equal_plain_answers(mock, asked):
    plain = await mock.plain(at(), asked)
    blocks: dict[int, dict] = {}
    ends = {}
    for name, event in await mock.stream(at(verb="converse-stream"), asked):
        match name:
            case "contentBlockStart":
                blocks[event["contentBlockIndex"]] = {"toolUse": event["start"]["toolUse"] | {"input": ""}}
            case "contentBlockDelta":
                ((kind, value),) = event["delta"].items()
                block = blocks.setdefault(event["contentBlockIndex"], {})
                if kind == "text":
                    block["text"] = block.get("text", "") + value
                elif kind == "toolUse":
                    block["toolUse"]["input"] += value["input"]
                else:
                    inner = block.setdefault("reasoningContent", {})
                    for key in value:
                        inner[key] = inner.get(key, "") + value[key]
            case "messageStop" | "metadata":
                ends |= event
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
        if "text" in block.get("reasoningContent", {}):
            block["reasoningContent"] = {"reasoningText": block["reasoningContent"]}
    assert [blocks[index] for index in sorted(blocks)] == content(plain)
    assert (ends["stopReason"], ends["usage"]) == (plain["stopReason"], plain["usage"])


async def test_faults_affect_streams(mock):
    def stream(faults):
        return mock.stream(at("x+" + faults, "converse-stream"), body())

    events = await stream("errorevent=2")
    message = "A fault was asked for: errorevent."
    failure = {"message": message, "originalMessage": message, "originalStatusCode": 500}
    assert events[2:] == [("exception:modelStreamErrorException", failure)]
    assert [name for name, _ in await stream("sse=nodone")][-1] == "messageStop"
    assert "usage" not in (await stream("usage=none"))[-1][1]
    assert [name for name, _ in await stream("usage=early")][-4:] == [
        "metadata",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
    ]
    answer = await mock.post(at("x+corrupt=1", "converse-stream"), body())
    assert answer.headers["content-type"] == "application/vnd.amazon.eventstream"
    assert [event.name for event in AWSEventStream().feed(answer.content)] == ["messageStart", CORRUPT]
    with pytest.raises(httpx.RemoteProtocolError):
        await stream("cut=2")


# --- refusals


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "1 validation error detected: Value null at 'messages' failed to satisfy constraint: Member must not be"),
        (body(model="x"), "Malformed input request: #/: extraneous key [model] is not permitted"),
        (body(user({"type": "text", "text": "a"})), "Malformed input request: #/messages/0/content/0: extraneous key"),
        (body({"role": "user", "content": "a"}), "STRING_VALUE can not be converted to a List"),
        (body(inferenceConfig={"maxTokens": "5"}), "STRING_VALUE can not be converted to a Integer"),
        (body(inferenceConfig={"temperature": 1.5}), "1 validation error detected: Value at 'inferenceConfig.temp"),
        (body(inferenceConfig={"stopSequences": [""]}), "1 validation error detected: Value at 'inferenceConfig.stop"),
        (body({"role": "tool", "content": [{"text": "a"}]}), "1 validation error detected: Value at 'messages.0.role'"),
        (body(user({})), "1 validation error detected: Value at 'messages.0.content.0' failed"),
        (body(assistant("a")), "A conversation must start with a user message."),
        (body(user("a"), user("b")), "A conversation must alternate between user and assistant roles."),
        (body(user()), "The content field in the Message object at messages.0 is empty."),
        (body(user(" ")), "The text field in the ContentBlock object at messages.0.content.0 is blank."),
        (
            body(user("a", use())),
            "The toolUse block at messages.0.content.1 can only be included in messages with role",
        ),
        (body(user("a"), assistant("b", IMAGE), user("c")), "The image block at messages.1.content.1 can only be"),
        (body(user("a"), assistant(use()), user(result("b"))), "The toolConfig field must be defined when using"),
        (body(user(result("b")), tools=TOOLS), "The number of toolResult blocks at messages.0.content exceeds"),
        (body(user("a"), assistant(use()), user("b"), tools=TOOLS), "Expected toolResult blocks at messages.2.content"),
        (body(user("a"), assistant(use()), tools=TOOLS), "Expected toolResult blocks at messages.2.content"),
        (
            body(user("a"), assistant(use()), user(result("b", id="t2")), tools=TOOLS),
            "Expected toolResult blocks at messages.2.content for the following Ids: t1",
        ),
        (body(user("a"), assistant(use("a b"))), "1 validation error detected: Value at 'messages.1.content.0.toolUse"),
        (body(tools=[TOOLS[0], TOOLS[0]]), "The tools at toolConfig.tools contain duplicate names"),
        (body(toolConfig={"tools": []}), "1 validation error detected: Value at 'toolConfig.tools'"),
        (body(tools=TOOLS, choice={"tool": {"name": "x"}}), "The tool x at toolConfig.toolChoice is not among"),
        (
            body(tools=[{"toolSpec": {"name": "f", "inputSchema": {"json": {}}}}]),
            "The value at toolConfig.tools.0.toolSpec.inputSchema.json.type must be one of the following: object.",
        ),
        (body(user("a", document("a.pdf"))), "1 validation error detected: Value at 'messages.0.content.1.document"),
        (body(user(document())), "A document at messages.0 must be accompanied by a text block"),
        (body(user("a", document(), document())), "Prompt contains duplicate document names"),
        (
            body(user("a", {"image": {"format": "png", "source": {"bytes": "data:image/png;base64,AAAA"}}})),
            "1 validation error detected: Value at 'messages.0.content.1.image.source.bytes'",
        ),
    ],
)
async def test_wrong_requests_are_refused_as_the_api_does(mock, asked, message):
    answer = await mock.post(at(), asked)
    assert (answer.status_code, set(answer.json())) == (400, {"message"})
    kind = "SerializationException" if "_VALUE" in message else "ValidationException"
    assert answer.headers["x-amzn-errortype"].partition(":")[0] == kind
    assert answer.json()["message"].startswith(message)


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        (CLAUDE, body(inferenceConfig={"maxTokens": 1000}, **ENABLED)),
        (CLAUDE, body(inferenceConfig={"temperature": 0.5}, **ENABLED)),
        (CLAUDE, body(inferenceConfig={"temperature": 0.5, "topP": 0.5})),
        (CLAUDE, body(tools=TOOLS, choice={"any": {}}, **ENABLED)),
        (CLAUDE, body(additionalModelRequestFields={"seed": 1})),
        (CLAUDE, body(user("a"), assistant(use()), user(result("b")), tools=TOOLS, **ENABLED)),
        ("anthropic.claude-opus-4-7", body(inferenceConfig={"temperature": 0.5})),
    ],
)
async def test_fields_that_the_claude_behind_it_refuses_are_refused(mock, model, asked):
    await mock.plain(at(), asked)
    _, refused = await mock.refused(at(model), asked)
    assert refused["message"].startswith("The model returned the following errors: ")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, "AccessDeniedException"),
        (404, "ResourceNotFoundException"),
        (408, "ModelTimeoutException"),
        (424, "ModelErrorException"),
        (429, "ThrottlingException"),
        (500, "InternalServerException"),
        (503, "ServiceUnavailableException"),
    ],
)
async def test_errors_have_the_exception_of_their_status(mock, status, kind):
    answer = await mock.post(at(f"x+status={status}"), body())
    assert answer.status_code == status
    assert answer.headers["x-amzn-errortype"].partition(":")[0] == kind


# --- credentials


def signed(moment, **changes):
    scope = f"{moment[:8]}/eu-west-1/bedrock/aws4_request"
    parts = {"id": "AKID", "scope": scope, "signed": "host;x-amz-date", "signature": "0" * 64} | changes
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={parts['id']}/{parts['scope']}, SignedHeaders={parts['signed']}, "
        f"Signature={parts['signature']}"
    )
    return {"authorization": authorization, "x-amz-date": moment}


async def test_signatures_must_be_well_formed(asking):
    moment = "20200101T000000Z"
    async with asking(api_key="k") as mock:
        await mock.plain(at(), body(), **signed(moment))
        await mock.plain(at(), body(), authorization="Bearer k")
        for wrong in (
            {},
            {"authorization": "Bearer j"},
            {"x-api-key": "k"},
            signed(moment, scope="20200101/eu-west-1/s3/aws4_request"),
            signed(moment, signature="0"),
            signed(moment) | {"x-amz-date": "20200102T000000Z"},
        ):
            answer = await mock.post(at(), body(), **wrong)
            assert answer.status_code == 403
            assert answer.headers["x-amzn-errortype"].partition(":")[0].endswith("Exception")


def test_the_example_signature_of_the_documentation_is_accepted():
    """From https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-examples.html, the IAM request."""
    headers = [
        (b"content-type", b"application/x-www-form-urlencoded; charset=utf-8"),
        (b"host", b"iam.amazonaws.com"),
        (b"x-amz-date", b"20150830T123600Z"),
    ]
    asked = Asked("GET", "/", "Action=ListUsers&Version=2010-05-08", headers, b"")
    parts = {"date": "20150830", "region": "us-east-1", "service": "iam", "signed": "content-type;host;x-amz-date"}
    made = signature("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", asked, parts, "20150830T123600Z")
    assert made == "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"


async def test_signatures_are_verified_with_the_secret(asking, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    path = at("a.b%3A0")
    data = json.dumps(body()).encode()
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    async with asking() as mock:
        host = mock.url.removeprefix("http://").encode()
        asked = Asked("POST", path, "", [(b"host", host), (b"x-amz-date", moment.encode())], data)
        parts = {"date": moment[:8], "region": "eu-west-1", "service": "bedrock", "signed": "host;x-amz-date"}
        right = signed(moment, signature=signature("secret", asked, parts, moment))
        assert (await mock.client.post(path, content=data, headers=right)).status_code == 200
        for wrong, content in (
            (right, data + b" "),
            (right | {"x-amz-date": moment[:-3] + "99Z"}, data),
            (signed(moment, id="OTHER", signature=right["authorization"][-64:]), data),
            (signed(moment, signed="host", signature=right["authorization"][-64:]), data),
            ({"authorization": "Bearer k"}, data),
            ({}, data),
        ):
            assert (await mock.client.post(path, content=content, headers=wrong)).status_code == 403
        assert (await mock.client.post("/v1/chat/completions", json={"model": "m", "messages": []})).status_code == 400


# --- hostile requests

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["system", "toolConfig", "inferenceConfig", "additionalModelRequestFields", "outputConfig", "messages"]
BLOCK = st.sampled_from([{"text": "a"}, IMAGE, use(), result("a"), MARK, {"reasoningContent": {}}, document()])


@settings(max_examples=examples(150))
@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.lists(BLOCK | JSON, max_size=4), st.booleans())
def test_any_json_is_answered_or_refused(more, blocks, stream):
    asked = body(user("a"), {"role": "assistant", "content": blocks}, {"role": "user", "content": blocks}, tools=TOOLS)
    with suppress(Refused):
        converse.converse(Question(asked | more, "0" * 24, "mock", NONE, "claude"), stream=stream)


# --- the official SDK


async def test_the_sdk_reads_the_answers(asking, monkeypatch):
    boto3 = pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret/+=")
    async with asking() as mock:
        await asyncio.to_thread(use_sdk, boto3, mock.url)


def client_of(boto3, url):
    config = boto3.session.Config(retries={"total_max_attempts": 1})
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    session = boto3.session.Session("AKID", secret, region_name="eu-west-1")
    return session.client("bedrock-runtime", endpoint_url=url, config=config)


def events_of(client, **asked):
    with contextlib.closing(client.converse_stream(**asked)["stream"]) as stream:
        return list(stream)


def use_sdk(boto3, url):
    stranger = boto3.session.Session("AKID", "other", region_name="eu-west-1")
    with (
        contextlib.closing(client_of(boto3, url)) as client,
        contextlib.closing(stranger.client("bedrock-runtime", endpoint_url=url)) as other,
    ):
        use_client(client)
        with pytest.raises(Exception, match="InvalidSignatureException"):
            other.converse(modelId="x", **body())


def use_client(client):
    model = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    asked = body(user("in parallel"), tools=TOOLS, inferenceConfig={"maxTokens": 2000}, **ENABLED)
    plain = client.converse(modelId=model, **asked)
    thought, *calls = content(plain)
    assert len(calls) == 2
    answers = [result("18", id=call["toolUse"]["toolUseId"]) for call in calls]
    asked["messages"] += [assistant(thought, *calls), user(*answers)]
    events = events_of(client, modelId=model, **asked)
    texts = [event["contentBlockDelta"]["delta"].get("text", "") for event in events if "contentBlockDelta" in event]
    assert "".join(texts) == "The tool said: 18; 18"
    pictured = {"image": {"format": "png", "source": {"bytes": b"\xff\xef"}}}
    assert content(client.converse(modelId="x", messages=[user("hi", pictured)])) == [{"text": "You said: hi"}]
    with pytest.raises(client.exceptions.ThrottlingException, match="status=429"):
        client.converse(modelId="x+status=429", **body())
    with pytest.raises(client.exceptions.ValidationException, match="must start with a user"):
        client.converse(modelId="x", messages=[assistant("a")])
    with pytest.raises(Exception, match="modelStreamErrorException"):
        events_of(client, modelId="x+errorevent=1", **body())
    with pytest.raises(Exception, match="Checksum mismatch"):
        events_of(client, modelId="x+corrupt=1", **body())
    vector = client.invoke_model(modelId="amazon.titan-embed-text-v2:0", body=json.dumps({"inputText": "a b"}))
    assert json.loads(vector["body"].read())["inputTextTokenCount"] == 2
