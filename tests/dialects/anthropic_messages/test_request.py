import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.dialects import client_apis, provider_apis
from extproc.wire.framing.json import InvalidJSON, parse
from extproc.words.dialect import Destination
from extproc.words.errors import Refusal
from extproc.words.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    RefusalPart,
    TextPart,
    ThinkingPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from tests.dialects.neutral import assistant, user
from tests.fuzz.edits import PROGRAMS, changed_json, vocabulary
from tests.fuzz.targets import GOLDEN

MESSAGES = client_apis()["anthropic_messages"]
HELLO = [{"role": "user", "content": "Hello"}]
CACHE = {"type": "ephemeral", "ttl": "1h"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLOSED = SCHEMA | {"additionalProperties": False}
OLD, NEW = "claude-sonnet-4-5", "claude-opus-4-8"


def question(**fields):
    return {"model": "m", "max_tokens": 100, "messages": HELLO} | fields


def decode(**fields):
    return MESSAGES.translation.decode_request(question(**fields))


def encode(model=OLD, most=None, **fields):
    fields.setdefault("messages", [Message("user", [TextPart("Hello")])])
    body, ignored = MESSAGES.encode_request(Prompt("m", **fields), Destination(model, most))
    json.dumps(body)
    return body, ignored


# --- both directions: content of the API, and its neutral form

BLOCKS = {
    "text": ({"type": "text", "text": "Hi"}, TextPart("Hi")),
    "cached text": ({"type": "text", "text": "Hi", "cache_control": CACHE}, TextPart("Hi", CACHE)),
    "an image": (
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        ImagePart("AAAA", "image/png"),
    ),
    "an image elsewhere": (
        {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}, "cache_control": CACHE},
        ImagePart(url="https://x/a.png", cache=CACHE),
    ),
    "a document": (
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
            "title": "a.pdf",
        },
        FilePart("AAAA", "application/pdf", name="a.pdf"),
    ),
    "a text document": (
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
        FilePart(base64.b64encode("Grüße".encode()).decode(), "text/plain"),
    ),
    "a document elsewhere": (
        {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}},
        FilePart(url="https://x/a.pdf"),
    ),
    "an uploaded document": (
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}, "cache_control": CACHE},
        FilePart(id="file_1", cache=CACHE),
    ),
    "a tool's result": (
        {
            "type": "tool_result",
            "tool_use_id": "toolu_1",
            "content": [
                {"type": "text", "text": "7"},
                {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}},
                {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}},
            ],
            "cache_control": CACHE,
        },
        ToolResult(
            "toolu_1",
            [TextPart("7"), ImagePart(url="https://x/a.png"), FilePart(url="https://x/a.pdf")],
            cache=CACHE,
        ),
    ),
    "a tool's failure": (
        {
            "type": "tool_result",
            "tool_use_id": "toolu_1",
            "content": [{"type": "text", "text": "no"}],
            "is_error": True,
        },
        ToolResult("toolu_1", [TextPart("no")], error=True),
    ),
    "a tool's result without content": (
        {"type": "tool_result", "tool_use_id": "toolu_1"},
        ToolResult("toolu_1", []),
    ),
}
SAID = {
    "text": ({"type": "text", "text": "Hi"}, TextPart("Hi")),
    "thinking": (
        {"type": "thinking", "thinking": "Hm", "signature": "EqQB"},
        ThinkingPart("Hm", "EqQB"),
    ),
    "thinking that is not shown": (
        {"type": "thinking", "thinking": "", "signature": "EqQB"},
        ThinkingPart("", "EqQB"),
    ),
    "redacted thinking": ({"type": "redacted_thinking", "data": "EmwK"}, ThinkingPart(redacted="EmwK")),
    "a call": (
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln", "n": 1.0}},
        ToolCall("toolu_1", "weather", '{"city":"Köln","n":1.0}'),
    ),
    "a cached call": (
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}, "cache_control": CACHE},
        ToolCall("toolu_1", "weather", "{}", cache=CACHE),
    ),
}
SETTINGS = {
    "a system prompt": ({"system": "Be brief."}, {"system": [TextPart("Be brief.")]}),
    "a system prompt in parts": (
        {"system": [{"type": "text", "text": "a", "cache_control": CACHE}, {"type": "text", "text": "b"}]},
        {"system": [TextPart("a", CACHE), TextPart("b")]},
    ),
    "streamed": ({"stream": True}, {"stream": True}),
    "sampling": ({"temperature": 0.5, "top_k": 3}, {"temperature": 0.5, "top_k": 3}),
    "nucleus": ({"top_p": 0.5}, {"top_p": 0.5}),
    "stop words": ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
    "the user": ({"metadata": {"user_id": "u1"}}, {"user": "u1"}),
    "the tier": ({"service_tier": "standard_only"}, {"service_tier": "default"}),
    "any tier": ({"service_tier": "auto"}, {"service_tier": "auto"}),
    "tools": (
        {
            "tools": [
                {"name": "f", "input_schema": SCHEMA, "description": "d", "cache_control": CACHE},
                {"name": "g", "input_schema": CLOSED, "strict": True},
            ]
        },
        {"tools": [Tool("f", "d", SCHEMA, cache=CACHE), Tool("g", "", CLOSED, strict=True)]},
    ),
    "a schema for the answer": (
        {"output_config": {"format": {"type": "json_schema", "schema": CLOSED}}},
        {"format": OutputFormat(CLOSED)},
    ),
    "a budget of thinking": (
        {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 2048, "display": "summarized"}},
        {"max_tokens": 5000, "thinking_budget": 2048, "show_thinking": True},
    ),
    "hidden thinking": (
        {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 2048, "display": "omitted"}},
        {"max_tokens": 5000, "thinking_budget": 2048, "show_thinking": False},
    ),
}
CHOICES = {
    "auto": ({"type": "auto"}, ToolChoice("auto"), None),
    "any": ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice("required"), False),
    "tool": ({"type": "tool", "name": "f"}, ToolChoice("tool", "f"), None),
    "none": ({"type": "none"}, ToolChoice("none"), None),
}


