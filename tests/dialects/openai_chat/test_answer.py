import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from extproc.dialects import client_apis
from extproc.dialects.openai_chat.usage import read_usage
from extproc.words.exchange import Usage
from extproc.words.messages import Answer, Choice, ImagePart, Problem, RefusalPart, TextPart, ThinkingPart, ToolCall

CHAT = client_apis()["openai_chat"]


def completion(*messages, **fields):
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m-1",
        "choices": [
            {"index": index, "message": {"role": "assistant"} | message, "finish_reason": "stop"}
            for index, message in enumerate(messages)
        ],
    } | fields


def decode(body):
    return CHAT.decode_answer(json.dumps(body).encode())


def encode(*parts, **fields):
    """The only choice of an answer, as a client gets it."""
    body = CHAT.translation.encode_answer(Answer([Choice(list(parts), **fields)]))
    ChatCompletion.model_validate(body)
    return body["choices"][0]


# --- from a provider

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
MESSAGES = {
    "text": ({"content": "Hi", "refusal": None}, [TextPart("Hi")], "stop"),
    "nothing": ({"content": None}, [], "stop"),
    "a refusal": ({"content": None, "refusal": "No"}, [RefusalPart("No")], "refusal"),
    "thinking": ({"content": "Hi", "reasoning_content": "hm"}, [ThinkingPart("hm"), TextPart("Hi")], "stop"),
    "thinking, Groq's way": ({"content": "Hi", "reasoning": "hm"}, [ThinkingPart("hm"), TextPart("Hi")], "stop"),
    "thinking, Mistral's way": (
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "Hi"},
            ]
        },
        [ThinkingPart("hm"), TextPart("Hi")],
        "stop",
    ),
    "thinking, Databricks' way": (
        {
            "content": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                {"type": "text", "text": "Hi"},
            ]
        },
        [ThinkingPart("hm"), TextPart("Hi")],
        "stop",
    ),
    "thinking with signatures": (
        {
            "content": "Hi",
            "reasoning_content": "hm",
            "thinking_blocks": [
                {"type": "thinking", "thinking": "hm", "signature": "S"},
                {"type": "redacted_thinking", "data": "X"},
            ],
        },
        [ThinkingPart("hm", "S"), ThinkingPart(redacted="X"), TextPart("Hi")],
        "stop",
    ),
    "calls, which were forced": (
        {"content": "", "tool_calls": [CALL, CALL | {"id": "call_2", "extra_content": None}]},
        [ToolCall("call_1", "f", '{"a":1}'), ToolCall("call_2", "f", '{"a":1}')],
        "tool_calls",
    ),
    "a call with a thought signature": (
        {"tool_calls": [CALL | {"extra_content": {"google": {"thought_signature": "S"}}}]},
        [ToolCall("call_1", "f", '{"a":1}', "S")],
        "tool_calls",
    ),
    "arguments as an object": (
        {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}]},
        [ToolCall("1", "f", '{"a":1}')],
        "tool_calls",
    ),
    "no arguments": (
        {"tool_calls": [{"id": "1", "function": {"name": "f"}}]},
        [ToolCall("1", "f", "{}")],
        "tool_calls",
    ),
}


@pytest.mark.parametrize(("message", "parts", "finish"), MESSAGES.values(), ids=MESSAGES)
def test_a_message_is_read(message, parts, finish):
    assert decode(completion(message)).choices == [Choice(parts, finish)]


def test_a_call_without_an_id_gets_one():
    answer = decode(completion({"tool_calls": [{"function": {"name": "f"}}, {"id": None, "function": {"name": "f"}}]}))
    ids = {call.id for call in answer.choices[0].parts}
    assert len(ids) == 2
    assert all(id.startswith("call_") and len(id) <= 40 for id in ids)


def test_an_answer_is_read():
    answer = decode(completion({"content": "Hi"}, service_tier="flex", usage=None))
    assert answer == Answer([Choice([TextPart("Hi")])], "chatcmpl-1", "m-1", 1700000000, None, "flex")


def test_choices_come_in_their_order():
    body = completion({"content": "a"}, {"content": "b"})
    body["choices"].reverse()
    assert [choice.parts for choice in decode(body).choices] == [[TextPart("a")], [TextPart("b")]]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        *(("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("function_call", "tool_calls")),
        *(("content_filter", "content_filter"), ("model_length", "length"), ("sensitive", "content_filter")),
        *(("eos", "stop"), (None, "stop"), ([], "stop"), ("", "stop")),
    ],
)
def test_finish_reasons_are_read(reason, finish):
    body = completion({"content": "Hi"})
    body["choices"][0]["finish_reason"] = reason
    assert decode(body).choices[0].finish == finish


