"""A client's request in the neutral form, and the neutral form as a request for a provider."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.dialects import openai_responses as api
from extproc.dialects.openai_responses import custom, signature
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
from tests.dialects.neutral import user


def decode(input="Hi", **fields):
    return api.translation.decode_request({"model": "m", "input": input, **fields})


def encode(*messages, destination=None, **fields):
    prompt = Prompt("m", list(messages), **fields)
    return api.encode_request(prompt, destination or Destination("gpt-x"))


def said(*parts):
    return Message("assistant", [TextPart(part) if isinstance(part, str) else part for part in parts])


FUNCTION = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
SIGNED = signature.pack("sig==")


# --- from a client: items of the input, and their messages


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ("Hi", [user("Hi")]),
        ([{"role": "user", "content": "Hi"}], [user("Hi")]),
        ([{"role": "user", "content": []}, {"role": "user", "content": "Hi"}], [user("Hi")]),
        (
            [
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "What is it?"},
                        {"type": "input_image", "detail": "low", "image_url": "data:image/png;base64,AAAA"},
                        {"type": "input_image", "detail": "auto", "image_url": "https://x/y.png"},
                        {
                            "type": "input_file",
                            "filename": "a.pdf",
                            "file_data": "data:application/pdf;base64,JVBE",
                        },
                        {"type": "input_file", "file_url": "https://x/a.pdf"},
                        {"type": "input_file", "file_id": "file-1"},
                        {"type": "input_file", "filename": "a.csv", "file_data": "YSxi"},
                        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                    ],
                }
            ],
            [
                user(
                    "What is it?",
                    ImagePart(data="AAAA", media_type="image/png", detail="low"),
                    ImagePart(url="https://x/y.png", detail="auto"),
                    FilePart(data="JVBE", media_type="application/pdf", name="a.pdf"),
                    FilePart(url="https://x/a.pdf"),
                    FilePart(id="file-1"),
                    FilePart(data="YSxi", media_type="text/csv", name="a.csv"),
                    AudioPart("AAAA", "wav"),
                )
            ],
        ),
        (
            [
                {"role": "user", "content": "Weather in Paris and Rome?"},
                {
                    "id": "rs_1",
                    "type": "reasoning",
                    "summary": [{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}],
                    "encrypted_content": "gAAA",
                },
                {
                    "id": "msg_1",
                    "type": "message",
                    "status": "completed",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}],
                },
                {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "w", "arguments": '{"c":"Paris"}'},
                {"id": "fc_2", "type": "function_call", "call_id": "c2", "name": "w", "arguments": '{"c":"Rome"}'},
                {"type": "function_call_output", "call_id": "c1", "output": "sun"},
                {
                    "type": "function_call_output",
                    "call_id": "c2",
                    "output": [
                        {"type": "input_text", "text": "rain"},
                        {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
                    ],
                },
                {"role": "user", "content": "Thanks"},
            ],
            [
                user("Weather in Paris and Rome?"),
                said(
                    ThinkingPart("One.\n\nTwo.", "openai:rs_1:gAAA"),
                    "I look.",
                    ToolCall("c1", "w", '{"c":"Paris"}'),
                    ToolCall("c2", "w", '{"c":"Rome"}'),
                ),
                user(
                    ToolResult("c1", [TextPart("sun")]),
                    ToolResult("c2", [TextPart("rain"), ImagePart(data="AAAA", media_type="image/png")]),
                ),
                user("Thanks"),
            ],
        ),
        (
            [
                {"role": "user", "content": "Do it"},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
                {"role": "assistant", "content": "Really."},
            ],
            [user("Do it"), said(RefusalPart("No."), "Really.")],
        ),
        (
            [{"role": "user", "content": "x"}, {"id": "rs_1", "type": "reasoning", "summary": []}],
            [user("x")],
        ),
        (
            [
                {
                    "type": "reasoning",
                    "summary": [],
                    "content": [{"type": "reasoning_text", "text": "Hm"}],
                    "encrypted_content": None,
                }
            ],
            [said(ThinkingPart("Hm"))],
        ),
        (
            [
                {
                    "id": "rs_1",
                    "type": "reasoning",
                    "summary": [{"type": "summary_text", "text": "Hm"}],
                    "encrypted_content": SIGNED,
                },
                {"id": "rs_2", "type": "reasoning", "summary": [], "encrypted_content": signature.pack("", "enc")},
            ],
            [said(ThinkingPart("Hm", "sig=="), ThinkingPart(redacted="enc"))],
        ),
        (
            [
                {
                    "id": "rs_1",
                    "type": "reasoning",
                    "summary": [],
                    "encrypted_content": signature.pack(calls={"c": "g"}),
                },
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            ],
            [said(ToolCall("c", "f", "{}", "g"))],
        ),
        (
            [
                {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": 'say "hi"'},
                {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
            ],
            [
                said(ToolCall("c", "patch", '{"custom_tool_input":"say \\"hi\\""}')),
                user(ToolResult("c", [TextPart("done")])),
            ],
        ),
        (
            [{"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AAAA"}],
            [said(ImagePart(data="AAAA", media_type="image/png"))],
        ),
    ],
)
def test_the_input_is_read(items, messages):
    assert decode(items).messages == messages


def test_prompts_become_the_system_prompt():
    prompt = decode(
        [
            {"role": "system", "content": "Two."},
            {"role": "developer", "content": [{"type": "input_text", "text": "Three."}]},
            {"role": "user", "content": "Hi"},
        ],
        instructions="One.",
    )
    assert prompt.system == [TextPart("One."), TextPart("Two."), TextPart("Three.")]
    assert prompt.messages == [user("Hi")]


def test_cache_marks_are_read():
    piece = {"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}
    longer = {"type": "input_text", "text": "y", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}
    parts = decode([{"role": "user", "content": [piece, longer]}]).messages[0].parts
    assert [part.cache for part in parts] == [{"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stream": True}, {"stream": True}),
        (
            {"max_output_tokens": 50, "temperature": 0.5, "top_p": 0.9},
            {"max_tokens": 50, "temperature": 0.5, "top_p": 0.9},
        ),
        (
            {"tools": [FUNCTION]},
            {"tools": [Tool("get_weather", "The weather", FUNCTION["parameters"], strict=True)]},
        ),
        ({"tools": [{"type": "function", "name": "f", "parameters": None}]}, {"tools": [Tool("f")]}),
        ({"tool_choice": "required"}, {"tool_choice": ToolChoice("required")}),
        ({"tool_choice": "none"}, {"tool_choice": ToolChoice("none")}),
        ({"tool_choice": {"type": "function", "name": "f"}}, {"tool_choice": ToolChoice("tool", "f")}),
        ({"tool_choice": {"type": "custom", "name": "f"}}, {"tool_choice": ToolChoice("tool", "f")}),
        (
            {
                "tools": [FUNCTION, {"type": "function", "name": "f"}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "f"}],
                },
            },
            {"tools": [Tool("f")], "tool_choice": ToolChoice("required")},
        ),
        ({"parallel_tool_calls": False}, {"parallel_tools": False}),
        ({"text": {"format": {"type": "text"}}}, {"format": None}),
        ({"text": {"format": {"type": "json_object"}}}, {"format": OutputFormat()}),
        (
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}}},
            {"format": OutputFormat(SCHEMA, "a", strict=True)},
        ),
        ({"reasoning": {"effort": "low"}}, {"effort": "low", "show_thinking": None}),
        ({"reasoning": {"effort": "max", "summary": "auto"}}, {"effort": "xhigh", "show_thinking": True}),
        ({"reasoning": {"generate_summary": "concise"}}, {"effort": None, "show_thinking": True}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": 0}),
        ({"top_logprobs": 4}, {"logprobs": 4}),
        ({"metadata": {"a": "b"}, "user": "u", "service_tier": "flex"}, {"metadata": {"a": "b"}, "user": "u"}),
        ({"user": "u", "safety_identifier": "s", "service_tier": "flex"}, {"user": "s", "service_tier": "flex"}),
    ],
)
def test_fields_are_read(fields, expected):
    prompt = decode(**fields)
    assert {name: getattr(prompt, name) for name in expected} == expected
    assert prompt.ignored == []


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"store": True}, ["store"]),
        ({"store": False, "truncation": "disabled", "background": False, "conversation": None}, []),
        (
            {"truncation": "auto", "prompt_cache_key": "k", "max_tool_calls": 3},
            ["max_tool_calls", "prompt_cache_key", "truncation"],
        ),
        ({"text": {"verbosity": "low"}}, ["text.verbosity"]),
        ({"reasoning": {"effort": "ultra", "mode": "pro", "summary": None}}, ["reasoning.effort", "reasoning.mode"]),
        ({"include": ["reasoning.encrypted_content"], "stream_options": {"include_obfuscation": False}}, []),
        ({"include": ["file_search_call.results"]}, ["include"]),
        ({"seed": 7, "a b\r\n": 1}, ["other", "seed"]),
        ({"tools": [{"type": "function", "name": "f", "defer_loading": True}]}, ["tools.defer_loading"]),
    ],
)
def test_fields_that_are_not_translated_are_named(fields, names):
    assert decode(**fields).ignored == names


def test_custom_tools_become_functions():
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: WORD"}
    prompt = decode(tools=[{"type": "custom", "name": "patch", "description": "Patches.", "format": grammar}])
    (tool,) = prompt.tools
    assert (tool.name, tool.schema) == ("patch", custom.SCHEMA)
    assert "Patches." in tool.description
    assert "start: WORD" in tool.description
    assert prompt.ignored == ["tools.format"]


def test_tools_in_the_input_are_read():
    items = [{"role": "user", "content": "x"}, {"type": "additional_tools", "role": "developer", "tools": [FUNCTION]}]
    assert [tool.name for tool in decode(items).tools] == ["get_weather"]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"previous_response_id": "resp_1"}, "unsupported_by_targets", "previous_response_id"),
        ({"background": True}, "unsupported_by_targets", "background"),
        ({"tools": [{"type": "web_search"}]}, "unsupported_by_targets", "tools"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "unsupported_by_targets", "tool_choice"),
        ({"input": [{"type": "computer_call", "id": "x"}]}, "unsupported_by_targets", "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "unsupported_by_targets", "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "unsupported_by_targets",
            "input[0].content[0].file_id",
        ),
        ({"input": 5}, "invalid_request", "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "invalid_request", "input[0].role"),
        ({"input": [{"role": ["user"], "content": "x"}]}, "invalid_request", "input[0].role"),
        ({"input": [{"role": "user"}]}, "invalid_request", "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "picture"}]}]}, "invalid_request", "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png,x"}]}]},
            "invalid_request",
            "input[0].content[0]",
        ),
        ({"input": [{"type": "function_call", "name": "f"}]}, "invalid_request", "input[0].call_id"),
        (
            {"input": [{"type": "function_call", "name": "f", "call_id": "c"}]},
            "invalid_request",
            "input[0].arguments",
        ),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "invalid_request", "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "x"}]}, "invalid_request", "input[0].output"),
        (
            {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "extproc:!"}]},
            "invalid_request",
            "input[0].encrypted_content",
        ),
        ({"tool_choice": "sometimes"}, "invalid_request", "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "invalid_request", "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, "invalid_request", "tool_choice"),
        ({"text": {"format": {"type": "yaml"}}}, "invalid_request", "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "invalid_request", "text.format.schema"),
        ({"temperature": "hot"}, "invalid_request", "temperature"),
        ({"instructions": 5}, "invalid_request", "instructions"),
    ],
)
def test_an_unreadable_request_is_refused(fields, code, param):
    with pytest.raises(Refusal) as refused:
        decode(**fields)
    assert (refused.value.kind.code, refused.value.param) == (code, param)


# --- for a provider


@pytest.mark.parametrize(
    ("messages", "items"),
    [
        ([user("Hi")], [{"type": "message", "role": "user", "content": "Hi"}]),
        ([user("")], [{"type": "message", "role": "user", "content": ""}]),
        (
            [
                user(
                    "Look",
                    ImagePart(data="AAAA", media_type="image/jpeg"),
                    ImagePart(url="https://x/y.png", detail="high"),
                    FilePart(data="JVBE", media_type="application/pdf", name="a.pdf"),
                    FilePart(data="eA==", media_type="text/plain"),
                    FilePart(url="https://x/a.pdf"),
                    FilePart(id="file-1"),
                )
            ],
            [
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "Look"},
                        {"type": "input_image", "image_url": "data:image/jpeg;base64,AAAA", "detail": "auto"},
                        {"type": "input_image", "image_url": "https://x/y.png", "detail": "high"},
                        {
                            "type": "input_file",
                            "filename": "a.pdf",
                            "file_data": "data:application/pdf;base64,JVBE",
                        },
                        {"type": "input_file", "filename": "file.txt", "file_data": "data:text/plain;base64,eA=="},
                        {"type": "input_file", "file_url": "https://x/a.pdf"},
                        {"type": "input_file", "file_id": "file-1"},
                    ],
                }
            ],
        ),
        (
            [
                said(
                    ThinkingPart("Hm", "openai:rs_1:gAAA"),
                    ThinkingPart("of another", "sig"),
                    "I ",
                    "look.",
                    ToolCall("c1", "w", ""),
                    ToolCall("c" * 65, "w", '{"a":1}'),
                    ThinkingPart("leads nowhere", "openai:rs_2:gBBB"),
                ),
                user(
                    "And?",
                    ToolResult("c1", [TextPart("sun"), TextPart("shine")]),
                    ToolResult("c" * 65, [TextPart("broken")], error=True),
                    ToolResult("c3", [TextPart("see"), ImagePart(url="https://x/y.png")]),
                ),
            ],
            [
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": "Hm"}],
                    "encrypted_content": "gAAA",
                },
                {"type": "message", "role": "assistant", "content": "I look."},
                {"type": "function_call", "call_id": "c1", "name": "w", "arguments": "{}"},
                {
                    "type": "function_call",
                    "call_id": "call_695687d9cd753a43f0bc8cbd2fbf64cf",
                    "name": "w",
                    "arguments": '{"a":1}',
                },
                {"type": "function_call_output", "call_id": "c1", "output": "sun\nshine"},
                {
                    "type": "function_call_output",
                    "call_id": "call_695687d9cd753a43f0bc8cbd2fbf64cf",
                    "output": "Error: broken",
                },
                {
                    "type": "function_call_output",
                    "call_id": "c3",
                    "output": [
                        {"type": "input_text", "text": "see"},
                        {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
                    ],
                },
                {"type": "message", "role": "user", "content": "And?"},
            ],
        ),
        (
            [user("x"), said(RefusalPart("No."), "Sorry."), said(""), said(ThinkingPart("Hm", "sig"))],
            [
                {"type": "message", "role": "user", "content": "x"},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "refusal", "refusal": "No."}, {"type": "output_text", "text": "Sorry."}],
                },
            ],
        ),
    ],
)
def test_messages_are_written(messages, items):
    body, ignored = encode(*messages)
    assert body["input"] == items
    assert ignored == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"stream": True}, {"stream": True}),
        ({"system": [TextPart("One."), TextPart(""), TextPart("Two.")]}, {"instructions": "One.\n\nTwo."}),
        (
            {"tools": [Tool("f"), Tool("g", "does g", SCHEMA, strict=True)], "parallel_tools": False},
            {
                "tools": [
                    {
                        "type": "function",
                        "name": "f",
                        "parameters": {"type": "object", "properties": {}},
                        "strict": False,
                    },
                    {
                        "type": "function",
                        "name": "g",
                        "description": "does g",
                        "parameters": SCHEMA,
                        "strict": True,
                    },
                ],
                "parallel_tool_calls": False,
            },
        ),
        ({"tool_choice": ToolChoice("required"), "parallel_tools": True}, {}),
        (
            {"format": OutputFormat(SCHEMA, "", "what", strict=True)},
            {
                "text": {
                    "format": {
                        "type": "json_schema",
                        "name": "answer",
                        "schema": SCHEMA,
                        "description": "what",
                        "strict": True,
                    }
                }
            },
        ),
        ({"max_tokens": 100}, {"max_output_tokens": 100}),
        ({"max_tokens": 5}, {"max_output_tokens": 16}),
        ({"temperature": 0.0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
        ({"logprobs": 0}, {"include": ["message.output_text.logprobs"]}),
        ({"logprobs": 3}, {"include": ["message.output_text.logprobs"], "top_logprobs": 3}),
        ({"effort": "none"}, {}),
        ({"effort": "low"}, {"reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"]}),
        (
            {"effort": "low", "show_thinking": True},
            {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
        ),
        (
            {"thinking_budget": 5000},
            {"reasoning": {"effort": "medium", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
        ),
        (
            {"thinking_budget": 5000, "show_thinking": False},
            {"reasoning": {"effort": "medium"}, "include": ["reasoning.encrypted_content"]},
        ),
        ({"thinking_budget": 0}, {}),
        (
            {"thinking_adaptive": True},
            {"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]},
        ),
        (
            {"user": "u", "metadata": {"a": "b"}, "service_tier": "standard_only"},
            {"user": "u", "metadata": {"a": "b"}, "service_tier": "default"},
        ),
    ],
)
def test_fields_are_written(fields, expected):
    body, ignored = encode(user("Hi"), **fields)
    message = {"type": "message", "role": "user", "content": "Hi"}
    assert body == {"model": "gpt-x", "input": [message], "store": False, **expected}
    assert ignored == []


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice("auto"), "auto"),
        (ToolChoice("none"), "none"),
        (ToolChoice("tool", "f"), {"type": "function", "name": "f"}),
    ],
)
def test_the_choice_of_tools_is_written(choice, expected):
    assert encode(user("Hi"), tools=[Tool("f")], tool_choice=choice)[0]["tool_choice"] == expected


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (
            {"top_k": 5, "seed": 1, "stop": ["x"], "presence_penalty": 0.5, "frequency_penalty": 0.5},
            ["top_k", "seed", "stop", "presence_penalty", "frequency_penalty"],
        ),
        ({"metadata": {"a": 1}, "service_tier": "turbo"}, ["metadata", "service_tier"]),
        ({"metadata": {str(number): "x" for number in range(17)}}, ["metadata"]),
        ({"system": [TextPart("x", {"type": "ephemeral"})]}, ["cache_control"]),
    ],
)
def test_fields_without_an_equivalent_are_named(fields, names):
    body, ignored = encode(user("Hi"), **fields)
    assert ignored == names
    assert not body.keys() & set(names)


def test_the_limit_is_at_most_that_of_the_model():
    assert encode(user("Hi"), destination=Destination("m", 20), max_tokens=100)[0]["max_output_tokens"] == 20


def test_json_mode_adds_the_word_json():
    asked = {"format": OutputFormat()}
    hint = {"type": "message", "role": "developer", "content": "Answer in JSON."}
    body, _ = encode(user("Hi"), system=[TextPart("Write JSON.")], **asked)
    assert body["input"][0] == hint
    assert body["text"] == {"format": {"type": "json_object"}}
    assert hint not in encode(user("As json, please"), **asked)[0]["input"]
    assert hint not in encode(user(ToolResult("c", [TextPart("JSON")])), **asked)[0]["input"]


def test_there_is_always_an_input():
    body, _ = encode(system=[TextPart("Begin.")])
    assert body["input"] == [{"type": "message", "role": "developer", "content": "Begin."}]
    assert "instructions" not in body


def test_encrypted_reasoning_is_asked_for_again():
    body, _ = encode(user("x"), said(ThinkingPart("", "openai::gAAA"), "y"), user("z"))
    assert body["input"][1] == {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
    assert body["include"] == ["reasoning.encrypted_content"]


def test_the_path_is_that_of_responses():
    assert api.path(Destination("m"), stream=True) == "/responses"


# --- round trips


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt("m", [user("Hi")]),
        Prompt(
            "m",
            [
                user("Hi", ImagePart(data="AAAA", media_type="image/png", detail="low")),
                said(ThinkingPart("Hm", "openai:rs_1:gAAA"), "Yes", ToolCall("c1", "f", '{"a":1}')),
                user(ToolResult("c1", [TextPart("42")])),
                said("Done", RefusalPart("but no more")),
                user("Read", FilePart(data="JVBE", media_type="application/pdf", name="a.pdf"), FilePart(id="file-1")),
            ],
            system=[TextPart("Be kind.")],
            stream=True,
            tools=[Tool("f", "does f", SCHEMA, strict=True)],
            tool_choice=ToolChoice("tool", "f"),
            parallel_tools=True,
            format=OutputFormat(SCHEMA, "answer", "what", strict=False),
            max_tokens=99,
            temperature=0.5,
            top_p=0.5,
            logprobs=2,
            effort="high",
            show_thinking=True,
            user="u",
            metadata={"a": "b"},
            service_tier="flex",
        ),
    ],
)
def test_fields_of_both_directions_survive_a_round_trip(prompt):
    body, ignored = api.encode_request(prompt, Destination("m"))
    assert ignored == []
    assert api.translation.decode_request(json.loads(json.dumps(body))) == prompt


@pytest.mark.parametrize("parts", [("sig", ""), ("", "enc"), ("openai:rs:g", ""), ("gemini:x", "")])
def test_encrypted_reasoning_survives_a_round_trip(parts):
    proof = signature.unpack("rs_other", signature.pack(*parts))
    assert (proof.signature, proof.redacted) == parts


@given(st.text())
def test_inputs_of_custom_tools_survive_a_round_trip(text):
    try:
        arguments = custom.arguments(text)
    except UnicodeEncodeError:  # a lone surrogate, which cannot be in a body
        return
    assert custom.input_of(arguments) == text
    assert all(custom.may_be(arguments[:end]) for end in range(len(arguments) + 1))


@pytest.mark.parametrize("arguments", ['{"a":1}', "{}", "[]", '{"custom_tool_inputs":"x"}', '"custom_tool_input"'])
def test_other_arguments_are_those_of_a_function(arguments):
    assert custom.input_of(arguments) is None
    assert not custom.may_be(arguments)
