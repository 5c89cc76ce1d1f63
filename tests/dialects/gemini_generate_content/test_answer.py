"""GenerateContentResponses and errors of Gemini."""

import json

import pytest

from extproc.dialects import client_apis, provider_apis
from extproc.dialects import gemini_generate_content as api
from extproc.words.dialect import Destination
from extproc.words.exchange import Usage
from extproc.words.messages import Answer, Choice, ImagePart, Message, Problem, Prompt, TextPart, ThinkingPart, ToolCall


def decode(body):
    return api.decode_answer(body if isinstance(body, bytes) else json.dumps(body, indent=2).encode())


def choice(*parts, finish="STOP", **rest):
    [found] = decode(
        {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}]} | rest
    ).choices
    return found


def usage(**counts):
    return decode({"candidates": [{"finishReason": "STOP"}], "usageMetadata": counts}).usage


def test_an_answer_is_read():
    assert decode(
        {
            "candidates": [
                {
                    "content": {"parts": [{"text": "hi"}], "role": "model"},
                    "finishReason": "STOP",
                    "index": 0,
                    "safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}],
                    "avgLogprobs": -0.1,
                }
            ],
            "usageMetadata": {
                "promptTokenCount": 5,
                "candidatesTokenCount": 2,
                "totalTokenCount": 7,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 5}],
                "trafficType": "ON_DEMAND_PRIORITY",
            },
            "modelVersion": "gemini-3.8-flash",
            "createTime": "2026-01-02T03:04:05.678901Z",
            "responseId": "abc",
        }
    ) == Answer(
        [Choice([TextPart("hi")], "stop")],
        id="abc",
        model="gemini-3.8-flash",
        created=1767323045,
        usage=Usage(5, 2),
        service_tier="priority",
    )


def test_pieces_of_one_part_are_joined():
    assert choice(
        {"text": "I ", "thought": True},
        {"text": "think", "thought": True, "thoughtSignature": "YQ=="},
        {"text": "more", "thought": True},
        {"text": ""},
        {"text": "hi"},
        {"text": " there", "thoughtSignature": "Yg=="},
        {"text": "!"},
        {"inlineData": {"mimeType": "image/png", "data": "QQ=="}},
    ).parts == [
        ThinkingPart("I think", "gemini:YQ=="),
        ThinkingPart("more"),
        TextPart("hi there"),
        ThinkingPart(signature="gemini:Yg=="),
        TextPart("!"),
        ImagePart("QQ==", "image/png"),
    ]


def test_parallel_calls_are_read():
    found = choice(
        {"text": "let me see"},
        {"functionCall": {"name": "weather", "args": {"city": "Rome", "n": 1.0}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "now", "id": "call-2"}},
    )
    first, second = found.parts[1:]
    assert found.parts[0] == TextPart("let me see")
    assert first == ToolCall(first.id, "weather", '{"city":"Rome","n":1.0}', "c2ln")
    assert first.id.startswith("call_")
    assert second == ToolCall("call-2", "now", "{}")
    assert found.finish == "tool_calls"


def test_numbers_in_arguments_keep_their_spelling():
    call = '{"functionCall":{"name":"f","args":{ "a": 12345678901234567890123, "b" : 1.10, "c": "\\u00e9" }}}'
    body = f'{{"candidates":[{{"content":{{"parts":[{call}]}}}}]}}'.encode()
    assert decode(body).choices[0].parts[0].arguments == '{"a":12345678901234567890123,"b":1.10,"c":"\\u00e9"}'


@pytest.mark.parametrize(
    ("args", "arguments"),
    [(b"null", "{}"), (b'{"a":\n"\\u00e9" }', '{"a":"\\u00e9"}'), (b"[1]", "[1]"), (b'{"a":"\xff"}', '{"a":"\ufffd"}')],
)
def test_arguments_are_never_lost(args, arguments):
    body = b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":' + args + b"}}]}}]}"
    assert decode(body).choices[0].parts[0].arguments == arguments


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        (None, "stop"),
        ("FINISH_REASON_UNSPECIFIED", "stop"),
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "content_filter"),
        ("OF_NEXT_YEAR", "content_filter"),
    ],
)
def test_finish_reasons_are_read(reason, finish):
    assert choice({"text": "hi"}, finish=reason).finish == finish
    with_call = choice({"functionCall": {"name": "f"}}, finish=reason).finish
    assert with_call == ("tool_calls" if reason in ("STOP", None) else finish)


