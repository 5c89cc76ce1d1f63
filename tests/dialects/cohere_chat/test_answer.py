"""Answers and errors of Cohere's chat."""

import json

import pytest

from extproc.dialects import cohere_chat as api
from extproc.words.dialect import Destination
from extproc.words.exchange import Usage
from extproc.words.messages import Answer, Choice, Message, Problem, Prompt, TextPart, ThinkingPart, ToolCall


def decode(body):
    return api.decode_answer(body if isinstance(body, bytes) else json.dumps(body).encode())


def choice(finish="COMPLETE", logprobs=None, **message):
    body = {"id": "1", "finish_reason": finish, "message": {"role": "assistant", **message}, "logprobs": logprobs}
    [found] = decode(body).choices
    return found


def usage(value):
    return decode({"message": {}, "finish_reason": "COMPLETE", "usage": value}).usage


def call(arguments, id="1"):
    return {"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}}


def test_an_answer_is_read():
    assert decode(
        {
            "id": "20ae3cc4",
            "finish_reason": "MAX_TOKENS",
            "message": {"role": "assistant", "content": [{"type": "text", "text": "The ocean,"}]},
            "usage": {
                "billed_units": {"input_tokens": 11, "output_tokens": 3},
                "cached_tokens": 448,
                "tokens": {"input_tokens": 506, "output_tokens": 4},
            },
        }
    ) == Answer([Choice([TextPart("The ocean,")], "length")], id="20ae3cc4", usage=Usage(11, 3))


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({}, []),
        ({"content": None, "tool_calls": None, "tool_plan": None}, []),
        ({"content": []}, []),
        ({"content": "hi"}, [TextPart("hi")]),
        ({"content": {"type": "text", "text": "hi"}}, [TextPart("hi")]),
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            [TextPart("a"), TextPart("b")],
        ),
        ({"content": [{"type": "picture"}, {"type": "text", "text": ""}]}, []),
        (
            {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"}]},
            [ThinkingPart("hm"), TextPart("hi")],
        ),
        (
            {"tool_plan": "I will look.", "tool_calls": [call('{"city": "Rome"}'), call("{}", "2")]},
            [
                ThinkingPart("I will look."),
                ToolCall("1", "weather", '{"city": "Rome"}'),
                ToolCall("2", "weather", "{}"),
            ],
        ),
        (
            {
                "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"}],
                "tool_plan": "look",
                "tool_calls": [call("{}")],
                "citations": [{"start": 0, "end": 2}],
            },
            [ThinkingPart("hm"), ThinkingPart("look"), TextPart("hi"), ToolCall("1", "weather", "{}")],
        ),
    ],
)
def test_parts_are_read(message, parts):
    assert choice(**message).parts == parts


@pytest.mark.parametrize(
    ("given", "expected"),
    [("", "{}"), (" null ", "{}"), (None, "{}"), ("[]", "[]"), ("{", "{"), ('{"a":1}', '{"a":1}')],
)
def test_arguments_are_read(given, expected):
    assert choice(tool_calls=[call(given)]).parts == [ToolCall("1", "weather", expected)]


def test_a_call_without_an_id_gets_one():
    first, second = choice(tool_calls=[{"function": {"name": "f"}}, {}]).parts
    assert first.id.startswith("call_")
    assert first.id != second.id
    assert (first.name, second.name) == ("f", "")


@pytest.mark.parametrize(
    ("reason", "calls", "finish"),
    [
        ("COMPLETE", False, "stop"),
        ("STOP_SEQUENCE", False, "stop_sequence"),
        ("MAX_TOKENS", False, "length"),
        ("MAX_TOKENS", True, "length"),
        ("TOOL_CALL", True, "tool_calls"),
        ("COMPLETE", True, "tool_calls"),
        ("ERROR_LIMIT", False, "length"),
        ("ERROR_TOXIC", False, "content_filter"),
        ("INVENTED", False, "stop"),
        (None, False, "stop"),
        (7, True, "tool_calls"),
    ],
)
def test_finish_reasons_are_read(reason, calls, finish):
    assert choice(reason, tool_calls=[call("{}")] if calls else []).finish == finish


