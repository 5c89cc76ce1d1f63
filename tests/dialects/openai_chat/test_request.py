import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import completion_create_params
from pydantic import TypeAdapter

from extproc.dialects import client_apis
from extproc.dialects.openai_chat import provider_request
from extproc.dialects.openai_chat.schema import can_be_strict
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

CHAT = client_apis()["openai_chat"]
HELLO = {"role": "user", "content": "Hello"}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
MARK = {"type": "ephemeral"}
DATA = "data:image/png;base64,AAAA"
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def decode(*messages, **fields):
    return CHAT.translation.decode_request({"model": "m", "messages": list(messages) or [HELLO]} | fields)


def encode(*messages, more=(), destination=None, **fields):
    prompt = Prompt("theirs", list(messages) or [user("Hello")], **fields)
    return provider_request.encode(prompt, destination or Destination("m-1"), more)


def call(id="call_1", name="weather", arguments='{"city": "Rome"}', **fields):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}} | fields


def tool(id="call_1", content="22", **fields):
    return {"role": "tool", "tool_call_id": id, "content": content} | fields


# --- from a client

CONVERSATIONS = {
    "text": ([HELLO], [user("Hello")]),
    "text in parts": (
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        [user("a", "b")],
    ),
    "an image by address": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/a", "detail": "low"}}]}],
        [user(ImagePart(url="https://x/a", detail="low"))],
    ),
    "an image in the body": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": DATA}}]}],
        [user(ImagePart(data="AAAA", media_type="image/png"))],
    ),
    "a file in the body": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}}
                ],
            }
        ],
        [user(FilePart(data="AA", media_type="application/pdf", name="a.pdf"))],
    ),
    "a file without its type": (
        [{"role": "user", "content": [{"type": "file", "file": {"file_data": "AA", "filename": "a.CSV"}}]}],
        [user(FilePart(data="AA", media_type="text/csv", name="a.CSV"))],
    ),
    "a document without its type": (
        [{"role": "user", "content": [{"type": "file", "file": {"file_data": "AA", "filename": "a.docx"}}]}],
        [user(FilePart(data="AA", media_type=WORD, name="a.docx"))],
    ),
    "a file by id": (
        [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}],
        [user(FilePart(id="file-1"))],
    ),
    "a file by address": (
        [{"role": "user", "content": [{"type": "file", "file": {"file_id": "https://x/a.pdf"}}]}],
        [user(FilePart(url="https://x/a.pdf"))],
    ),
    "sound": (
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]}],
        [user(AudioPart("AA", "wav"))],
    ),
    "an answer": ([{"role": "assistant", "content": "Hi"}], [assistant("Hi")]),
    "an answer as the SDK dumps it": (
        [{"role": "assistant", "content": "Hi", "refusal": None, "audio": None, "function_call": None}],
        [assistant("Hi")],
    ),
    "a refusal": ([{"role": "assistant", "content": None, "refusal": "No"}], [assistant(RefusalPart("No"))]),
    "a refusal in parts": (
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]}],
        [assistant(RefusalPart("No"))],
    ),
    "parallel calls and their results, which are one turn": (
        [
            {"role": "assistant", "content": "", "tool_calls": [call(), call("call_2", arguments="{}")]},
            tool(),
            tool("call_2", [{"type": "text", "text": "23"}], name="weather"),
            HELLO,
        ],
        [
            assistant(ToolCall("call_1", "weather", '{"city": "Rome"}'), ToolCall("call_2", "weather", "{}")),
            user(ToolResult("call_1", [TextPart("22")]), ToolResult("call_2", [TextPart("23")], name="weather")),
            user("Hello"),
        ],
    ),
    "functions, the older way": (
        [
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "[]"}},
            {"role": "function", "name": "f", "content": "2"},
        ],
        [
            assistant(ToolCall("call_0", "f", "{}")),
            user(ToolResult("call_0", [TextPart("1")], name="f")),
            assistant(ToolCall("call_2", "f", "[]")),
            user(ToolResult("call_2", [TextPart("2")], name="f")),
        ],
    ),
    "thinking": (
        [{"role": "assistant", "content": "Hi", "reasoning_content": "hm"}],
        [assistant(ThinkingPart("hm"), "Hi")],
    ),
    "thinking with signatures": (
        [
            {
                "role": "assistant",
                "content": "Hi",
                "reasoning_content": "hm",
                "thinking_blocks": [
                    {"index": 0, "type": "thinking", "thinking": "hm", "signature": "S"},
                    {"type": "redacted_thinking", "data": "X"},
                ],
            }
        ],
        [assistant(ThinkingPart("hm", "S"), ThinkingPart(redacted="X"), "Hi")],
    ),
    "a thought signature": (
        [
            {
                "role": "assistant",
                "tool_calls": [call(extra_content={"google": {"thought_signature": "S"}})],
            }
        ],
        [assistant(ToolCall("call_1", "weather", '{"city": "Rome"}', "S"))],
    ),
    "cache marks": (
        [
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": MARK}]},
            {"role": "user", "content": "b", "cache_control": MARK},
            {"role": "user", "content": [{"type": "text", "text": "c"}], "cache_control": MARK},
            {"role": "assistant", "tool_calls": [call(cache_control=MARK)]},
            tool(cache_control=MARK),
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "d", "prompt_cache_breakpoint": {"mode": "explicit"}},
                    {"type": "text", "text": "e", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}},
                ],
            },
        ],
        [
            user(TextPart("a", MARK)),
            user(TextPart("b", MARK)),
            user(TextPart("c", MARK)),
            assistant(ToolCall("call_1", "weather", '{"city": "Rome"}', cache=MARK)),
            user(ToolResult("call_1", [TextPart("22")], cache=MARK)),
            user(TextPart("d", MARK), TextPart("e", {"type": "ephemeral", "ttl": "1h"})),
        ],
    ),
}


