"""Plain responses: from a provider, for a client, and errors."""

import json

import pytest
from openai.types.responses import Response

from extproc.dialects import openai_responses as api
from extproc.dialects.openai_responses import custom, signature
from extproc.words.contract import decode_usage, encode_usage
from extproc.words.exchange import Kinds, Usage
from extproc.words.messages import Answer, Choice, ImagePart, Problem, RefusalPart, TextPart, ThinkingPart, ToolCall

COUNTS = Usage(10, 7, 4, 5, 2)
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 17,
}
TOKEN = {
    "token": "H",
    "logprob": -0.5,
    "bytes": [72],
    "top_logprobs": [{"token": "h", "logprob": -1.5, "bytes": [104]}],
}


def decode(*output, **fields):
    body = {"id": "resp_1", "object": "response", "created_at": 1700000000.0, "model": "gpt-x", "status": "completed"}
    return api.decode_answer(json.dumps({**body, "output": list(output), "error": None, **fields}).encode())


def encode(*parts, finish="stop", **fields):
    """The body, checked by OpenAI's SDK. Ids are random, so only their prefix is kept."""
    body = api.translation.encode_answer(Answer([Choice(list(parts), finish)], **fields))
    Response.model_validate(body, strict=True)
    body = json.loads(json.dumps(body))
    assert len({item["id"] for item in body["output"]}) == len(body["output"])
    for item in body["output"]:
        item["id"] = item["id"].partition("_")[0]
    return body


def message(*content):
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": list(content)}


def text(said, **fields):
    return {"type": "output_text", "text": said, "annotations": [], **fields}


# --- from a provider


def test_the_usage_has_what_is_billed_beside_its_tokens():
    """A translation tells all of it: `encode_usage`."""
    drawn = {"input_tokens": 5, "output_tokens": 90, "output_tokens_details": {"image_tokens": 80}}
    search, tools = {"type": "web_search_call"}, [{"type": "image_generation", "model": "gpt-image-2"}]
    found = decode(search, search, message(text("Hi")), usage=USAGE, tools=tools, tool_usage={"image_gen": drawn}).usage
    assert (found.input_tokens, found.output_tokens, found.kinds) == (15, 97, Kinds(searches=2))
    assert found.shares == {"gpt-image-2": Usage(5, 90, kinds=Kinds(image_output=80))}
    assert decode_usage(encode_usage(found)) == found


@pytest.mark.parametrize(
    ("output", "parts", "finish"),
    [
        ([message(text("Hi"))], [TextPart("Hi")], "stop"),
        ([message(text("Hi"), text(""), text(" there"))], [TextPart("Hi"), TextPart(" there")], "stop"),
        ([message({"type": "refusal", "refusal": "No."})], [RefusalPart("No.")], "refusal"),
        (
            [
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": "A"}, {"type": "summary_text", "text": "B"}],
                    "encrypted_content": "gAAA",
                },
                message(text("Hm")),
                {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
                {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "f", "arguments": ""},
            ],
            [
                ThinkingPart("A\n\nB", "openai:rs_1:gAAA"),
                TextPart("Hm"),
                ToolCall("c1", "f", '{"a":1}'),
                ToolCall("c2", "f", "{}"),
            ],
            "tool_calls",
        ),
        (
            [{"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "raw"}]}],
            [ThinkingPart("raw")],
            "stop",
        ),
        ([{"type": "reasoning", "id": "rs_1", "summary": []}, {"type": "web_search_call"}], [], "stop"),
        ([], [], "stop"),
    ],
)
def test_parts_and_the_finish_reason_are_read(output, parts, finish):
    (choice,) = decode(*output).choices
    assert (choice.parts, choice.finish) == (parts, finish)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), (None, "length"), ("steered", "stop")],
)
def test_incomplete_answers_are_read(reason, finish):
    answer = decode(message(text("Hi")), status="incomplete", incomplete_details=reason and {"reason": reason})
    assert answer.choices[0].finish == finish


def test_further_fields_are_read():
    answer = decode(message(text("H", logprobs=[TOKEN])), usage=USAGE, service_tier="flex")
    assert (answer.id, answer.model, answer.created) == ("resp_1", "gpt-x", 1700000000)
    assert (answer.usage, answer.service_tier) == (COUNTS, "flex")
    assert answer.choices[0].logprobs == {"content": [TOKEN], "refusal": None}


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, None),
        ("x", None),
        ({}, None),
        ({"input_tokens": 3}, Usage(3)),
        ({"input_tokens": -3, "output_tokens": 2, "input_tokens_details": None}, None),
        ({"output_tokens": 2, "input_tokens_details": None}, Usage(0, 2)),
        ({"input_tokens": 3, "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": "1"}}, Usage(3, 2)),
    ],
)
def test_unusual_usage_is_read(usage, counts):
    assert decode(usage=usage).usage == counts


@pytest.mark.parametrize(
    "body",
    [
        b'{"output":"x"}',
        b'{"output":[],"error":{"message":"x"}}',
        b'{"output":[],"status":"failed"}',
        b'{"output":[],"status":"in_progress"}',
        b'{"output":[],"status":"queued"}',
    ],
)
def test_a_body_that_is_no_answer_is_refused(body):
    with pytest.raises(ValueError):
        api.decode_answer(body)


# --- for a client


