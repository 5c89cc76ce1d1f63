"""Facts that the gateway reads from requests and answers that it passes through."""

import json

import pytest

from extproc.dialects import openai_responses as api
from extproc.dialects.openai_responses.shapes import new_id
from extproc.words.dialect import Report
from extproc.words.errors import Refusal
from extproc.words.exchange import Usage


def asks(**fields):
    return api.read({"model": "m", "input": "Hello", **fields})


def observe(*events):
    report = Report()
    for event in events:
        assert api.observe(event if isinstance(event, bytes) else json.dumps(event).encode(), report) is False
    return report


def test_the_smallest_request_is_read():
    ask = asks()
    assert (ask.model, ask.stream, ask.choices, ask.needs) == ("m", False, 1, {})
    assert (ask.output_field, ask.max_output_tokens) == ("max_output_tokens", None)


def test_stream_and_limit_are_read():
    ask = asks(stream=True, max_output_tokens=77)
    assert (ask.stream, ask.max_output_tokens) == (True, 77)


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"tools": [{"type": "function", "name": "f"}]}, {"tools": "tools"}),
        ({"tools": [{"type": "custom", "name": "f"}]}, {"tools": "tools"}),
        ({"tools": [{"type": "web_search"}]}, {"hosted_tools": "tools"}),
        (
            {"tools": [{"type": "mcp", "server_label": "x"}, {"type": "function", "name": "f"}]},
            {"hosted_tools": "tools", "tools": "tools"},
        ),
        ({"tool_choice": {"type": "file_search"}}, {"hosted_tools": "tool_choice", "hosted_call": "tool_choice"}),
        ({"tools": [{"type": "namespace", "name": "n", "tools": []}]}, {"tools": "tools"}),
        ({"tool_choice": {"type": "function", "name": "f"}}, {}),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {}}}}, {"json_schema": "text"}),
        ({"text": {"format": {"type": "json_object"}}}, {}),
        ({"top_logprobs": 3}, {"logprobs": "top_logprobs"}),
        ({"top_logprobs": 0}, {}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": "include"}),
        ({"include": ["reasoning.encrypted_content"]}, {}),
        ({"previous_response_id": "resp_1"}, {"state": "previous_response_id"}),
        ({"previous_response_id": "resp_1", "input": None}, {"state": "previous_response_id"}),
        ({"conversation": {"id": "conv_1"}}, {"state": "conversation"}),
        ({"prompt": {"id": "pmpt_1"}}, {"state": "prompt"}),
        ({"background": True}, {"state": "background"}),
        ({"background": False, "store": True}, {}),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, {"state": "input"}),
        ({"input": [{"id": "msg_1"}]}, {"state": "input"}),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, {"state": "input"}),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, {"hosted_tools": "input"}),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, {"files": "input"}),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, {"audio": "input"}),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}]},
            {"images": "input"},
        ),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "function"}]}]}, {"tools": "input"}),
    ],
)
def test_the_needs_of_a_request_are_found(fields, needs):
    assert asks(**fields).needs == needs


def says(*parts, **fields):
    return {"input": [{"role": "user", "content": list(parts), **fields}]}


@pytest.mark.parametrize(
    ("fields", "unseen"),
    [
        ({}, ()),
        (says({"type": "input_text", "text": "x"}), ()),
        ({"previous_response_id": "resp_1"}, ("previous_response_id",)),
        ({"conversation": "conv_1", "input": None}, ("conversation",)),
        ({"prompt": {"id": "pmpt_1"}}, ("prompt",)),
        ({"prompt": None, "conversation": None}, ()),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, ("item_reference",)),
        ({"input": [{"id": "msg_1"}]}, ("item_reference",)),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, ("compaction",)),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, ()),
        ({"input": [{"type": "image_generation_call", "id": "ig_1"}]}, ("image_generation_call",)),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, ("reasoning",)),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}]}, ()),
        ({"input": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]}]}, ()),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c", "id": "fc_1"}]}, ()),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, ()),
        (says({"type": "input_image", "image_url": "https://example.com/a.png"}), ("input_image",)),
        (says({"type": "input_image", "file_id": "file-1"}), ("input_image",)),
        (says({"type": "input_image", "image_url": "data:image/png;base64,AAAA"}), ()),
        (says({"type": "input_file", "file_id": "file-1"}), ("input_file",)),
        (says({"type": "input_file", "file_url": "https://example.com/a.pdf"}), ("input_file",)),
        (says({"type": "input_file", "file_data": "data:application/pdf;base64,JVBERi0="}), ("input_file",)),
        (says({"type": "input_file", "file_data": "data:text/plain;base64,SGVsbG8="}), ()),
        (says({"type": "input_audio", "input_audio": {"data": "SUQzBAAA", "format": "mp3"}}), ()),
        (says({"type": "input_audio"}), ("input_audio",)),
        (says({"type": "input_video", "x": 1}), ("input_video",)),
        (says({"type": 5}), ("input",)),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}]}, ()),
    ],
)
def test_input_given_by_reference_is_found(fields, unseen):
    assert asks(**fields).unseen == unseen