def test_several_candidates_are_read():
    found = decode(
        {
            "candidates": [
                {"index": 1, "content": {"parts": [{"text": "b"}]}, "finishReason": "MAX_TOKENS"},
                {"index": 0, "content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"},
                {"content": {}, "finishReason": "SAFETY"},
            ]
        }
    )
    assert found.choices == [
        Choice([TextPart("a")], "stop"),
        Choice([TextPart("b")], "length"),
        Choice([], "content_filter"),
    ]


def test_a_blocked_prompt_is_read():
    found = decode(
        {
            "promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "safetyRatings": []},
            "usageMetadata": {"promptTokenCount": 5},
        }
    )
    assert found.choices == [Choice([], "content_filter")]
    assert found.usage == Usage(5)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"promptTokenCount": 9, "candidatesTokenCount": 2}, Usage(9, 2)),
        (
            {
                "promptTokenCount": 9,
                "cachedContentTokenCount": 4,
                "candidatesTokenCount": 2,
                "thoughtsTokenCount": 3,
                "toolUsePromptTokenCount": 6,
                "totalTokenCount": 20,
            },
            Usage(15, 5, 4, reasoning_tokens=3),
        ),
        # The total shows that the thoughts are counted already.
        (
            {"promptTokenCount": 9, "candidatesTokenCount": 5, "thoughtsTokenCount": 3, "totalTokenCount": 14},
            Usage(9, 5, reasoning_tokens=3),
        ),
        ({"promptTokenCount": 9, "thoughtsTokenCount": 3}, Usage(9, 3, reasoning_tokens=3)),
        ({"promptTokenCount": 9, "candidatesTokenCount": -1, "thoughtsTokenCount": "3"}, None),
        ({"promptTokenCount": 9, "cachedContentTokenCount": "3"}, Usage(9)),
        ({"promptTokenCount": 9.5, "candidatesTokenCount": True}, None),
        ({"trafficType": "ON_DEMAND"}, None),
        ({}, None),
    ],
)
def test_usage_is_read(counts, expected):
    assert usage(**counts) == expected


def test_logprobs_are_converted_to_openais_form():
    result = {
        "chosenCandidates": [{"token": "é", "logProbability": -0.5, "tokenId": 7}, {"token": "!"}],
        "topCandidates": [
            {"candidates": [{"token": "é", "logProbability": -0.5}, {"token": "e", "logProbability": "-Infinity"}]}
        ],
    }
    body = {"candidates": [{"content": {"parts": [{"text": "é!"}]}, "finishReason": "STOP", "logprobsResult": result}]}
    assert decode(body).choices[0].logprobs == {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [
                    {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
                    {"token": "e", "logprob": -9999.0, "bytes": [101]},
                ],
            },
            {"token": "!", "logprob": 0.0, "bytes": [33], "top_logprobs": []},
        ],
        "refusal": None,
    }
    body["candidates"][0]["logprobsResult"] = {}
    assert decode(body).choices[0].logprobs is None


def test_a_models_turn_is_sent_back_unchanged():
    parts = [
        {"text": "I think", "thought": True, "thoughtSignature": "YQ=="},
        {"text": "hi", "thoughtSignature": "Yg=="},
        {"functionCall": {"id": "1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "Yw=="},
        {"functionCall": {"id": "2", "name": "g", "args": {}}},
    ]
    said = Message("assistant", choice(*parts).parts)
    body, ignored = api.encode_request(
        Prompt("m", [Message("user", [TextPart("hello")]), said]), Destination("gemini-3.8-flash")
    )
    assert body["contents"][1] == {"role": "model", "parts": parts}
    assert list(ignored) == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"candidates":null}',
        b'{"candidates":[]}',
        b'{"candidates":[1]}',
        b'{"candidates":[{"content":{"parts":[{"text":1}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"text":"\\ud800"}]}}]}',
        b'{"promptFeedback":{}}',
        b'{"usageMetadata":{"promptTokenCount":1}}',
        b'{"error":{"code":400}}',
    ],
)
def test_a_body_that_is_no_answer_is_refused(body):
    with pytest.raises(ValueError, match="generateContent"):
        decode(body)