@pytest.mark.parametrize(("given", "expected"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_a_conversation_is_read(given, expected):
    assert decode(*given).messages == expected


def test_system_and_developer_prompts_keep_their_order():
    prompt = decode(
        {"role": "system", "content": "a"},
        HELLO,
        {"role": "developer", "content": [{"type": "text", "text": "b", "cache_control": MARK}]},
    )
    assert prompt.system == [TextPart("a"), TextPart("b", MARK)]
    assert prompt.messages == [user("Hello")]


SETTINGS = {
    "nothing": ({}, {}),
    "nulls": ({"max_tokens": None, "tools": None, "stop": None, "user": None, "store": None, "n": None}, {}),
    "a stream": ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
    "a limit": ({"max_completion_tokens": 5}, {"max_tokens": 5}),
    "the older limit": ({"max_tokens": 5}, {"max_tokens": 5}),
    "sampling": (
        {"temperature": 1, "top_p": 0.5, "top_k": 3, "seed": 7, "presence_penalty": 0.1, "frequency_penalty": -1},
        {"temperature": 1, "top_p": 0.5, "top_k": 3, "seed": 7, "presence_penalty": 0.1, "frequency_penalty": -1},
    ),
    "one stop word": ({"stop": "x"}, {"stop": ["x"]}),
    "stop words": ({"stop": ["x", "y", ""]}, {"stop": ["x", "y"]}),
    "several answers": ({"n": 3}, {"choices": 3}),
    "logprobs": ({"logprobs": True}, {"logprobs": 0}),
    "logprobs of alternatives": ({"logprobs": True, "top_logprobs": 4}, {"logprobs": 4}),
    "no logprobs": ({"logprobs": False, "top_logprobs": 0}, {}),
    "who asks": ({"user": "u"}, {"user": "u"}),
    "who asks, the newer way": ({"user": "u", "safety_identifier": "s"}, {"user": "s"}),
    "metadata": ({"metadata": {"a": "b"}}, {"metadata": {"a": "b"}}),
    "the tier": ({"service_tier": "flex"}, {"service_tier": "flex"}),
    "one call at a time": ({"parallel_tool_calls": False}, {"parallel_tools": False}),
    "text": ({"response_format": {"type": "text"}, "modalities": ["text"]}, {}),
    "JSON": ({"response_format": {"type": "json_object"}}, {"format": OutputFormat()}),
    "a schema": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "schema": SCHEMA, "strict": True},
            }
        },
        {"format": OutputFormat(SCHEMA, "n", "d", strict=True)},
    ),
    "effort": ({"reasoning_effort": "high"}, {"effort": "high"}),
    "the highest effort": ({"reasoning_effort": "max"}, {"effort": "xhigh"}),
    "an effort of next year's": ({"reasoning_effort": "ultra"}, {"ignored": ["reasoning_effort"]}),
    "a budget": ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"thinking_budget": 2000}),
    "no thinking": ({"thinking": {"type": "disabled"}}, {"thinking_budget": 0}),
    "as much thinking as it likes": ({"thinking": {"type": "adaptive"}}, {"thinking_adaptive": True}),
    "OpenRouter's settings": (
        {"reasoning": {"effort": "low", "max_tokens": 9, "exclude": True}},
        {"effort": "low", "thinking_budget": 9, "show_thinking": False},
    ),
    "tools": (
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True},
                    "cache_control": MARK,
                },
                {"type": "function", "function": {"name": "g"}},
            ]
        },
        {"tools": [Tool("f", "d", SCHEMA, strict=True, cache=MARK), Tool("g")]},
    ),
    "functions, the older way": (
        {"functions": [{"name": "f", "parameters": SCHEMA}], "function_call": {"name": "f"}},
        {
            "tools": [Tool("f", schema=SCHEMA)],
            "parallel_tools": False,
            "one_call": True,
            "tool_choice": ToolChoice("tool", "f"),
        },
    ),
    "no call, the older way": ({"function_call": "none"}, {"tool_choice": ToolChoice("none")}),
    "a call is due": ({"tool_choice": "required"}, {"tool_choice": ToolChoice("required")}),
    "a mode as an object": ({"tool_choice": {"type": "auto"}}, {"tool_choice": ToolChoice("auto")}),
    "one tool": (
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tool_choice": ToolChoice("tool", "f")},
    ),
    "some of the tools": (
        {
            "tools": [{"type": "function", "function": {"name": name}} for name in "fgh"],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": name}} for name in "hf"],
                },
            },
        },
        {"tools": [Tool("f"), Tool("h")], "tool_choice": ToolChoice("required")},
    ),
    "advice that the form cannot carry": (
        {"verbosity": "low", "prompt_cache_key": "k", "logit_bias": {"1": 2}, "store": True, "prediction": {}},
        {"ignored": ["logit_bias", "prediction", "prompt_cache_key", "store", "verbosity"]},
    ),
    "names that are no names": ({"a\r\nb": 1, "x" * 99: 1, "": 1}, {"ignored": ["other"]}),
}


