import json

import pytest

from extproc.dialects import client_apis
from extproc.words.exchange import Usage
from extproc.words.messages import Answer, AudioPart, Choice, RefusalPart, TextPart, ThinkingPart, ToolCall

MESSAGES = client_apis()["anthropic_messages"]


def message(*blocks, **fields):
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": list(blocks),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 5,
        },
    } | fields


def answer(*parts, finish="stop", **fields):
    return Answer([Choice(list(parts), finish)], "msg_1", "claude-x", **({"usage": Usage(10, 5)} | fields))


def decode(said):
    return MESSAGES.decode_answer(json.dumps(said).encode())


TEXT = {"type": "text", "text": "Hi"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Köln"}}

# Answers of the API and their neutral form, in both directions.
ANSWERS = {
    "text": (message(TEXT), answer(TextPart("Hi"))),
    "thinking": (
        message({"type": "thinking", "thinking": "Hm", "signature": "EqQB"}, TEXT),
        answer(ThinkingPart("Hm", "EqQB"), TextPart("Hi")),
    ),
    "thinking that is not shown": (
        message({"type": "thinking", "thinking": "", "signature": "EqQB"}, TEXT),
        answer(ThinkingPart("", "EqQB"), TextPart("Hi")),
    ),
    "redacted thinking": (
        message({"type": "redacted_thinking", "data": "EmwK"}, TEXT),
        answer(ThinkingPart(redacted="EmwK"), TextPart("Hi")),
    ),
    "calls": (
        message(TEXT, CALL, CALL | {"id": "toolu_2", "input": {}}, stop_reason="tool_use"),
        answer(
            TextPart("Hi"),
            ToolCall("toolu_1", "f", '{"city": "K\\u00f6ln"}'),
            ToolCall("toolu_2", "f", "{}"),
            finish="tool_calls",
        ),
    ),
    "cut short": (message(TEXT, stop_reason="max_tokens"), answer(TextPart("Hi"), finish="length")),
    "paused": (message(stop_reason="pause_turn"), answer(finish="pause")),
    "refused": (message(stop_reason="refusal"), answer(finish="refusal")),
    "stopped": (
        message(TEXT, stop_reason="stop_sequence", stop_sequence="###"),
        Answer([Choice([TextPart("Hi")], "stop_sequence", "###")], "msg_1", "claude-x", usage=Usage(10, 5)),
    ),
    "usage": (
        message(
            TEXT,
            usage={
                "input_tokens": 10,
                "cache_creation_input_tokens": 3,
                "cache_read_input_tokens": 20,
                "output_tokens": 50,
                "output_tokens_details": {"thinking_tokens": 40},
                "service_tier": "standard",
            },
        ),
        answer(TextPart("Hi"), usage=Usage(33, 50, 20, 40, 3), service_tier="default"),
    ),
}


@pytest.mark.parametrize(("said", "means"), ANSWERS.values(), ids=ANSWERS)
def test_answers_are_read_and_written(said, means):
    assert decode(said) == means
    assert MESSAGES.translation.encode_answer(means) == said


@pytest.mark.parametrize(
    ("reason", "finish"), [("model_context_window_exceeded", "length"), ("invented", "stop"), (None, "stop")]
)
def test_other_stop_reasons_are_read(reason, finish):
    assert decode(message(stop_reason=reason)).choices[0].finish == finish


def test_a_refusals_reason_is_read():
    details = {"type": "refusal", "category": "bio", "explanation": "Not that."}
    refused = decode(message(stop_reason="refusal", stop_details=details))
    assert refused.choices == [Choice([RefusalPart("Not that.")], "refusal")]


def test_parts_of_server_tools_are_left_out():
    blocks = [
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []},
        TEXT | {"citations": [{"type": "char_location"}]},
    ]
    assert decode(message(*blocks)) == answer(TextPart("Hi"))


@pytest.mark.parametrize("usage", [None, {}, 7, {"input_tokens": "5", "output_tokens": -1}])
def test_empty_usage_is_accepted(usage):
    assert decode(message(TEXT, usage=usage)).usage is None


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b'{"type":"error","error":{}}', b'{"type":"message","content":"Hi"}', b"[" * 100_000],
)
def test_a_body_that_is_no_message_is_refused(body):
    with pytest.raises(ValueError):
        MESSAGES.decode_answer(body)


def test_a_refusal_in_words_is_written():
    said = MESSAGES.translation.encode_answer(answer(RefusalPart("No.")))
    assert (said["content"], said["stop_reason"]) == ([{"type": "text", "text": "No."}], "refusal")


def test_a_filtered_answer_is_written_as_a_refusal():
    assert MESSAGES.translation.encode_answer(answer(finish="content_filter"))["stop_reason"] == "refusal"


def test_parts_without_an_equivalent_are_left_out():
    said = MESSAGES.translation.encode_answer(answer(TextPart(""), AudioPart("AAAA", "wav"), TextPart("Hi")))
    assert said["content"] == [TEXT]


def test_an_empty_answer_is_written():
    said = MESSAGES.translation.encode_answer(Answer([]))
    assert said["id"].startswith("msg_")
    assert said["content"] == []
    assert said["usage"]["output_tokens"] == 0


def test_a_thought_signature_of_gemini_is_passed_on():
    said = MESSAGES.translation.encode_answer(answer(ToolCall("1", "f", "{}", "sig")))
    assert said["content"][0]["extra_content"] == {"google": {"thought_signature": "sig"}}
    back = {"role": "assistant", "content": said["content"]}
    prompt = MESSAGES.translation.decode_request({"model": "m", "max_tokens": 1, "messages": [back]})
    assert prompt.messages[0].parts == [ToolCall("1", "f", "{}", "sig")]


@pytest.mark.parametrize(("said", "means"), ANSWERS.values(), ids=ANSWERS)
def test_answers_survive_a_round_trip(said, means):
    prompt = MESSAGES.translation.decode_request(
        {"model": "m", "max_tokens": 1, "messages": [{"role": "assistant", "content": said["content"]}]}
    )
    for part, was in zip(prompt.messages[0].parts, means.choices[0].parts, strict=True):
        if isinstance(was, ToolCall):
            assert json.loads(part.arguments) == json.loads(was.arguments)
        else:
            assert part == was