@pytest.mark.parametrize("created", ["", "yesterday", "2026-01-02", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_any_time_is_accepted(created):
    assert decode({"candidates": [{}], "createTime": created}).created >= 0


# --- errors


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (
            400,
            {"code": 400, "message": "Bad.", "status": "INVALID_ARGUMENT"},
            Problem("Bad.", "invalid_request_error", "invalid_argument"),
        ),
        (
            400,
            {
                "code": 400,
                "message": "Bad.",
                "status": "INVALID_ARGUMENT",
                "details": [
                    1,
                    {
                        "@type": "type.googleapis.com/google.rpc.BadRequest",
                        "fieldViolations": [1, {"field": "tools[0]"}],
                    },
                ],
            },
            Problem("Bad.", "invalid_request_error", "invalid_argument", "tools[0]"),
        ),
        (
            400,
            {
                "code": 400,
                "message": "API key not valid.",
                "status": "INVALID_ARGUMENT",
                "details": [{"reason": "API_KEY_INVALID"}],
            },
            Problem("API key not valid.", "authentication_error", "invalid_argument"),
        ),
        (
            401,
            {"message": "Who?", "status": "UNAUTHENTICATED"},
            Problem("Who?", "authentication_error", "unauthenticated"),
        ),
        (
            403,
            {"message": "No.", "status": "PERMISSION_DENIED"},
            Problem("No.", "permission_error", "permission_denied"),
        ),
        (404, {"message": "Gone.", "status": "NOT_FOUND"}, Problem("Gone.", "not_found_error", "not_found")),
        (
            429,
            {"message": "Slow.", "status": "RESOURCE_EXHAUSTED"},
            Problem("Slow.", "rate_limit_error", "resource_exhausted"),
        ),
        (500, {"message": "Oh.", "status": "INTERNAL"}, Problem("Oh.", "api_error", "internal")),
        (503, {"message": "Full.", "status": "UNAVAILABLE"}, Problem("Full.", "overloaded_error", "unavailable")),
        (504, {"message": "Late.", "status": "DEADLINE_EXCEEDED"}, Problem("Late.", "api_error", "deadline_exceeded")),
        (418, "teapot", Problem("teapot", "invalid_request_error")),
        (500, {"message": ["?"], "status": 5, "details": {"a": 1}}, Problem("The provider failed without saying why.")),
    ],
)
def test_errors_are_read(status, error, expected):
    assert api.decode_problem(status, json.dumps({"error": error}).encode()) == expected
    assert api.decode_problem(status, json.dumps([{"error": error}]).encode()) == expected


@pytest.mark.parametrize(
    "body", [b"", b"<html>Not Found</html>", b"[]", b"[1]", b"{}", b'{"error":null}', b"[" * 100_000]
)
def test_an_error_without_a_message_gets_one(body):
    assert api.decode_problem(404, body) == Problem("The provider failed without saying why.", "not_found_error")


# --- images

PICTURE = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
PAINTED = {
    "candidates": [{"content": {"parts": [{"text": "Here:"}, PICTURE]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1290},
}


def test_an_image_reaches_clients_whose_api_can_hold_it():
    answer = provider_apis()["gemini_generate_content"].decode_answer(json.dumps(PAINTED).encode())
    [choice] = client_apis()["openai_chat"].translation.encode_answer(answer)["choices"]
    [image] = choice["message"]["images"]
    assert image["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="
    *_, item = client_apis()["openai_responses"].translation.encode_answer(answer)["output"]
    assert (item["type"], item["result"], item["output_format"]) == ("image_generation_call", "iVBORw0KGgo=", "png")
    *_, block = client_apis()["anthropic_messages"].translation.encode_answer(answer)["content"]
    assert "image/png" in block["text"]


@pytest.mark.parametrize(
    ("client", "told"),
    [
        ("openai_chat", b'"url":"data:image/png;base64,iVBORw0KGgo="'),
        ("openai_responses", b'"result":"iVBORw0KGgo="'),
        ("anthropic_messages", b"An image (image/png) was left out"),
    ],
)
def test_a_streamed_image_does_too(client, told):
    decoder, encoder = provider_apis()["gemini_generate_content"].decoder(), client_apis()[client].translation.encoder()
    events = [*decoder.feed(json.dumps(PAINTED).encode(), ""), *decoder.end()]
    written = b"".join(encoder.feed(event) for event in events)
    assert told in written
    assert b"Here:" in written


def test_a_client_that_asks_for_images_gets_them():
    body = {"model": "m", "messages": [{"role": "user", "content": "A cat"}], "modalities": ["text", "image"]}
    prompt = client_apis()["openai_chat"].translation.decode_request(body)
    made, _ = provider_apis()["gemini_generate_content"].encode_request(prompt, Destination("gemini-2.5-flash-image"))
    assert made["generationConfig"]["responseModalities"] == ["TEXT", "IMAGE"]
