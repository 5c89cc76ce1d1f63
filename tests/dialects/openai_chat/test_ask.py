import json

import pytest

from extproc.dialects import client_apis
from extproc.words.dialect import ABILITIES, Report
from extproc.words.errors import Refusal
from extproc.words.exchange import Usage

CHAT = client_apis()["openai_chat"]


def question(**fields):
    return {"model": "m", "messages": [{"role": "user", "content": "Hello"}]} | fields


def observe(*events, report=None):
    report = report or Report()
    said = [CHAT.observe(event if isinstance(event, bytes) else json.dumps(event).encode(), report) for event in events]
    return report, said


def delta(text="", index=0, **fields):
    return {"choices": [{"index": index, "delta": {"content": text} | fields}]}


# --- requests


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    "value", [-1, 0, "5", 1e308, 5.0, 1.5, True, False, [], {}, [5], 10**9 + 1, 10**30, -(10**30), ""]
)
def test_a_hostile_limit_is_refused(name, value):
    with pytest.raises(Refusal) as refused:
        CHAT.read(question(**{name: value}))
    assert (refused.value.kind.status, refused.value.param) == (400, name)


@pytest.mark.parametrize(
    ("fields", "field", "limit"),
    [
        ({}, "max_completion_tokens", None),
        ({"max_tokens": None}, "max_completion_tokens", None),
        ({"max_tokens": 1}, "max_tokens", 1),
        ({"max_completion_tokens": 10**9}, "max_completion_tokens", 10**9),
        ({"max_tokens": None, "max_completion_tokens": 5}, "max_completion_tokens", 5),
        ({"max_tokens": 5, "max_completion_tokens": None}, "max_tokens", 5),
    ],
)
def test_the_limit_and_its_field_are_read(fields, field, limit):
    ask = CHAT.read(question(**fields))
    assert (ask.output_field, ask.max_output_tokens) == (field, limit)


def test_two_limits_are_refused():
    with pytest.raises(Refusal, match="not both"):
        CHAT.read(question(max_tokens=5, max_completion_tokens=5))


@pytest.mark.parametrize("value", [0, -1, 129, 10**9, "2", 1.0, True, []])
def test_a_hostile_number_of_choices_is_refused(value):
    with pytest.raises(Refusal) as refused:
        CHAT.read(question(n=value))
    assert refused.value.param == "n"


@pytest.mark.parametrize(("value", "choices"), [(None, 1), (1, 1), (128, 128)])
def test_the_number_of_choices_is_read(value, choices):
    assert CHAT.read(question(n=value)).choices == choices


@pytest.mark.parametrize("value", ["true", 1, 0, "", [], {}])
def test_a_stream_is_true_or_false(value):
    with pytest.raises(Refusal) as refused:
        CHAT.read(question(stream=value))
    assert refused.value.param == "stream"


@pytest.mark.parametrize(("value", "stream"), [(True, True), (False, False), (None, False)])
def test_the_stream_flag_is_read(value, stream):
    assert CHAT.read(question(stream=value)).stream is stream


@pytest.mark.parametrize("messages", [None, [], {}, "Hello", 1, [1], ["Hello"], [None], [{}, []]])
def test_messages_are_a_list_of_objects(messages):
    with pytest.raises(Refusal):
        CHAT.read(question(messages=messages))


@pytest.mark.parametrize("options", [[], "x", 1, True])
def test_stream_options_are_an_object(options):
    with pytest.raises(Refusal):
        CHAT.read(question(stream_options=options))


def test_images_and_their_bytes_are_counted():
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "image_url", "image_url": "data:,"},
        {"type": "image_url", "image_url": 7},
        "loose",
    ]
    ask = CHAT.read(question(messages=[{"role": "user", "content": parts}]))
    assert (ask.images, ask.image_bytes) == (4, len("data:image/png;base64,AAAA"))


def content(*parts):
    return {"messages": [{"role": "user", "content": list(parts)}]}


PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAGQAAABkCAIAAAA="  # the start of an image, 100 px a side
PDF = "data:application/pdf;base64,JVBERi0xLjc="
TEXT_FILE = {"file_data": "data:text/plain;base64,SGVsbG8=", "filename": "a.txt"}
MP3 = {"data": "SUQzBAAA", "format": "mp3"}