@pytest.mark.parametrize(("block", "part"), BLOCKS.values(), ids=BLOCKS)
def test_user_content_is_read_and_written(block, part):
    prompt = decode(messages=[{"role": "user", "content": [block]}])
    assert prompt.messages == [user(part)]
    assert prompt.ignored == []
    assert encode(messages=[user(part)])[0]["messages"] == [{"role": "user", "content": [block]}]


@pytest.mark.parametrize(("block", "part"), SAID.values(), ids=SAID)
def test_assistant_content_is_read_and_written(block, part):
    prompt = decode(messages=[*HELLO, {"role": "assistant", "content": [block]}])
    assert prompt.messages == [user(TextPart("Hello")), assistant(part)]
    body, _ = encode(messages=prompt.messages)
    assert body["messages"][1] == {"role": "assistant", "content": [block]}


@pytest.mark.parametrize(("fields", "means"), SETTINGS.values(), ids=SETTINGS)
def test_settings_are_read_and_written(fields, means):
    prompt = decode(**fields)
    assert prompt == Prompt("m", [user(TextPart("Hello"))], **({"max_tokens": 100} | means))
    body, ignored = MESSAGES.encode_request(prompt, Destination(OLD))
    assert body == question(**fields) | {
        "model": OLD,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
    }
    assert ignored == []


@pytest.mark.parametrize(("choice", "means", "parallel"), CHOICES.values(), ids=CHOICES)
def test_the_choice_of_tools_is_read_and_written(choice, means, parallel):
    tools = [{"name": "f", "input_schema": SCHEMA}]
    prompt = decode(tools=tools, tool_choice=choice)
    assert (prompt.tool_choice, prompt.parallel_tools) == (means, parallel)
    body, ignored = MESSAGES.encode_request(prompt, Destination(OLD))
    assert (body["tools"], body["tool_choice"], ignored) == (tools, choice, [])


# --- from a client