@pytest.mark.parametrize(("given", "expected"), SETTINGS.values(), ids=SETTINGS)
def test_settings_are_read(given, expected):
    assert decode(**given) == Prompt("m", [user("Hello")], **expected)


def test_message_fields_that_are_not_translated_are_named():
    prompt = decode({"role": "user", "name": "Ada", "content": "x"}, tool(name="f"), {**HELLO, "weight": 1, "x": None})
    assert prompt.ignored == ["messages.name", "messages.weight"]


def test_the_number_of_ignored_names_is_bounded():
    assert len(decode(**{f"field{number}": 1 for number in range(1000)}).ignored) == 32


WRONG = {
    "an unknown role": ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    "no role": ({"messages": [{"content": "x"}]}, "messages[0]"),
    "a number for content": ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    "no content": ({"messages": [{"role": "user"}]}, "messages[0].content"),
    "a bare string among parts": ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
    "an unknown part": (
        {"messages": [HELLO, {"role": "user", "content": [{"type": "smell", "smell": 1}]}]},
        "messages[1].content[0]",
    ),
    "a part without what it is": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0]",
    ),
    "a data URL without base64": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:,x"}]}]},
        "messages[0].content[0]",
    ),
    "a user's refusal": (
        {"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}]},
        "messages[0].content[0]",
    ),
    "an image in the system prompt": (
        {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": DATA}]}]},
        "messages[0].content",
    ),
    "a result of nothing": ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    "a function that was not called": (
        {"messages": [{"role": "function", "name": "f", "content": "x"}]},
        "messages[0].name",
    ),
    "arguments as an object": (
        {"messages": [{"role": "assistant", "tool_calls": [call(arguments={})]}]},
        "messages[0].tool_calls[0].function.arguments",
    ),
    "no messages": ({"messages": []}, "messages"),
    "a temperature in words": ({"temperature": "hot"}, "temperature"),
    "true for a number": ({"seed": True}, "seed"),
    "too many answers": ({"n": 129}, "n"),
    "too many logprobs": ({"top_logprobs": 21}, "top_logprobs"),
    "stop numbers": ({"stop": [1]}, "stop[0]"),
    "a tool without a name": ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function"),
    "a tool that is empty": ({"tools": [{}]}, "tools[0]"),
    "an unknown choice of tools": ({"tool_choice": "all"}, "tool_choice"),
    "an unknown format": ({"response_format": {"type": "xml"}}, "response_format.type"),
    "a format without its schema": ({"response_format": {"type": "json_schema"}}, "response_format"),
    # Valid, but without a translation:
    "an answer in sound": ({"modalities": ["text", "audio"]}, "modalities"),
    "a search of the web": ({"web_search_options": {}}, "web_search_options"),
    "a custom tool": ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0]"),
    "a custom call": (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {}}]}]},
        "messages[0].tool_calls[0]",
    ),
    "an earlier answer in sound": (
        {"messages": [{"role": "assistant", "audio": {"id": "a"}}]},
        "messages[0].audio",
    ),
}