@pytest.mark.parametrize(
    ("fields", "unseen"),
    [
        ({}, ()),
        (content({"type": "text", "text": "x"}, {"type": "refusal", "refusal": "x"}, "loose"), ()),
        (content({"type": "image_url", "image_url": {"url": PNG}}), ()),
        (content({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}), ("image_url",)),
        (content({"type": "image_url", "image_url": "gs://bucket/a.png"}), ("image_url",)),
        (content({"type": "image_url", "image_url": {"url": PDF}}), ("image_url",)),
        (content({"type": "image_url", "image_url": {}}), ("image_url",)),
        (content({"type": "text", "text": "x", "image_url": "https://example.com/a.png"}), ("image_url",)),
        (content({"type": "file", "file": {"file_id": "file-1"}}), ("file",)),
        (content({"type": "file", "file": {"file_data": PDF}}), ("file",)),
        (content({"type": "file", "file": {"file_data": "https://example.com/a.pdf"}}), ("file",)),
        (content({"type": "file", "file": TEXT_FILE}), ()),
        (content({"type": "input_audio", "input_audio": MP3}), ()),
        (content({"type": "input_audio", "input_audio": {"data": "ZkxhQwAA", "format": "flac"}}), ("input_audio",)),
        (content({"type": "input_audio", "input_audio": {"id": "x"}}), ("input_audio",)),
        (content({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}), ("video_url",)),
        (content({"type": "A new\nkind", "x": 1}, {"type": ["text"]}, {}), ("content",)),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, ("audio",)),
        ({"tools": [{"type": "function"}, {"type": "custom"}, {"function": {}}]}, ()),
        ({"web_search_options": None, "plugins": []}, ()),
        ({"plugins": [{"id": "web"}], "data_sources": [{}]}, ("data_sources", "plugins")),
        ({"search_parameters": {"mode": "on"}}, ("search_parameters",)),
        ({"extra_body": {"google": {"cached_content": "cachedContents/1"}}}, ("cached_content",)),
        ({"extra_body": {"google": {"thinking_config": {}}}}, ()),
    ],
)
def test_input_given_by_reference_is_found(fields, unseen):
    assert CHAT.read(question(**fields)).unseen == unseen


@pytest.mark.parametrize(
    ("fields", "hosted"),
    [
        ({"tools": [{"type": "function"}, {"type": "custom"}, {"function": {}}]}, ()),
        ({"tools": [{"type": "web_search"}, {"type": "$web_search"}, {"type": "web_search"}]}, ("web_search", "tools")),
        ({"web_search_options": {"search_context_size": "low"}}, ("web_search_options",)),
    ],
)
def test_tools_that_the_provider_runs_itself(fields, hosted):
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    ask = CHAT.read(body)
    assert (ask.hosted, ask.unseen) == (hosted, ())
    rest, dropped = CHAT.translation.without_hosted(body)
    assert (CHAT.read(rest).hosted, bool(dropped)) == ((), bool(hosted))


def test_images_count_by_their_size():
    ask = CHAT.read(question(**content({"type": "image_url", "image_url": {"url": PNG}}, {"image_url": "https://x/y"})))
    assert (ask.images, ask.image_tokens, ask.image_data) == (2, 1601 + 39_200, [PNG])


def test_tools_add_the_text_that_providers_write_about_them():
    assert CHAT.read(question()).added_tokens == 0
    assert CHAT.read(question(tools=[FUNCTION])).added_tokens == 1024
    assert CHAT.read(question(response_format=SCHEMA)).added_tokens == 1024


SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("fields", "ability", "field"),
    [
        ({"tools": [FUNCTION]}, "tools", "tools"),
        ({"functions": [{"name": "f"}]}, "tools", "functions"),
        ({"response_format": SCHEMA}, "json_schema", "response_format"),
        (content({"type": "image_url", "image_url": {"url": "https://x/a.png"}}), "images", "messages"),
        (content({"type": "file", "file": {"file_id": "f"}}), "files", "messages"),
        (content({"type": "input_audio", "input_audio": {"data": "AAAA"}}), "audio", "messages"),
        (content({"type": "text", "text": "x"}, {"type": "new", "file": {}}), "files", "messages"),
    ],
)
def test_the_needs_of_a_request_are_found(fields, ability, field):
    assert CHAT.read(question(**fields)).needs.get(ability) == field
    assert ability in ABILITIES


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": []},
        {"tools": None, "functions": None},
        {"response_format": None},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {"response_format": "json_schema"},
        {"stream": True, "temperature": 0, "seed": 1, "stop": ["x"], "tool_choice": "none", "user": "u"},
        content({"type": "text", "text": "x"}, {"image_url": None, "file": None, "input_audio": None}, "loose", 7),
    ],
)
def test_abilities_of_every_model_are_no_needs(fields):
    assert not set(CHAT.read(question(**fields)).needs) & set(ABILITIES)


# --- texts (T11)