def test_text_may_be_a_plain_string():
    prompt = decode(
        messages=[
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "7"}]},
            {"role": "assistant", "content": "Hi"},
        ]
    )
    assert prompt.messages == [user(ToolResult("1", [TextPart("7")])), assistant(TextPart("Hi"))]


def test_system_messages_join_the_system_prompt():
    later = {"role": "system", "content": [{"type": "text", "text": "b"}]}
    prompt = decode(system="a", messages=[*HELLO, later, {"role": "system", "content": "c"}])
    assert prompt.system == [TextPart("a"), TextPart("b"), TextPart("c")]
    assert prompt.messages == [user(TextPart("Hello"))]


def test_a_document_of_blocks_becomes_its_blocks():
    source = {"type": "content", "content": [{"type": "text", "text": "a"}, BLOCKS["an image"][0]]}
    prompt = decode(messages=[{"role": "user", "content": [{"type": "document", "source": source}]}])
    assert prompt.messages == [user(TextPart("a"), ImagePart("AAAA", "image/png"))]


def test_a_search_result_becomes_text_with_its_source():
    block = {
        "type": "search_result",
        "title": "Rain",
        "source": "https://x",
        "content": [{"type": "text", "text": "It rains."}],
        "citations": {"enabled": True},
    }
    prompt = decode(messages=[{"role": "user", "content": [block]}])
    assert prompt.messages == [user(TextPart("Rain (https://x)\nIt rains."))]
    assert prompt.ignored == ["citations"]


THINKING = {
    "nothing": ({}, (None, False, None, None)),
    "off": ({"thinking": {"type": "disabled"}}, (0, False, None, None)),
    "between tools": ({"thinking": {"type": "between_tools"}}, (0, False, None, None)),
    "a budget": ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, (1024, False, None, True)),
    "adaptive": ({"thinking": {"type": "adaptive"}}, (None, True, None, True)),
    "hidden": ({"thinking": {"type": "adaptive", "display": "omitted"}}, (None, True, None, False)),
    "an effort": ({"output_config": {"effort": "low"}}, (None, False, "low", None)),
    "all effort": ({"output_config": {"effort": "max"}}, (None, False, "xhigh", None)),
    "both": ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, (None, True, "high", True)),
}


@pytest.mark.parametrize(("fields", "means"), THINKING.values(), ids=THINKING)
def test_thinking_is_read(fields, means):
    prompt = decode(**fields)
    assert (prompt.thinking_budget, prompt.thinking_adaptive, prompt.effort, prompt.show_thinking) == means


def test_the_older_name_of_the_answer_format_is_read():
    prompt = decode(output_format={"type": "json_schema", "schema": SCHEMA})
    assert (prompt.format, prompt.ignored) == (OutputFormat(SCHEMA), [])


def test_a_general_cache_mark_goes_to_the_last_block():
    assert decode(cache_control=CACHE).messages == [user(TextPart("Hello", CACHE))]


def test_a_thought_signature_of_gemini_is_read():
    block = SAID["a call"][0] | {"extra_content": {"google": {"thought_signature": "sig"}}}
    prompt = decode(messages=[*HELLO, {"role": "assistant", "content": [block]}])
    assert prompt.messages[1].parts[0].signature == "sig"


def test_advisory_fields_are_named_as_ignored():
    prompt = decode(
        inference_geo="eu",
        speed=None,
        output_config={"task_budget": {}},
        metadata={"user_id": None, "trace": 1},
        tools=[{"name": "f", "input_schema": {}, "defer_loading": True}],
        **{"x\r\ny": 1},
    )
    assert prompt.ignored == [
        "tools.defer_loading",
        "output_config.task_budget",
        "metadata.trace",
        "inference_geo",
        "?",
    ]


def test_the_number_of_ignored_names_is_bounded():
    assert len(decode(**{f"field_{number}": 1 for number in range(1000)}).ignored) == 20