@pytest.mark.parametrize(
    ("fields", "hosted"),
    [
        ({"tools": [{"type": "function", "name": "f"}]}, ()),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, ("web_search_call",)),
        ({"tools": [{"type": "web_search"}, {"type": "mcp", "server_label": "x"}]}, ("web_search", "mcp")),
        (
            {"tools": [{"type": kind} for kind in ("file_search", "code_interpreter")]},
            ("file_search", "code_interpreter"),
        ),
        ({"tools": [{"type": "computer_use_preview"}, {"type": "X" * 99}]}, ("computer_use_preview", "tools")),
        (
            {"tools": [{"type": f"tool_{number}"} for number in range(20)]},
            tuple(f"tool_{number}" for number in range(8)),
        ),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "file_search"}]}]}, ("file_search",)),
        ({"tool_choice": {"type": "file_search"}}, ("file_search",)),
    ],
)
def test_tools_that_the_provider_runs_itself(fields, hosted):
    ask = asks(**fields)
    assert (ask.hosted, ask.unseen) == (hosted, ())


def test_a_request_without_those_tools_is_one_that_other_apis_have():
    body = {
        "model": "m",
        "input": [
            {"role": "user", "content": "Hi"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"type": "additional_tools", "tools": [{"type": "file_search"}, {"type": "function", "name": "g"}]},
        ],
        "tools": [{"type": "web_search"}, {"type": "function", "name": "f", "parameters": {}}],
    }
    rest, dropped = api.translation.without_hosted(body)
    assert dropped == ["tools.web_search", "input.web_search_call", "tools.file_search"]
    assert api.read(rest).needs == {"tools": "input"}
    assert [tool.name for tool in api.translation.decode_request(rest).tools] == ["f", "g"]
    assert body["tools"][0] == {"type": "web_search"}, "the client's request stays as it is"
    assert "tools" not in api.translation.without_hosted({"model": "m", "input": "Hi", "tools": [{"type": "mcp"}]})[0]


def test_tools_add_the_text_that_providers_write_about_them():
    assert asks().added_tokens == 0
    assert asks(tools=[{"type": "function", "name": "f"}] * 3).added_tokens == 1024
    assert asks(text={"format": {"type": "json_schema", "name": "a", "schema": {}}}).added_tokens == 1024


def test_images_are_counted():
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    ask = asks(input=[{"role": "user", "content": [image, {"type": "input_image", "image_url": "https://x/y.png"}]}])
    assert (ask.images, ask.image_bytes, ask.needs) == (2, 26, {"images": "input", "url": "input"})
    ask = asks(input=[{"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AAAA"}])
    assert (ask.images, ask.image_bytes, ask.needs) == (1, 4, {"images": "input"})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": "5"}, "max_output_tokens"),
        ({"stream": 1}, "stream"),
        ({"background": "yes"}, "background"),
        ({"top_logprobs": 21}, "top_logprobs"),
    ],
)
def test_wrong_shapes_are_refused(fields, param):
    with pytest.raises(Refusal) as refused:
        asks(**fields)
    assert (refused.value.kind.status, refused.value.param) == (400, param)


def test_every_text_is_found_with_its_role():
    body = {
        "model": "m",
        "instructions": "Be kind.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "42"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]},
        ],
        "tools": [{"type": "function", "name": "f", "description": "does f"}],
    }
    found = {text.where: (text.role, text.value) for text in api.texts(body)}
    assert found["instructions"] == ("system", "Be kind.")
    assert found["input[0].content[0].text"] == ("user", "Hi")
    assert found["input[1].arguments"] == ("assistant", "{}")
    assert found["input[2].output"] == ("tool", "42")
    assert found["input[3].summary[0].text"] == ("assistant", "Hm")
    assert found["tools[0].description"] == ("definition", "does f")
    assert "model" not in found
    assert next(api.texts({"model": "m", "input": "Hi"})).role == "user"