def test_logprobs_are_kept():
    logprobs = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": None, "top_logprobs": []}], "refusal": None}
    body = completion({"content": "Hi"})
    body["choices"][0]["logprobs"] = logprobs
    answer = decode(body)
    assert answer.choices[0].logprobs == logprobs
    assert CHAT.translation.encode_answer(answer)["choices"][0]["logprobs"] == logprobs


USAGES = {
    "OpenAI": (
        {
            "prompt_tokens": 50,
            "completion_tokens": 30,
            "total_tokens": 80,
            "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        Usage(50, 30, 40, 20, 5),
    ),
    "DeepSeek": (
        {"prompt_tokens": 50, "completion_tokens": 3, "prompt_cache_hit_tokens": 40, "prompt_cache_miss_tokens": 10},
        Usage(50, 3, 40),
    ),
    "Moonshot": ({"prompt_tokens": 50, "completion_tokens": 3, "cached_tokens": 40}, Usage(50, 3, 40)),
    "xAI, whose output is without the reasoning": (
        {
            "prompt_tokens": 37,
            "completion_tokens": 530,
            "total_tokens": 809,
            "completion_tokens_details": {"reasoning_tokens": 242},
        },
        Usage(37, 772, 0, 242, 0),
    ),
    "one side": ({"prompt_tokens": 5}, Usage(5)),
    "no numbers": ({"prompt_tokens": -5, "completion_tokens": "3"}, None),
    "lies beside a truth": (
        {"prompt_tokens": 5, "completion_tokens": True, "prompt_tokens_details": {"cached_tokens": 1}},
        None,
    ),
    "a lie in a detail": (
        {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1.5}},
        Usage(5, 3),
    ),
    "odd details": (
        {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": [], "completion_tokens_details": 7},
        Usage(5, 3),
    ),
    "nothing": ({}, None),
    "no object": ([], None),
}


@pytest.mark.parametrize(("usage", "counts"), USAGES.values(), ids=USAGES)
def test_usage_is_read(usage, counts):
    assert decode(completion({"content": "Hi"}, usage=usage)).usage == counts


def test_usage_is_found_where_groq_and_moonshot_put_it():
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    assert decode(completion({}, x_groq={"id": "1", "usage": usage})).usage == Usage(5, 3)
    body = completion({}, {})
    body["choices"][1]["usage"] = usage
    assert decode(body).usage == Usage(5, 3)


@pytest.mark.parametrize(
    "body",
    [
        *(b'{"choices":[]}', b'{"choices":{}}'),
        b'{"error":{"message":"x"},"choices":[{"message":{"content":"x"}}]}',
        b'{"choices":[{"message":{"content":"x"},"finish_reason":"error"}]}',
    ],
)
def test_a_body_that_is_no_answer_is_refused(body):
    with pytest.raises(ValueError):
        CHAT.decode_answer(body)


# --- for a client


def test_a_complete_answer_is_written():
    body = CHAT.translation.encode_answer(
        Answer(
            [Choice([TextPart("Hi")])],
            "msg_1",
            "m-1",
            1700000000,
            Usage(50, 30, 40, 20, 5),
            "standard",
        )
    )
    assert body == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m-1",
        "service_tier": "default",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 50,
            "completion_tokens": 30,
            "total_tokens": 80,
            "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
    }
    ChatCompletion.model_validate(body)
    assert read_usage(body["usage"]) == Usage(50, 30, 40, 20, cache_write_tokens=5)


def test_missing_fields_are_filled_in():
    body = CHAT.translation.encode_answer(Answer([Choice([TextPart("Hi")])], service_tier="express"))
    assert body["id"].startswith("chatcmpl-")
    assert body["created"] > 1_700_000_000
    assert body.keys() == {"id", "object", "created", "model", "choices"}
    ChatCompletion.model_validate(body)


WRITTEN = {
    "texts": ([TextPart("a"), TextPart("b")], {"content": "ab"}),
    "nothing": ([], {"content": ""}),
    "a refusal": ([RefusalPart("No")], {"content": None, "refusal": "No"}),
    "thinking": ([ThinkingPart("hm"), TextPart("Hi")], {"content": "Hi", "reasoning_content": "hm"}),
    "thinking with signatures": (
        [ThinkingPart("a", "S"), ThinkingPart("b", "T"), ThinkingPart(redacted="X"), TextPart("Hi")],
        {
            "content": "Hi",
            "reasoning_content": "ab",
            "thinking_blocks": [
                {"type": "thinking", "thinking": "a", "signature": "S"},
                {"type": "thinking", "thinking": "b", "signature": "T"},
                {"type": "redacted_thinking", "data": "X"},
            ],
        },
    ),
    "calls": (
        [ToolCall("1", "f", "{}"), ToolCall("2", "g", "[]", "S")],
        {
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {
                    "id": "2",
                    "type": "function",
                    "function": {"name": "g", "arguments": "[]"},
                    "extra_content": {"google": {"thought_signature": "S"}},
                },
            ],
        },
    ),
    "an image": (
        [TextPart("Look"), ImagePart("AA", "image/png")],
        {
            "content": "Look",
            "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}],
        },
    ),
}


