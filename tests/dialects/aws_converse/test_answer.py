"""Answers and errors of Converse."""

import json

import pytest

from extproc.dialects import aws_converse as api
from extproc.words.dialect import Destination
from extproc.words.exchange import Usage
from extproc.words.messages import Answer, Choice, ImagePart, Message, Problem, Prompt, TextPart, ThinkingPart, ToolCall


def decode(body):
    return api.decode_answer(body if isinstance(body, bytes) else json.dumps(body).encode())


def answer(*blocks, stop="end_turn", **rest):
    return {"output": {"message": {"role": "assistant", "content": list(blocks)}}, "stopReason": stop, **rest}


def choice(*blocks, **rest):
    [found] = decode(answer(*blocks, **rest)).choices
    return found


def test_an_answer_is_read():
    assert decode(
        answer(
            {"text": "hi"},
            usage={"inputTokens": 5, "outputTokens": 2, "totalTokens": 7, "cacheDetails": []},
            metrics={"latencyMs": 551},
            serviceTier={"type": "flex"},
            performanceConfig={"latency": "standard"},
        )
    ) == Answer([Choice([TextPart("hi")], "stop")], usage=Usage(5, 2), service_tier="flex")


CALL = {"toolUse": {"toolUseId": "tooluse_1", "name": "weather", "input": {"city": "Rome", "n": 1.10}}}
THOUGHT = {"reasoningContent": {"reasoningText": {"text": "I think", "signature": "c2ln"}}}
REDACTED = {"reasoningContent": {"redactedContent": "cmVk"}}


def test_every_kind_of_block_is_read():
    cited = {"content": [{"text": "It is "}, {"text": "so."}], "citations": [{"title": "a"}]}
    blocks = [
        THOUGHT,
        REDACTED,
        {"reasoningContent": {"reasoningText": {"text": ""}}},
        {"text": ""},
        {"text": "let me see"},
        {"citationsContent": cited},
        {"image": {"format": "webp", "source": {"bytes": "QQ=="}}},
        {"image": {"format": "webp", "source": {}}},
        {"next": {"year": 1}},
        CALL,
    ]
    assert choice(*blocks, stop="tool_use") == Choice(
        [
            ThinkingPart("I think", "c2ln"),
            ThinkingPart(redacted="cmVk"),
            TextPart("let me see"),
            TextPart("It is so."),
            ImagePart("QQ==", "image/webp"),
            ToolCall("tooluse_1", "weather", '{"city": "Rome", "n": 1.1}'),
        ],
        "tool_calls",
    )


def test_a_models_turn_is_sent_back_unchanged():
    blocks = [THOUGHT, REDACTED, {"text": "let me see"}, CALL]
    said = Message("assistant", choice(*blocks).parts)
    body, _ = api.encode_request(Prompt("m", [Message("user", [TextPart("a")]), said]), Destination("claude-opus-4-6"))
    assert body["messages"][1] == {"role": "assistant", "content": blocks}


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        (None, "stop"),
        ("of_next_year", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("stop_sequence", "stop_sequence"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_model_output", "content_filter"),
        ("malformed_tool_use", "content_filter"),
        ("refusal", "refusal"),
    ],
)
def test_stop_reasons_are_read(stop, finish):
    assert choice({"text": "hi"}, stop=stop).finish == finish
    assert choice(CALL, stop=stop).finish == ("tool_calls" if finish == "stop" else finish)


def test_the_matching_stop_sequence_is_read():
    found = choice({"text": "hi"}, stop="stop_sequence", additionalModelResponseFields={"stop_sequence": "END"})
    assert (found.finish, found.stop_sequence) == ("stop_sequence", "END")
    for fields in (None, [], {}, {"stop_sequence": None}, {"stop_sequence": 1}):
        assert choice({"text": "hi"}, additionalModelResponseFields=fields).stop_sequence == ""


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"inputTokens": 9, "outputTokens": 2}, Usage(9, 2)),
        (
            {"inputTokens": 9, "outputTokens": 2, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 20},
            Usage(129, 2, 100, cache_write_tokens=20),
        ),
        ({"inputTokens": 9, "outputTokens": -1, "cacheReadInputTokens": "1"}, None),
        ({"inputTokens": 9, "cacheReadInputTokens": "1"}, Usage(9)),
        ({"inputTokens": 9.5, "outputTokens": True}, None),
        ({}, None),
        (None, None),
    ],
)
def test_usage_is_read(usage, counts):
    assert decode(answer({"text": "hi"}, usage=usage)).usage == counts


@pytest.mark.parametrize(
    "body",
    [
        b'{"message":"no"}',
        b'{"output":{}}',
        b'{"output":{"message":{"content":[{"text":1}]}}}',
        b'{"output":{"message":{"content":[{"text":"\\ud800"}]}}}',
        b'{"output":{"message":{"content":[{"toolUse":{"input":"\xff"}}]}}}',
    ],
)
def test_a_body_that_is_no_answer_is_refused(body):
    with pytest.raises(ValueError, match="Converse"):
        decode(body)


# --- errors


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"message": "Bad."}, Problem("Bad.", "invalid_request_error")),
        (403, {"Message": "No."}, Problem("No.", "permission_error")),
        (404, {"message": "Gone."}, Problem("Gone.", "not_found_error")),
        (408, {"message": "Late."}, Problem("Late.", "api_error")),
        (418, {"message": "Tea."}, Problem("Tea.", "invalid_request_error")),
        (424, {"message": "It failed.", "originalStatusCode": 500}, Problem("It failed.", "api_error")),
        (
            429,
            {"message": "Slow.", "__type": "com.amazon.coral.service#ThrottlingException"},
            Problem("Slow.", "rate_limit_error", "ThrottlingException"),
        ),
        (500, {"message": "Oh."}, Problem("Oh.", "api_error")),
        (503, {"message": "Full."}, Problem("Full.", "overloaded_error")),
        (503, {"message": None}, Problem("The provider answered with status 503 and no message.", "overloaded_error")),
        (500, ["?"], Problem("The provider answered with status 500 and no message.", "api_error")),
    ],
)
def test_errors_are_read(status, body, expected):
    assert api.decode_problem(status, json.dumps(body).encode()) == expected