@pytest.mark.parametrize("reason", ["ERROR", "TIMEOUT"])
def test_an_answer_that_broke_off_is_refused(reason):
    with pytest.raises(ValueError, match="broke off"):
        choice(reason, content=[{"type": "text", "text": "a"}])


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        ({"tokens": {"input_tokens": 5, "output_tokens": 2}}, Usage(5, 2)),
        ({"tokens": {"input_tokens": 5.0, "output_tokens": 2.5}}, None),
        ({"billed_units": {"input_tokens": 5, "output_tokens": 2}}, Usage(5, 2)),
        ({"tokens": {"output_tokens": 2}, "cached_tokens": 3.0}, Usage(0, 2)),
        ({"tokens": {"input_tokens": 5}, "cached_tokens": -3}, Usage(5)),
        ({"tokens": {"input_tokens": "5", "output_tokens": True}}, None),
        ({"tokens": {"input_tokens": -5}}, None),
        ({"tokens": []}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage_is_read(value, counts):
    assert usage(value) == counts


def test_logprobs_are_read():
    items = [
        {"text": "Hé", "token_ids": [1], "logprobs": [-0.5]},
        {"text": "llo", "token_ids": [2, 3], "logprobs": [-0.5, -1]},
        {"token_ids": [4], "logprobs": [-2.0]},
        {"text": "x", "token_ids": [5]},
        {"text": "x", "logprobs": ["a"]},
        7,
    ]
    assert choice(logprobs=items).logprobs == {
        "content": [
            {"token": "Hé", "logprob": -0.5, "bytes": [72, 195, 169], "top_logprobs": []},
            {"token": "llo", "logprob": -1.5, "bytes": [108, 108, 111], "top_logprobs": []},
            {"token": "", "logprob": -2.0, "bytes": [], "top_logprobs": []},
        ],
        "refusal": None,
    }
    assert choice(logprobs=[]).logprobs is None
    assert choice(logprobs={"a": 1}).logprobs is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"message": "invalid request"}',
        b'{"message": {"content": 7}}',
        b'{"message":' * 100_000,
    ],
)
def test_a_body_that_is_no_answer_is_refused(body):
    with pytest.raises(ValueError, match="not an answer"):
        decode(body)


def test_thinking_and_calls_survive_a_round_trip():
    message = {
        "content": [{"type": "thinking", "thinking": "hm"}],
        "tool_calls": [call('{"city": "Rome"}')],
    }
    prompt = Prompt("m", [Message("assistant", choice("TOOL_CALL", **message).parts)])
    body, _ = api.encode_request(prompt, Destination("command-a-reasoning-08-2025"))
    assert body["messages"] == [{"role": "assistant"} | message]
    message = {"tool_plan": "I will look.", "tool_calls": [call('{"city": "Rome"}')]}
    prompt = Prompt("m", [Message("assistant", choice("TOOL_CALL", **message).parts)])
    body, _ = api.encode_request(prompt, Destination("command-a-03-2025"))
    assert body["messages"] == [{"role": "assistant"} | message]


# --- errors


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"message": "invalid request"}, Problem("invalid request", "invalid_request_error")),
        (422, {"id": "x", "message": "unprocessable"}, Problem("unprocessable", "invalid_request_error")),
        (401, {"message": "invalid api token"}, Problem("invalid api token", "authentication_error")),
        (402, {"message": "pay"}, Problem("pay", "insufficient_quota")),
        (403, {"message": "no"}, Problem("no", "permission_error")),
        (404, {"message": "model 'x' not found"}, Problem("model 'x' not found", "not_found_error")),
        (429, {"message": "wait"}, Problem("wait", "rate_limit_error")),
        (498, {"message": "blocked"}, Problem("blocked", "authentication_error")),
        (499, {"message": "request cancelled"}, Problem("request cancelled", "api_error")),
        (500, {"message": "oh"}, Problem("oh", "api_error")),
        (503, {"message": "busy"}, Problem("busy", "overloaded_error")),
        (500, {"error": {"message": "oh"}}, Problem("oh", "api_error")),
    ],
)
def test_errors_are_read(status, body, expected):
    assert api.decode_problem(status, json.dumps(body).encode()) == expected


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"7", b'{"message": ["a"]}', b"{" * 100_000, b"\xff"])
def test_an_error_without_a_message_gets_one(body):
    assert api.decode_problem(502, body) == Problem("The provider answered with status 502 and no message.")