@pytest.mark.parametrize(
    ("parts", "output"),
    [
        ([], []),
        (
            [TextPart("Hi"), TextPart(" there")],
            [message(text("Hi", logprobs=[]), text(" there", logprobs=[])) | {"id": "msg"}],
        ),
        ([RefusalPart("No.")], [message({"type": "refusal", "refusal": "No."}) | {"id": "msg"}]),
        (
            [
                ThinkingPart("Hm", "sig"),
                ThinkingPart(redacted="enc"),
                ThinkingPart("unsigned"),
                TextPart("I look."),
                ToolCall("c1", "f", '{"a":1}'),
                ToolCall("c2", "f", "", "google"),
                ToolCall("c3", "patch", custom.arguments("x\ny")),
            ],
            [
                {
                    "id": "rs",
                    "type": "reasoning",
                    "summary": [{"type": "summary_text", "text": "Hm"}],
                    "encrypted_content": signature.pack("sig"),
                },
                {"id": "rs", "type": "reasoning", "summary": [], "encrypted_content": signature.pack("", "enc")},
                {
                    "id": "rs",
                    "type": "reasoning",
                    "summary": [{"type": "summary_text", "text": "unsigned"}],
                    "encrypted_content": signature.pack(),
                },
                message(text("I look.", logprobs=[])) | {"id": "msg"},
                {
                    "id": "fc",
                    "type": "function_call",
                    "status": "completed",
                    "call_id": "c1",
                    "name": "f",
                    "arguments": '{"a":1}',
                },
                {
                    "id": "rs",
                    "type": "reasoning",
                    "summary": [],
                    "encrypted_content": signature.pack(calls={"c2": "google"}),
                },
                {
                    "id": "fc",
                    "type": "function_call",
                    "status": "completed",
                    "call_id": "c2",
                    "name": "f",
                    "arguments": "{}",
                },
                {
                    "id": "ctc",
                    "type": "custom_tool_call",
                    "status": "completed",
                    "call_id": "c3",
                    "name": "patch",
                    "input": "x\ny",
                },
            ],
        ),
        (
            [ImagePart(data="AAAA", media_type="image/webp")],
            [
                {
                    "id": "ig",
                    "type": "image_generation_call",
                    "status": "completed",
                    "result": "AAAA",
                    "output_format": "webp",
                }
            ],
        ),
    ],
)
def test_the_output_is_written(parts, output):
    body = encode(*parts)
    assert body["output"] == output
    assert (body["status"], body["incomplete_details"], body["error"]) == ("completed", None, None)


@pytest.mark.parametrize(
    ("finish", "parts", "status", "why"),
    [
        ("stop", [TextPart("x")], "completed", None),
        ("stop_sequence", [TextPart("x")], "completed", None),
        ("pause", [TextPart("x")], "completed", None),
        ("tool_calls", [ToolCall("c", "f", "{}")], "completed", None),
        ("refusal", [RefusalPart("No.")], "completed", None),
        ("refusal", [TextPart("x")], "incomplete", "content_filter"),
        ("content_filter", [TextPart("x")], "incomplete", "content_filter"),
        ("length", [ThinkingPart("Hm"), TextPart("x")], "incomplete", "max_output_tokens"),
        ("length", [ThinkingPart("Hm")], "incomplete", "max_output_tokens"),
    ],
)
def test_the_status_is_written(finish, parts, status, why):
    body = encode(*parts, finish=finish)
    assert (body["status"], body["incomplete_details"]) == (status, why and {"reason": why})
    assert body["output"][-1].get("status", status) == status


def test_id_model_and_usage_are_written():
    body = encode(
        TextPart("x"), id="resp_7", model="claude-x", created=1700000000, usage=COUNTS, service_tier="standard"
    )
    assert (body["id"], body["model"], body["created_at"]) == ("resp_gw7", "claude-x", 1700000000)
    assert (body["usage"], body["service_tier"]) == (USAGE, "default")
    assert encode(id="msg_1")["id"] == "resp_gwmsg_1"
    assert encode()["id"].startswith("resp_")
    assert encode()["usage"] is None


def test_logprobs_are_written():
    answer = Answer([Choice([TextPart("H")], logprobs={"content": [{**TOKEN, "bytes": None}], "refusal": None})])
    body = api.translation.encode_answer(answer)
    Response.model_validate(body)
    assert body["output"][0]["content"][0]["logprobs"] == [{**TOKEN, "bytes": []}]


def test_an_answer_reads_as_the_clients_next_input():
    parts = [
        ThinkingPart("Hm", "sig"),
        ThinkingPart(redacted="enc"),
        TextPart("I look."),
        ToolCall("c1", "f", '{"a":1}', "google"),
        ToolCall("c2", "patch", custom.arguments("x")),
    ]
    output = api.translation.encode_answer(Answer([Choice(parts)]))["output"]
    kept = [item.to_dict() for item in Response.model_validate(encode() | {"output": output}).output]
    prompt = api.translation.decode_request({"model": "m", "input": [{"role": "user", "content": "x"}, *kept]})
    assert prompt.messages[1].parts == parts


# --- errors


@pytest.mark.parametrize(
    ("status", "error", "problem"),
    [
        (
            400,
            {"message": "Too small.", "type": "invalid_request_error", "param": "input", "code": "too_small"},
            Problem("Too small.", "invalid_request_error", "too_small", "input"),
        ),
        (429, {"message": "Slow down.", "type": "tokens", "code": None}, Problem("Slow down.", "rate_limit_error")),
        (500, {"message": "Oh.", "type": "server_error"}, Problem("Oh.", "api_error")),
    ],
)
def test_errors_are_read(status, error, problem):
    assert api.decode_problem(status, json.dumps({"error": error}).encode()) == problem


def test_an_error_is_written():
    body = api.translation.encode_problem(429, Problem("Slow down.", "rate_limit_error", "", None))
    assert body == {"error": {"message": "Slow down.", "type": "rate_limit_error", "param": None, "code": None}}
