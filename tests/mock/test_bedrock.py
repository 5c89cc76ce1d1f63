from __future__ import annotations

import asyncio
import json
from base64 import b64decode

import pytest

MODEL = "anthropic.claude-sonnet-4-5-20250929-v1%3A0"
INVOKE, STREAM = f"/model/{MODEL}/invoke", f"/model/{MODEL}/invoke-with-response-stream"
TITAN = "/model/amazon.titan-embed-text-v2%3A0/invoke"


def body(content="hello there", **more):
    return {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 2000,
        "messages": [{"role": "user", "content": content}],
    } | more


def inner(events):
    return [json.loads(b64decode(event["bytes"])) for name, event in events if name == "chunk"]


async def test_an_answer_is_complete(mock):
    answer = await mock.plain(INVOKE, body())
    assert (answer["type"], answer["content"]) == ("message", [{"type": "text", "text": "You said: hello there"}])
    assert answer["model"] == "anthropic.claude-sonnet-4-5-20250929-v1:0"
    assert (await mock.seen())["dialect"] == "aws_invoke"


async def test_a_stream_has_the_events_of_the_api(mock):
    events = await mock.stream(STREAM, body())
    assert {name for name, _ in events} == {"chunk"}
    assert all(set(event) == {"bytes", "p"} for _, event in events)
    told = inner(events)
    assert [event["type"] for event in told][0::9] == ["message_start", "message_stop"]
    assert told[-1]["amazon-bedrock-invocationMetrics"] == {
        "inputTokenCount": 2,
        "outputTokenCount": 4,
        "invocationLatency": 1,
        "firstByteLatency": 1,
    }


async def test_faults_affect_the_answers(mock):
    events = await mock.stream(STREAM.replace("%3A0", "%2Berrorevent%3D3"), body())
    assert events[-1][0] == "exception:modelStreamErrorException"
    assert len(events) == 4
    events = await mock.stream(STREAM.replace("%3A0", "%2Bsse%3Dnodone"), body())
    assert inner(events)[-1]["type"] == "message_delta"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (body(model="x"), "model: Extra inputs are not permitted"),
        (body(stream=True), "stream: Extra inputs are not permitted"),
        (body(anthropic_version="2023-06-01"), "anthropic_version: Input should be 'bedrock-2023-05-31'"),
        ({"messages": []}, "anthropic_version: Field required"),
        (body(""), "messages.0: all messages must have non-empty content"),
    ],
)
async def test_wrong_requests_are_refused(mock, asked, message):
    for path in (INVOKE, STREAM):
        answer = await mock.post(path, asked)
        assert (answer.status_code, answer.headers["x-amzn-errortype"].partition(":")[0]) == (
            400,
            "ValidationException",
        )
        assert answer.json()["message"].startswith(message)


async def test_titan_returns_embeddings(mock):
    answer = await mock.plain(TITAN, {"inputText": "hello there"})
    assert answer["inputTextTokenCount"] == 2
    answer = await mock.post(TITAN, {"inputText": ""})
    assert (answer.status_code, answer.headers["x-amzn-errortype"].partition(":")[0]) == (400, "ValidationException")


async def test_the_sdk_reads_the_answers(mock):
    sdk = pytest.importorskip("anthropic")
    pytest.importorskip("boto3")
    client = sdk.AnthropicBedrock(
        base_url=mock.url, aws_access_key="a", aws_secret_key="b", aws_region="eu-west-1", max_retries=0
    )
    await asyncio.to_thread(use_sdk, client)


def use_sdk(client):
    asked = {"model": "anthropic.claude-x:0", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
    with client:
        assert client.messages.create(**asked).content[0].text == "You said: hi"
        with client.messages.stream(**asked) as stream:
            assert stream.get_final_message().content[0].text == "You said: hi"