USAGE = {
    "input_tokens": 10,
    "output_tokens": 7,
    "total_tokens": 17,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens_details": {"reasoning_tokens": 5},
}
COUNTED = Usage(10, 7, cached_tokens=4, reasoning_tokens=5, cache_write_tokens=2)


def test_a_stream_is_observed():
    report = observe(
        {"type": "response.created", "response": {"model": "gpt-x", "status": "in_progress", "usage": None}},
        {"type": "response.output_item.added", "item": {"type": "message"}, "output_index": 0},
        {"type": "response.reasoning_summary_text.delta", "delta": "ab"},
        {"type": "response.output_text.delta", "delta": "é"},
        {"type": "response.output_text.delta", "delta": ""},
        {"type": "response.function_call_arguments.delta", "delta": "{}"},
        {"type": "response.output_text.done", "text": "é"},
        {
            "type": "response.completed",
            "response": {
                "model": "gpt-x-1",
                "status": "completed",
                "usage": USAGE,
                "output": [{"type": "function_call", "name": "f", "arguments": "{}"}],
            },
        },
    )
    assert (report.model, report.usage) == ("gpt-x-1", COUNTED)
    assert (report.output_bytes, report.output_events) == (6, 3)
    assert (report.finish_reasons, report.error) == ({0: "tool_calls"}, "")


def test_a_plain_answer_is_observed():
    output = [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]
    report = observe({"object": "response", "model": "m", "status": "completed", "output": output, "usage": USAGE})
    assert (report.model, report.usage, report.output_bytes) == ("m", COUNTED, 5)
    assert report.finish_reasons == {0: "stop"}


def test_an_answer_cut_short_is_observed():
    details = {"reason": "max_output_tokens"}
    report = observe(
        {"type": "response.incomplete", "response": {"status": "incomplete", "incomplete_details": details}}
    )
    assert report.finish_reasons == {0: "length"}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "server_error", "message": "x"},
        {"type": "error", "error": {"message": "x"}},
        {"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error"}}},
        {"error": {"message": "x"}},
    ],
)
def test_errors_are_observed(event):
    assert observe(event).error == "provider_error"


def test_an_unreadable_answer_counts_in_full():
    report = observe(b"not json")
    assert (report.output_bytes, report.output_events) == (8, 1)
    assert observe(b"[DONE]").output_bytes == 0


@pytest.mark.parametrize("usage", [{"input_tokens": -1, "output_tokens": 1}, {}, "x", []])
def test_impossible_usage_is_not_believed(usage):
    report = observe({"object": "response", "status": "completed", "usage": usage})
    assert (report.usage, report.usage_refused) == (None, True)


def test_a_missing_count_leaves_the_other():
    report = observe({"object": "response", "status": "completed", "usage": {"input_tokens": 1}})
    assert (report.usage, report.usage_refused) == (Usage(1, 0), False)


CALL = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "x"}
HI = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize("reference", [{"type": "item_reference", "id": "fc_1"}, {"id": "fc_1"}])
def test_a_reference_to_an_item_of_the_same_request_needs_nothing(reference):
    ask = asks(input=[HI, reference, CALL, RESULT])
    assert (ask.needs, ask.unseen) == ({}, ())
    body = {"model": "m", "input": [HI, CALL, reference, RESULT]}
    assert [len(message.parts) for message in api.translation.decode_request(body).messages] == [1, 1, 1]


def test_a_conversation_may_go_on_without_more_input():
    """As a compaction of it does."""
    assert asks(input=[], previous_response_id="resp_1").needs["state"] == "previous_response_id"
    with pytest.raises(Refusal):
        asks(input=[])


def test_thinking_of_a_translated_answer_is_kept_nowhere():
    """OpenAI would look for it, so the request is written anew without it."""
    thinking = {"type": "reasoning", "id": new_id("rs"), "summary": [{"type": "summary_text", "text": "Hm."}]}
    assert asks(input=[HI, thinking, {"role": "assistant", "content": "x"}, HI]).unseen == ()
    assert any(trace in json.dumps(thinking).encode() for trace in api.translation.traces)