@pytest.mark.parametrize(("fields", "param"), WRONG.values(), ids=WRONG)
def test_an_invalid_field_is_named(fields, param):
    with pytest.raises(Refusal) as refused:
        decode(**fields)
    assert (refused.value.kind.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"n": 2}, {"choices": "n"}),
        ({"n": 1, "logprobs": False, "modalities": ["text"]}, {}),
        ({"logprobs": True}, {"logprobs": "logprobs"}),
        ({"modalities": ["text", "audio"]}, {"audio": "modalities"}),
        ({"modalities": "audio", "logprobs": "true"}, {}),
    ],
)
def test_the_needs_of_a_translation_are_found(fields, needs):
    assert CHAT.read({"model": "m", "messages": [HELLO]} | fields).needs == needs


# --- for a provider

TOLD = {
    "text": ([user("Hello")], [HELLO]),
    "texts and empty ones": (
        [user("a", "", "b")],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    ),
    "nothing": ([user(), user("")], [{"role": "user", "content": ""}] * 2),
    "images": (
        [user(ImagePart("AAAA", "image/png", detail="low"), ImagePart(url="https://x/a", detail="fine"))],
        [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": DATA, "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://x/a"}},
                ],
            }
        ],
    ),
    "files": (
        [
            user(
                FilePart("AA", "application/pdf"),
                FilePart(id="file-1"),
                FilePart("SGk=", "text/plain", name="a.txt"),
            )
        ],
        [
            {
                "role": "user",
                "content": [
                    {
                        "type": "file",
                        "file": {"filename": "file.pdf", "file_data": "data:application/pdf;base64,AA"},
                    },
                    {"type": "file", "file": {"file_id": "file-1"}},
                    {"type": "text", "text": "a.txt:\nHi"},
                ],
            }
        ],
    ),
    "sound": (
        [user(AudioPart("AA", "mp3"))],
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "mp3"}}]}],
    ),
    "calls and results, results first": (
        [
            assistant("Wait", ToolCall("call_1", "weather", '{"city": "Rome"}'), ToolCall("call_2", "f", "")),
            user(
                "And now?",
                ToolResult("call_1", [TextPart("22"), TextPart("C")]),
                ToolResult("call_2", [TextPart("broken")], error=True),
            ),
        ],
        [
            {"role": "assistant", "content": "Wait", "tool_calls": [call(), call("call_2", "f", "{}")]},
            tool("call_1", "22\nC"),
            tool("call_2", "Error: broken"),
            {"role": "user", "content": "And now?"},
        ],
    ),
    "an image from a tool, after all results": (
        [user(ToolResult("1", [ImagePart("AAAA", "image/png")]), ToolResult("2", [TextPart("x")]))],
        [
            tool("1", ""),
            tool("2", "x"),
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What came with the result of 1:"},
                    {"type": "image_url", "image_url": {"url": DATA}},
                ],
            },
        ],
    ),
    "a call without words": (
        [assistant(ToolCall("call_1", "weather", '{"city": "Rome"}', "S"))],
        [{"role": "assistant", "content": None, "tool_calls": [call()]}],
    ),
    "refusals": (
        [assistant(RefusalPart("No")), assistant("Well", RefusalPart("No"))],
        [
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
            {"role": "assistant", "content": "Well", "refusal": "No"},
        ],
    ),
    "thinking, which is not its own": (
        [assistant(ThinkingPart("hm", "S"), "Hi"), assistant(ThinkingPart(redacted="X"))],
        [{"role": "assistant", "content": "Hi"}],
    ),
}