CANARIES = {
    "content as a string": {"messages": [{"role": "user", "content": "CANARY"}]},
    "content as parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "CANARY"}]}]},
    "a part of an unknown type": {
        "messages": [{"role": "user", "content": [{"type": "new", "new": {"x": ["CANARY"]}}]}]
    },
    "a bare string among parts": {"messages": [{"role": "user", "content": ["CANARY"]}]},
    "a tool's result": {"messages": [{"role": "tool", "tool_call_id": "1", "content": "CANARY"}]},
    "a tool's result in parts": {"messages": [{"role": "tool", "content": [{"type": "text", "text": "CANARY"}]}]},
    "a call's arguments": {
        "messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "CANARY"}}]}]
    },
    "a call's name": {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "CANARY"}}]}]},
    "an old function call": {"messages": [{"role": "assistant", "function_call": {"arguments": "CANARY"}}]},
    "a message's name": {"messages": [{"role": "user", "name": "CANARY", "content": ""}]},
    "system": {"messages": [{"role": "system", "content": "CANARY"}]},
    "developer": {"messages": [{"role": "developer", "content": "CANARY"}]},
    "a refusal": {"messages": [{"role": "assistant", "refusal": "CANARY"}]},
    "a refusal in parts": {"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "CANARY"}]}]},
    "reasoning": {"messages": [{"role": "assistant", "reasoning_content": "CANARY"}]},
    "a prediction": {"prediction": {"type": "content", "content": "CANARY"}},
    "a prediction in parts": {"prediction": {"type": "content", "content": [{"type": "text", "text": "CANARY"}]}},
    "a schema": {"response_format": {"json_schema": {"schema": {"properties": {"a": {"description": "CANARY"}}}}}},
    "an enum of a schema": {"response_format": {"json_schema": {"schema": {"enum": ["x", "CANARY"]}}}},
    "a tool's description": {"tools": [{"type": "function", "function": {"name": "f", "description": "CANARY"}}]},
    "a tool's parameters": {"tools": [{"function": {"parameters": {"properties": {"a": {"description": "CANARY"}}}}}]},
    "metadata": {"metadata": {"a": "CANARY"}},
    "an image's address": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/?q=CANARY"}}]}]
    },
    "a file's name": {"messages": [{"role": "user", "content": [{"type": "file", "file": {"filename": "CANARY"}}]}]},
    "the user": {"user": "CANARY"},
    "a stop word": {"stop": "CANARY"},
    "stop words": {"stop": ["x", "CANARY"]},
    "a field invented next year": {"invented": [{"next": ["year", "CANARY"]}]},
    "the thousandth part": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "x"}] * 999 + [{"type": "text", "text": "CANARY"}]}
        ]
    },
    "the thousandth message": {
        "messages": [{"role": "user", "content": "x"}] * 999 + [{"role": "user", "content": "CANARY"}]
    },
}


@pytest.mark.parametrize("fields", CANARIES.values(), ids=CANARIES)
def test_text_is_found_in_every_field(fields):
    body = json.loads(json.dumps(question(**fields)))
    CHAT.read(body)
    [text] = [text for text in CHAT.texts(body) if "CANARY" in text.value]
    text.holder[text.key] = "masked"
    assert "CANARY" not in json.dumps(body)


@pytest.mark.parametrize(
    ("fields", "role", "where"),
    [
        ({"messages": [{"role": "system", "content": "CANARY"}]}, "system", "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}, {"text": "CANARY"}]}]},
            "user",
            "messages[0].content[1].text",
        ),
        ({"messages": [{"content": "CANARY"}]}, "", "messages[0].content"),
        ({"messages": [{"role": 7, "content": "CANARY"}]}, "", "messages[0].content"),
        ({"metadata": {"a": "CANARY"}}, "request", "metadata.a"),
        ({"user": "CANARY"}, "request", "user"),
    ],
)
def test_a_text_has_its_role_and_place(fields, role, where):
    [text] = [text for text in CHAT.texts(question(**fields)) if text.value == "CANARY"]
    assert (text.role, text.where) == (role, where)


@pytest.mark.parametrize("role", ["CANARY", {"name": "CANARY"}, ["CANARY"]])
def test_text_in_the_role_is_found(role):
    assert any("CANARY" in text.value for text in CHAT.texts(question(messages=[{"role": role, "content": "x"}])))


# --- answers


def test_a_stream_of_chunks_is_observed():
    report, said = observe(
        {"model": "m-1"} | delta(role="assistant"),
        delta("Grüße"),
        delta("", index=1, refusal="No"),
        delta(None, reasoning_content="hm"),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}},
        b"[DONE]",
    )
    assert said == [False] * 6 + [True, False]
    assert report.usage == Usage(5, 3)
    assert report.model == "m-1"
    assert report.finish_reasons == {0: "stop", 1: "length"}
    assert (report.output_bytes, report.output_events) == (len("Grüße".encode()) + 2 + 2, 3)