WRONG = {
    "no limit": ({"max_tokens": None}, "max_tokens"),
    "a negative limit": ({"max_tokens": -1}, "max_tokens"),
    "no messages": ({"messages": []}, "messages"),
    "a message that is none": ({"messages": ["Hello"]}, "messages[0]"),
    "an unknown role": ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role"),
    "no role": ({"messages": [{"content": ""}]}, "messages[0].role"),
    "no content": ({"messages": [{"role": "user"}]}, "messages[0].content"),
    "a block that is none": ({"messages": [{"role": "user", "content": [1]}]}, "messages[0].content[0]"),
    "an unknown block": (
        {"messages": [{"role": "user", "content": [{"type": "new"}]}]},
        "messages[0].content[0].type",
    ),
    "a call of the user's": (
        {"messages": [{"role": "user", "content": [SAID["a call"][0]]}]},
        "messages[0].content[0].type",
    ),
    "a text that is none": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
        "messages[0].content[0].text",
    ),
    "an unknown source": (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": []}}]}]},
        "messages[0].content[0].source.type",
    ),
    "a call without input": (
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f"}]}]},
        "messages[0].content[0].input",
    ),
    "a system prompt that is none": ({"system": 1}, "system"),
    "a warm temperature": ({"temperature": 1.5}, "temperature"),
    "a top_p in words": ({"top_p": "1"}, "top_p"),
    "stop in a string": ({"stop_sequences": "x"}, "stop_sequences"),
    "a tool without a schema": ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    "an unknown choice": ({"tool_choice": {"type": {}}}, "tool_choice.type"),
    "an unknown thinking": ({"thinking": {"type": []}}, "thinking.type"),
    "thinking without a budget": ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    "an unknown effort": ({"output_config": {"effort": "huge"}}, "output_config.effort"),
    "an unknown format": ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
}
ONLY_THERE = {
    "to fill a cache": ({"max_tokens": 0}, "max_tokens"),
    "a server's tool": ({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, "tools[0]"),
    "a server's call": (
        {"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]},
        "messages[0].content[0]",
    ),
    "an uploaded image": (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "1"}}]}]},
        "messages[0].content[0]",
    ),
    "a container": ({"container": {"skills": []}}, "container"),
    "servers of tools": ({"mcp_servers": [{"url": "https://x"}]}, "mcp_servers"),
}


@pytest.mark.parametrize(("fields", "param"), WRONG.values(), ids=WRONG)
def test_an_invalid_request_is_refused(fields, param):
    with pytest.raises(Refusal) as refused:
        decode(**fields)
    assert (refused.value.kind.code, refused.value.param) == ("invalid_request", param)


@pytest.mark.parametrize(("fields", "param"), ONLY_THERE.values(), ids=ONLY_THERE)
def test_a_request_without_a_translation_is_refused(fields, param):
    with pytest.raises(Refusal) as refused:
        decode(**fields)
    assert (refused.value.kind.code, refused.value.param) == ("unsupported_by_targets", param)


# --- for a provider


@pytest.mark.parametrize(
    ("asked", "most", "limit"), [(None, None, 4096), (7, None, 7), (None, 9000, 9000), (9001, 9000, 9000)]
)
def test_an_output_limit_is_always_written(asked, most, limit):
    assert encode(max_tokens=asked, most=most)[0]["max_tokens"] == limit


def test_roles_alternate_and_results_come_first():
    body, _ = encode(
        messages=[
            user(TextPart("a")),
            user(TextPart("b")),
            assistant(ToolCall("1", "f", "{}")),
            assistant(ToolCall("2", "f", "{}")),
            user(TextPart("c"), ToolResult("1", [TextPart("x")])),
            user(ToolResult("2", []), TextPart("d")),
        ]
    )
    assert [(message["role"], [block["type"] for block in message["content"]]) for message in body["messages"]] == [
        ("user", ["text", "text"]),
        ("assistant", ["tool_use", "tool_use"]),
        ("user", ["tool_result", "tool_result", "text", "text"]),
    ]
    assert [block.get("tool_use_id") or block["text"] for block in body["messages"][2]["content"]] == [
        *("1", "2", "c", "\n\nd")
    ]