@pytest.mark.parametrize(("given", "expected"), TOLD.values(), ids=TOLD)
def test_a_conversation_is_written(given, expected):
    body, ignored = encode(*given)
    assert body == {"model": "m-1", "messages": expected}
    assert ignored == []


SAID = {
    "nothing": ({}, {}, []),
    "a stream with its usage": ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}, []),
    "sampling": (
        {
            "temperature": 0.0,
            "top_p": 0.5,
            "seed": 0,
            "presence_penalty": 0.1,
            "frequency_penalty": -1.0,
            "stop": ["x"],
        },
        {
            "temperature": 0.0,
            "top_p": 0.5,
            "seed": 0,
            "presence_penalty": 0.1,
            "frequency_penalty": -1.0,
            "stop": ["x"],
        },
        [],
    ),
    "several answers": ({"choices": 3}, {"n": 3}, []),
    "logprobs": ({"logprobs": 0}, {"logprobs": True}, []),
    "logprobs of alternatives": ({"logprobs": 2}, {"logprobs": True, "top_logprobs": 2}, []),
    "effort": ({"effort": "minimal", "thinking_budget": 9}, {"reasoning_effort": "low"}, []),
    "a budget": ({"thinking_budget": 10_000}, {"reasoning_effort": "high"}, []),
    "no thinking": ({"thinking_budget": 0}, {}, []),
    "as much thinking as it likes": ({"thinking_adaptive": True}, {}, []),
    "who asks": ({"user": "u"}, {"user": "u"}, []),
    "a tier": ({"service_tier": "flex"}, {"service_tier": "flex"}, []),
    "another API's tier": ({"service_tier": "standard_only"}, {"service_tier": "default"}, []),
    "advice it has no words for": (
        {"service_tier": "express", "top_k": 4, "metadata": {"a": "b"}, "show_thinking": True},
        {},
        ["top_k", "service_tier", "metadata", "show_thinking"],
    ),
    "a schema": (
        {"format": OutputFormat(SCHEMA, "n", "d", strict=False)},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "schema": SCHEMA, "strict": False},
            }
        },
        [],
    ),
    "a schema without a name": (
        {"format": OutputFormat(SCHEMA)},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}},
        [],
    ),
    "tools": (
        {
            "tools": [Tool("f", "d", SCHEMA, strict=True), Tool("g")],
            "tool_choice": ToolChoice("tool", "f"),
            "parallel_tools": False,
        },
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True},
                },
                {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
            ],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": False,
        },
        [],
    ),
    "choices among no tools": ({"tool_choice": ToolChoice("auto"), "parallel_tools": True}, {}, []),
    "cache marks": ({"tools": []} | {"system": [TextPart("a", MARK)]}, {"messages": None}, ["cache_control"]),
}