@pytest.mark.parametrize(("parts", "message"), WRITTEN.values(), ids=WRITTEN)
def test_a_message_is_written(parts, message):
    assert encode(*parts)["message"] == {"role": "assistant", "refusal": None} | message


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        *(("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("content_filter", "content_filter")),
        *(("stop_sequence", "stop"), ("pause", "stop"), ("refusal", "content_filter")),
    ],
)
def test_finish_reasons_are_written(finish, reason):
    assert encode(TextPart("x"), finish=finish)["finish_reason"] == reason


def test_a_refusal_in_words_finishes_as_openais_does():
    assert encode(RefusalPart("No"), finish="refusal")["finish_reason"] == "stop"


# --- both ways

PARTS = st.tuples(
    st.lists(st.builds(ThinkingPart, st.text(min_size=1), st.text(min_size=1)), max_size=2),
    st.lists(st.builds(TextPart, st.text(min_size=1)), max_size=1),
    st.lists(st.builds(ToolCall, st.text(min_size=1), st.text(), st.just("{}"), st.text()), max_size=2),
).map(lambda parts: [*parts[0], *parts[1], *parts[2]])
SMALL, LARGE = st.integers(0, 99), st.integers(99, 999)
COUNTS = st.builds(Usage, LARGE, LARGE, SMALL, SMALL, SMALL)  # details never exceed their total
ANSWERS = st.builds(
    Answer,
    st.lists(st.builds(Choice, PARTS, st.sampled_from(["length", "content_filter"])), min_size=1, max_size=3),
    st.text(min_size=1),
    st.text(),
    st.integers(1, 2**31),
    st.none() | COUNTS,
    st.sampled_from(["", "flex"]),
)


@given(ANSWERS)
def test_a_written_answer_reads_as_the_original(answer):
    body = CHAT.translation.encode_answer(answer)
    ChatCompletion.model_validate(body)
    assert decode(body) == answer


@given(ANSWERS)
def test_a_message_that_a_client_sends_back_reads_as_the_original(answer):
    """The message passes through OpenAI's SDK, so it holds only the fields that the SDK keeps."""
    said = (
        ChatCompletion.model_validate(json.loads(json.dumps(CHAT.translation.encode_answer(answer)))).choices[0].message
    )
    prompt = CHAT.translation.decode_request({"model": "m", "messages": [said.model_dump()]})
    assert prompt.messages[0].parts == answer.choices[0].parts
    assert prompt.ignored == []


# --- errors

PROBLEMS = {
    "OpenAI's": (
        401,
        {"error": {"message": "Bad key", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}},
        Problem("Bad key", "authentication_error", "invalid_api_key"),
    ),
    "a field at fault": (
        400,
        {"error": {"message": "x", "type": "invalid_request_error", "param": "messages", "code": None}},
        Problem("x", "invalid_request_error", "", "messages"),
    ),
    "an empty purse": (
        429,
        {"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}},
        Problem("x", "insufficient_quota", "insufficient_quota"),
    ),
    "too fast": (429, {"error": {"message": "x", "type": "tokens"}}, Problem("x", "rate_limit_error")),
    "an unknown model": (404, {"error": {"message": "x"}}, Problem("x", "not_found_error")),
    "not allowed": (403, {"error": "x"}, Problem("x", "permission_error")),
    "FastAPI's": (422, {"detail": "x"}, Problem("x", "invalid_request_error")),
    "Google's": (400, [{"error": {"code": 400, "message": "x"}}], Problem("x", "invalid_request_error", "400")),
    "older vLLM's": (
        400,
        {"object": "error", "message": "x", "type": "BadRequestError", "code": 400},
        Problem("x", "invalid_request_error", "400"),
    ),
    "a busy provider": (503, {"error": {"message": "x"}}, Problem("x", "overloaded_error")),
    "a broken provider": (500, {"error": {"message": "x", "type": "server_error"}}, Problem("x")),
    "no message": (500, {}, Problem("The provider answered with status 500 and no message.")),
}


@pytest.mark.parametrize(("status", "body", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_an_error_is_read(status, body, problem):
    assert CHAT.decode_problem(status, json.dumps(body).encode()) == problem


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"\xff", b"[" * 100_000, b"null", b"[]", b"5"])
def test_an_unreadable_error_is_still_an_error(body):
    assert CHAT.decode_problem(502, body) == Problem("The provider answered with status 502 and no message.")


def test_an_error_is_written():
    assert CHAT.translation.encode_problem(400, Problem("x", "invalid_request_error", "", "model")) == {
        "error": {"message": "x", "type": "invalid_request_error", "param": "model", "code": None}
    }