def test_empty_text_is_left_out():
    body, _ = encode(
        system=[TextPart("  ")],
        messages=[user(TextPart("a")), assistant(TextPart("")), user(TextPart("b"), TextPart("\n"))],
    )
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "\n\nb"}]}
    ]
    assert "system" not in body


@pytest.mark.parametrize("messages", [[], [user(TextPart(""))], [assistant(TextPart("Hi"))]])
def test_the_first_turn_is_the_users(messages):
    body, _ = encode(messages=messages, system=[TextPart("s")])
    assert body["messages"][0] == {"role": "user", "content": [{"type": "text", "text": "Begin."}]}


def test_a_begun_answer_does_not_end_in_a_space():
    body, _ = encode(messages=[user(TextPart("a")), assistant(TextPart("Sure: \n"))])
    assert body["messages"][1]["content"] == [{"type": "text", "text": "Sure:"}]


def test_one_system_text_is_a_string_and_cached_ones_are_blocks():
    assert encode(system=[TextPart("a")])[0]["system"] == "a"
    assert encode(system=[TextPart("a", CACHE)])[0]["system"] == [{"type": "text", "text": "a", "cache_control": CACHE}]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("", {}),
        ("{}", {}),
        ('{"a":[1]}', {"a": [1]}),
        ("[1]", {"arguments": "[1]"}),
        ('{"a":', {"arguments": '{"a":'}),
    ],
)
def test_arguments_are_an_object(text, made):
    body, _ = encode(messages=[user(TextPart("a")), assistant(ToolCall("1", "f", text))])
    assert body["messages"][1]["content"][0]["input"] == made


def test_ids_use_only_allowed_letters():
    body, _ = encode(
        messages=[
            user(TextPart("a")),
            assistant(ToolCall("functions.f:0", "f", ""), ToolCall("", "f", "")),
            user(ToolResult("functions.f:0", [])),
        ]
    )
    assert [block["id"] for block in body["messages"][1]["content"]] == ["functions_f_0", "_"]
    assert body["messages"][2]["content"][0]["tool_use_id"] == "functions_f_0"


@pytest.mark.parametrize(
    "part",
    [
        ThinkingPart("unsigned"),
        ThinkingPart("Google's", "gemini:abc"),
        ThinkingPart("OpenAI's", "openai:rs_1:gAAAAABo"),
        ThinkingPart(redacted="openai:rs_1:gAAAAABo"),
    ],
)
def test_thinking_of_other_providers_is_left_out(part):
    body, _ = encode(messages=[user(TextPart("a")), assistant(part, TextPart("b"))])
    assert body["messages"][1]["content"] == [{"type": "text", "text": "b"}]


def test_a_refusal_is_written_as_text():
    body, _ = encode(messages=[user(TextPart("a")), assistant(RefusalPart("No."), RefusalPart(""))])
    assert body["messages"][1]["content"] == [{"type": "text", "text": "No."}]


MEDIA = {
    "a data URL": (ImagePart(url="data:image/gif;base64,R0lG"), ("base64", "image/gif", "R0lG")),
    "JPEG by another name": (ImagePart("AAAA", "image/jpg"), ("base64", "image/jpeg", "AAAA")),
    "a nameless JPEG": (ImagePart("/9j/4AAQ"), ("base64", "image/jpeg", "/9j/4AAQ")),
    "an image as a file": (FilePart("AAAA", "image/webp"), ("base64", "image/webp", "AAAA")),
    "a nameless file": (FilePart("AAAA"), ("base64", "application/pdf", "AAAA")),
    "a file in a URL": (FilePart(url="data:application/pdf;base64,AAAA"), ("base64", "application/pdf", "AAAA")),
    "JSON": (FilePart("e30=", "application/json"), ("text", "text/plain", "{}")),
    "Markdown": (FilePart("SGk=", "text/markdown; charset=utf-8"), ("text", "text/plain", "Hi")),
}