@pytest.mark.parametrize(("given", "expected", "left_out"), SAID.values(), ids=SAID)
def test_settings_are_written(given, expected, left_out):
    body, ignored = encode(**given)
    del body["model"], body["messages"]
    expected.pop("messages", None)
    assert (body, ignored) == (expected, left_out)


@pytest.mark.parametrize(("wanted", "most", "told"), [(None, 5, None), (3, 5, 3), (9, 5, 5), (9, None, 9)])
def test_the_limit_is_at_most_that_of_the_model(wanted, most, told):
    body, _ = encode(max_tokens=wanted, destination=Destination("m", most))
    assert body.get("max_completion_tokens") == told


def test_system_prompts_are_one_text():
    body, _ = encode(system=[TextPart("a"), TextPart(""), TextPart("b")])
    assert body["messages"][0] == {"role": "system", "content": "a\n\nb"}
    assert encode(system=[TextPart("")])[0]["messages"] == [HELLO]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, [{"role": "system", "content": "Answer in JSON."}, HELLO]),
        ({"system": [TextPart("Be brief")]}, [{"role": "system", "content": "Be brief\n\nAnswer in JSON."}, HELLO]),
        ({"system": [TextPart("Use Json")]}, [{"role": "system", "content": "Use Json"}, HELLO]),
    ],
)
def test_the_word_json_is_added_where_openai_requires_it(fields, said):
    assert encode(format=OutputFormat(), **fields)[0]["messages"] == said
    assert encode(user("json?", ImagePart(url="https://x")), format=OutputFormat())[0]["messages"][0]["role"] == "user"


def test_a_file_given_by_url_is_refused_with_the_remedy():
    with pytest.raises(Refusal, match="base64") as refused:
        encode(user(FilePart(url="https://x/a.pdf")))
    assert refused.value.kind.code == "unsupported_by_targets"


def test_long_call_ids_are_shortened_alike():
    body, _ = encode(assistant(ToolCall("x" * 64, "f", "{}")), user(ToolResult("x" * 64, [TextPart("1")])))
    asked, answered = body["messages"]
    assert asked["tool_calls"][0]["id"] == answered["tool_call_id"]
    assert len(answered["tool_call_id"]) <= 40


def test_providers_with_more_fields_get_them():
    body, ignored = encode(
        user(TextPart("a", MARK), ImagePart(url="https://x", cache=MARK)),
        assistant(
            ThinkingPart("hm", "S"),
            ThinkingPart(redacted="X"),
            TextPart("b", MARK),
            ToolCall("1", "f", "{}", "T", MARK),
        ),
        user(ToolResult("1", [TextPart("c")], cache=MARK)),
        assistant(ThinkingPart("so"), "d"),
        more={"thinking", "cache_control", "top_k"},
        system=[TextPart("s", MARK)],
        tools=[Tool("f", schema=SCHEMA, cache=MARK)],
        top_k=4,
    )
    assert ignored == []
    assert body == {
        "model": "m-1",
        "top_k": 4,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}, "cache_control": MARK}],
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "s", "cache_control": MARK}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "cache_control": MARK},
                    {"type": "image_url", "image_url": {"url": "https://x"}, "cache_control": MARK},
                ],
            },
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "b", "cache_control": MARK}],
                "reasoning_content": "hm",
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "hm", "signature": "S"},
                    {"type": "redacted_thinking", "data": "X"},
                ],
                "tool_calls": [
                    call("1", "f", "{}", extra_content={"google": {"thought_signature": "T"}}, cache_control=MARK)
                ],
            },
            tool("1", [{"type": "text", "text": "c", "cache_control": MARK}]),
            {"role": "assistant", "content": "d", "reasoning_content": "so"},
        ],
    }


# --- both directions