def test_tool_calls_count_as_text():
    call = {"function": {"name": "get_weather", "arguments": '{"city": "Köln"}'}}
    report, _ = observe(delta(None, tool_calls=[call, {"function": {"arguments": None}}, {}]))
    assert report.output_bytes == len("get_weather") + len('{"city": "Köln"}'.encode())
    assert report.output_events == 1


def test_a_plain_completion_is_observed():
    report, said = observe(
        {
            "model": "m-1",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": 50,
                "completion_tokens": 30,
                "prompt_tokens_details": {"cached_tokens": 40},
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
        }
    )
    assert said == [False]
    assert report.usage == Usage(50, 30, 40, 20)
    assert report.output_bytes == 2


@pytest.mark.parametrize(
    ("event", "usage_only"),
    [
        ({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}, True),
        ({"usage": {"prompt_tokens": 1, "completion_tokens": 1}}, True),
        ({"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 1}}, True),
        ({"choices": [], "usage": {}}, True),
        ({"choices": [], "usage": None}, False),
        ({"choices": [], "prompt_filter_results": []}, False),
        (delta("x") | {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}, False),
        ({"choices": [{"index": 0, "delta": {}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}, False),
        ({"error": {"message": "x"}, "usage": {"prompt_tokens": 1, "completion_tokens": 1}}, False),
        (b"[DONE]", False),
        (b"not json", False),
    ],
)
def test_events_that_carry_only_usage_are_recognised(event, usage_only):
    assert observe(event)[1] == [usage_only]


LIES = [-1, 1.5, 1.0, "5", 10**18, 1e18, True, [], {}, "", False, 0.0]


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("field", ["prompt_tokens", "completion_tokens"])
def test_impossible_usage_is_refused(field, lie):
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8} | {field: lie}
    report, _ = observe({"choices": [], "usage": usage})
    assert report.usage is None
    assert report.usage_refused


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"completion_tokens": 3, "total_tokens": 8}, Usage(5, 3)),
        ({"prompt_tokens": 5, "total_tokens": 8}, Usage(5, 3)),
        ({"prompt_tokens": 5, "completion_tokens": None, "total_tokens": 8}, Usage(5, 3)),
        ({"prompt_tokens": 5, "total_tokens": -8}, Usage(5, 0)),
        ({"prompt_tokens": 5, "total_tokens": 3}, Usage(5, 0)),
        ({"completion_tokens": 3}, Usage(0, 3)),
        ({"prompt_tokens": 0, "completion_tokens": 3}, Usage(0, 3)),
        ({"total_tokens": 8}, None),
        ({"prompt_tokens": None}, None),
    ],
)
def test_a_missing_count_leaves_the_other(usage, told):
    report, _ = observe({"choices": [], "usage": usage})
    assert (report.usage, report.usage_refused) == (told, told is None)


@pytest.mark.parametrize("lie", [*LIES, None, 99])
def test_impossible_details_are_left_out(lie):
    details = {"prompt_tokens_details": {"cached_tokens": lie}, "completion_tokens_details": {"reasoning_tokens": lie}}
    report, _ = observe({"usage": {"prompt_tokens": 5, "completion_tokens": 3} | details})
    assert report.usage == (Usage(5, 3, 5, 3) if lie == 99 else Usage(5, 3))


def test_impossible_usage_does_not_replace_earlier_usage():
    report, _ = observe(
        {"usage": {"prompt_tokens": 5, "completion_tokens": 3}},
        {"usage": {"prompt_tokens": -5, "completion_tokens": 3}},
    )
    assert report.usage == Usage(5, 3)
    assert report.usage_refused


def test_an_unreadable_answer_counts_in_full():
    report, _ = observe(b"not json", {"choices": [{"delta": "a string where an object belongs"}]})
    assert report.output_bytes > 50
    assert report.output_events == 2


def test_text_is_counted_in_the_shapes_of_other_providers():
    """`usage_shapes.json` has their complete answers."""
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "é"}, "!"]
    report, _ = observe(
        delta(parts),
        delta(None, reasoning="so", reasoning_details=[{"type": "reasoning.text", "text": "so"}]),
        delta(None, reasoning="so", reasoning_content="so"),
        delta(None, function_call={"name": "f", "arguments": "{}"}),
        delta(None, tool_calls=[{"function": {"name": "g", "arguments": {"a": 1}}}]),
        delta(5),
    )
    assert report.output_bytes == (2 + 2 + 1) + 2 + 2 + 3 + (1 + len('{"a":1}'))
    assert report.output_events == 5


def test_an_error_mid_stream_is_noted():
    assert observe({"error": {"message": "overloaded"}})[0].error == "provider_error"


def test_the_number_of_finish_reasons_is_bounded():
    report = Report()
    for index in range(-10, 10_000):
        observe({"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]}, report=report)
    assert sorted(report.finish_reasons) == list(range(128))