@pytest.mark.parametrize(("part", "source"), MEDIA.values(), ids=MEDIA)
def test_media_are_written(part, source):
    body, _ = encode(messages=[user(part)])
    assert body["messages"][0]["content"][0]["source"] == dict(zip(("type", "media_type", "data"), source, strict=True))


@pytest.mark.parametrize(
    "part", [FilePart("AAAA", "application/zip"), FilePart("/w==", "text/plain"), AudioPart("AAAA", "wav")]
)
def test_unsupported_media_are_refused(part):
    with pytest.raises(Refusal) as refused:
        encode(messages=[user(part)])
    assert refused.value.kind.code == "unsupported_by_targets"


def test_the_detail_of_an_image_is_named_as_ignored():
    assert encode(messages=[user(ImagePart(url="https://x", detail="high"), ImagePart(url="https://y"))])[1] == [
        "detail"
    ]


def test_a_tool_without_arguments_has_a_schema():
    assert encode(tools=[Tool("f")])[0]["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]


def test_parallel_calls_can_be_forbidden():
    body, _ = encode(tools=[Tool("f")], parallel_tools=False)
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_a_tool_choice_without_tools_is_dropped():
    assert "tool_choice" not in encode(tool_choice=ToolChoice("required"))[0]


def test_tools_of_past_calls_are_defined():
    body, _ = encode(
        messages=[
            user(TextPart("a")),
            assistant(ToolCall("1", "f", ""), ToolCall("2", "g", ""), ToolCall("3", "f", "")),
            user(ToolResult("1", []), ToolResult("2", []), ToolResult("3", [])),
        ]
    )
    assert [tool["name"] for tool in body["tools"]] == ["f", "g"]
    assert body["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize("mode", ["required", "tool"])
def test_a_model_that_cannot_be_forced_to_call_a_tool_is_not_forced(mode):
    body, ignored = encode("claude-opus-5-5", tools=[Tool("f")], tool_choice=ToolChoice(mode, "f"))
    assert body["tool_choice"] == {"type": "auto"}
    assert ignored == ["tool_choice"]


def test_strict_tools_have_enforceable_schemas():
    body, ignored = encode(tools=[Tool("f", schema=SCHEMA, strict=True), Tool("g", schema=SCHEMA, strict=False)])
    assert body["tools"] == [
        {"name": "f", "input_schema": CLOSED, "strict": True},
        {"name": "g", "input_schema": SCHEMA},
    ]
    assert ignored == []


LOOSE = {
    "too many": (OLD, [Tool(f"f{number}", schema=SCHEMA, strict=True) for number in range(21)]),
    "too many choices": (
        OLD,
        [Tool("f", schema={"properties": {str(n): {"type": ["string", "null"]} for n in range(17)}}, strict=True)],
    ),
    "an object of anything": (OLD, [Tool("f", schema={"type": "object"}, strict=True)]),
    "another's model": ("kimi-k3", [Tool("f", schema=CLOSED, strict=True)]),
}


@pytest.mark.parametrize(("model", "tools"), LOOSE.values(), ids=LOOSE)
def test_tools_without_an_enforceable_schema_are_not_strict(model, tools):
    body, ignored = encode(model, tools=tools)
    assert not any("strict" in tool for tool in body["tools"])
    assert ignored == ["strict"]


def test_any_json_object_is_asked_for_in_words():
    body, ignored = encode(format=OutputFormat(), system=[TextPart("Be brief.")])
    assert [block["text"] for block in body["system"]] == [
        "Be brief.",
        "Answer with one JSON object and nothing else: no other text, no code fence.",
    ]
    assert ignored == ["response_format"]


NAMED = {
    "the seed": ({"seed": 0}, ["seed"]),
    "penalties": ({"presence_penalty": 1.0, "frequency_penalty": 0.0}, ["presence_penalty"]),
    "metadata": ({"metadata": {"a": "b"}}, ["metadata"]),
    "a long user": ({"user": "u" * 257}, ["user"]),
    "a tier": ({"service_tier": "flex"}, ["service_tier"]),
    "a blank stop word": ({"stop": ["\n", "x"]}, ["stop"]),
    "a hot temperature": ({"temperature": 1.5}, ["temperature"]),
    "two kinds of sampling": ({"temperature": 0.5, "top_p": 0.5}, ["top_p"]),
}


@pytest.mark.parametrize(("fields", "names"), NAMED.values(), ids=NAMED)
def test_fields_without_an_equivalent_are_named(fields, names):
    assert encode(**fields)[1] == names


def test_only_supported_stop_words_are_sent():
    assert encode(stop=["\n", "x"])[0]["stop_sequences"] == ["x"]
    assert "stop_sequences" not in encode(stop=["\n"])[0]


def test_the_path_is_that_of_messages():
    assert MESSAGES.path(Destination("m"), stream=True) == MESSAGES.path(Destination("m"), stream=False) == "/messages"


# --- hostile requests

ASKED = [json.loads(path.read_bytes()) for path in sorted((GOLDEN / "requests/anthropic_messages").glob("*.json"))]


@pytest.mark.parametrize("model", [OLD, NEW, "claude-opus-5-5", "other"])
@given(number=st.integers(0, 99), program=PROGRAMS)
def test_any_request_is_refused_or_keeps_the_rules_of_the_api(number, program, model):
    for body in changed_json(ASKED[number % len(ASKED)], program, *vocabulary(ASKED)):
        if not isinstance(body, dict):  # refused before it is read as a request
            continue
        with suppress(InvalidJSON, Refusal):
            prompt = MESSAGES.translation.decode_request(parse(json.dumps(body).encode(), 128))
            made, ignored = MESSAGES.encode_request(prompt, Destination(model, 9000))
            json.dumps([made, ignored])
            assert made["messages"][0]["role"] == "user"
            assert all(message["content"] for message in made["messages"])
            assert made.get("thinking", {}).get("budget_tokens", 0) < made["max_tokens"] <= 9000


BILLING = "x-anthropic-billing-header: cc_version=2.1.197.123; cc_entrypoint=cli; cch=36ee5;"


@pytest.mark.parametrize(
    ("system", "left"),
    [
        ([{"type": "text", "text": BILLING}, {"type": "text", "text": "Be brief."}], ["Be brief."]),
        (f"{BILLING}\nBe brief.", ["Be brief."]),
        (BILLING, []),
        ("Be brief: x-anthropic-billing-header: is a header.", ["Be brief: x-anthropic-billing-header: is a header."]),
    ],
)
def test_what_tells_anthropic_how_to_bill_is_not_told_to_others(system, left):
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "system": system}
    assert [part.text for part in client_apis()["anthropic_messages"].translation.decode_request(body).system] == left


@pytest.mark.parametrize("there", ["openai_chat", "openai_responses"])
def test_a_long_user_id_leaves_as_a_digest(there):
    """OpenAI takes 64 characters."""
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    users = []
    for sent in ("u" * 64, "u" * 65, "u" * 65, "v" * 170):
        prompt = client_apis()["anthropic_messages"].translation.decode_request(body | {"metadata": {"user_id": sent}})
        made, _ = provider_apis()[there].encode_request(prompt, Destination("gpt-5"))
        users.append(made["user"])
    assert users[0] == "u" * 64
    assert users[1] == users[2] != users[3]
    assert all(len(user) == 32 for user in users[1:])


def test_tools_that_a_search_of_the_client_found_are_named():
    """Claude Code's tool search. Other APIs offer every tool from the beginning, also those to be loaded later."""
    found = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference", "tool_name": "Bash"}]}
    asked = question(
        messages=[{"role": "user", "content": [found]}],
        tools=[{"name": "Bash", "input_schema": {"type": "object"}, "defer_loading": True}],
    )
    assert MESSAGES.read(asked).hosted == ()
    prompt = MESSAGES.translation.decode_request(asked)
    assert prompt.messages[0].parts == [ToolResult("t", [TextPart("The tool Bash can be called.")])]
    assert [tool.name for tool in prompt.tools] == ["Bash"]