MORE = {"thinking", "cache_control", "top_k"}
TEXT = st.text(min_size=1, max_size=8)
MARKS = st.sampled_from([None, MARK])
IMAGES = st.builds(ImagePart, data=st.just("AAAA"), media_type=st.just("image/png"), cache=MARKS) | st.builds(
    ImagePart, url=st.just("https://x/a"), detail=st.sampled_from(["", "low"]), cache=MARKS
)
FILES = st.builds(FilePart, data=st.just("AA"), media_type=st.just("application/pdf"), name=TEXT, cache=MARKS)
TEXTS = st.builds(TextPart, TEXT, MARKS)
USERS = st.lists(TEXTS | IMAGES | FILES | st.builds(AudioPart, TEXT, st.just("wav")), min_size=1, max_size=3)
CALLS = st.builds(
    ToolCall, st.uuids().map(lambda made: f"c{made.hex}"), TEXT, st.just("{}"), st.sampled_from(["", "S"])
)
THOUGHTS = st.lists(st.builds(ThinkingPart, TEXT, TEXT), max_size=2) | st.lists(
    st.builds(ThinkingPart, redacted=TEXT), max_size=1
)


@st.composite
def conversations(draw):
    messages = []
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message("user", draw(USERS)))
        parts = [*draw(THOUGHTS), *draw(st.lists(TEXTS.map(lambda part: TextPart(part.text)), max_size=1))]
        calls = draw(st.lists(CALLS, max_size=2))
        if parts or calls:
            messages.append(Message("assistant", [*parts, *calls]))
        if calls:
            messages.append(
                Message("user", [ToolResult(call.id, [TextPart(draw(TEXT))], cache=draw(MARKS)) for call in calls])
            )
    return messages


PROMPTS = st.builds(
    Prompt,
    st.just("m"),
    conversations(),
    system=st.lists(TEXTS, max_size=1),
    tools=st.just([Tool("f", schema=SCHEMA)]),
    tool_choice=st.sampled_from([None, ToolChoice("required"), ToolChoice("tool", "f")]),
    max_tokens=st.none() | st.integers(1, 10**9),
    temperature=st.none() | st.floats(0, 2),
    stop=st.lists(TEXT, max_size=2),
    stream=st.booleans(),
)


@given(PROMPTS)
def test_a_written_request_reads_as_the_original(prompt):
    body, ignored = provider_request.encode(prompt, Destination("m"), MORE)
    assert ignored == []
    read = CHAT.translation.decode_request(json.loads(json.dumps(body)))
    for message in read.messages:
        for part in message.parts:
            if isinstance(part, ToolResult) and part.cache is None:
                part.cache = part.parts[0].cache  # a mark on a result is written to its only part
                part.parts[0].cache = None
    assert read == prompt


REQUESTS = TypeAdapter(completion_create_params.CompletionCreateParamsNonStreaming)


@pytest.mark.parametrize("given", [given for given, _ in TOLD.values()], ids=TOLD)
def test_openais_types_accept_the_written_request(given):
    body, _ = encode(
        *given,
        system=[TextPart("s")],
        tools=[Tool("f", "d", SCHEMA, strict=True)],
        tool_choice=ToolChoice("tool", "f"),
        format=OutputFormat(SCHEMA),
        temperature=0.5,
        max_tokens=5,
        stop=["x"],
        thinking_budget=4000,
        service_tier="flex",
    )
    read_all(REQUESTS.validate_python(body))


def read_all(value):
    """The value with every Iterable read, because pydantic checks them only then."""
    for item in value.values() if isinstance(value, dict) else value:
        if not isinstance(item, str | int | float | None):
            read_all(item)


OPEN = {key: value for key, value in SCHEMA.items() if key != "additionalProperties"}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (SCHEMA, True),
        ({"type": "object", "properties": {}, "additionalProperties": False}, True),
        ({}, False),
        (OPEN, False),
        ({**SCHEMA, "required": []}, False),
        ({**SCHEMA, "required": None}, False),
        ({**SCHEMA, "properties": {"city": {"type": "array", "items": OPEN}}}, False),
        ({**SCHEMA, "properties": {"city": {"anyOf": [{"type": "null"}, OPEN]}}}, False),
        ({**SCHEMA, "$defs": {"city": OPEN}}, False),
        ({**SCHEMA, "$defs": [OPEN], "properties": {"city": True}}, True),
    ],
)
def test_tools_are_strict_only_where_openai_supports_their_schema(schema, strict):
    assert can_be_strict(schema) is strict
