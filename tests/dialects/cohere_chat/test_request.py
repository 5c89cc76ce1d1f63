"""A conversation as a request of Cohere's chat."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.dialects import client_apis
from extproc.dialects import cohere_chat as api
from extproc.dialects._models import cohere_reasons as reasons
from extproc.words.dialect import Destination
from extproc.words.errors import INVALID_REQUEST, UNSUPPORTED_BY_TARGETS, Refusal
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
from tests.dialects.neutral import assistant, user, written

PLAIN, THINKS = "command-a-03-2025", "command-a-reasoning-08-2025"
MARK = {"type": "ephemeral"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def encode(prompt, model=PLAIN, most=None):
    return written(api, prompt, model, most)


def messages(*said, model=PLAIN, system=()):
    body, ignored = encode(Prompt("m", list(said), system=list(system)), model)
    assert ignored == []
    return body["messages"]


def settings(model=PLAIN, most=None, **fields):
    body, ignored = encode(Prompt("m", [user("hello")], **fields), model, most)
    assert body.pop("messages") == [{"role": "user", "content": "hello"}]
    assert body.pop("model") == model
    assert body.pop("stream") is False
    return body, ignored


def refused(kind, prompt, model=PLAIN):
    with pytest.raises(Refusal) as caught:
        encode(prompt, model)
    assert caught.value.kind is kind
    return caught.value


def test_the_smallest_request_is_written():
    assert encode(Prompt("m", [user("hello")])) == (
        {"model": PLAIN, "messages": [{"role": "user", "content": "hello"}], "stream": False},
        [],
    )
    assert encode(Prompt("m", [user("hello")], stream=True))[0]["stream"] is True


def test_the_path_is_that_of_chat():
    assert api.path(Destination("m"), stream=False) == api.path(Destination("m"), stream=True) == "/chat"
    assert not hasattr(api, "endpoints"), "no client speaks it"
    assert api.able.lacks == {"files", "audio", "choices"}


# --- messages


def test_one_system_message_comes_first():
    system = [TextPart("be brief"), TextPart(""), TextPart("be kind")]
    assert messages(user("hello"), system=system) == [
        {"role": "system", "content": "be brief\n\nbe kind"},
        {"role": "user", "content": "hello"},
    ]


@pytest.mark.parametrize(
    ("system", "said", "text"),
    [([TextPart("be brief")], [], "be brief"), ([], [user("")], " "), ([], [assistant(ThinkingPart("hm"))], " ")],
)
def test_there_is_always_a_user_message(system, said, text):
    assert messages(*said, system=system) == [{"role": "user", "content": text}]


def test_empty_texts_are_left_out():
    assert messages(user("a", "", "b"), assistant("c", "", RefusalPart("no")), assistant(""), user(""), user("d")) == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "cno"},
        {"role": "user", "content": "d"},
    ]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (ImagePart(data="QQ==", media_type="image/webp"), {"url": "data:image/webp;base64,QQ=="}),
        (ImagePart(data="QQ=="), {"url": "data:image/png;base64,QQ=="}),
        (ImagePart(url="https://x.test/a.png", detail="low"), {"url": "https://x.test/a.png", "detail": "low"}),
        (ImagePart(url="https://x.test/a.png", detail="original"), {"url": "https://x.test/a.png"}),
    ],
)
def test_images_are_written(image, expected):
    [said] = messages(user("look", image))
    assert said["content"] == [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": expected}]


@pytest.mark.parametrize(
    "part", [ImagePart(url="gs://b/a.png"), ImagePart(), FilePart(data="QQ=="), AudioPart("QQ==", "wav")]
)
def test_unsupported_media_are_refused(part):
    for said in (user(part), user(ToolResult("1", [part]))):
        assert refused(UNSUPPORTED_BY_TARGETS, Prompt("m", [said])).param == "messages"


# --- tool calls and their results


def test_calls_are_written_with_a_plan():
    call = ToolCall("1", "weather", '{"city": "Rome"}')
    assert messages(
        user("?"), assistant(ThinkingPart("hm", "sig"), "I will look.", call, ToolCall("2", "now", ""))
    ) == [
        {"role": "user", "content": "?"},
        {
            "role": "assistant",
            "tool_plan": "hm\n\nI will look.",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
                {"id": "2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
            ],
        },
    ]


def test_models_that_think_get_their_thinking_back():
    call = ToolCall("1", "now", "{}")
    thinking = {"type": "thinking", "thinking": "hm"}
    first, second, third = messages(
        assistant(ThinkingPart("hm"), ThinkingPart(redacted="x"), "Look.", call),
        assistant(ThinkingPart("hm"), "It is late."),
        assistant("Bye."),
        model=THINKS,
    )
    assert (first["content"], first["tool_plan"]) == ([thinking], "Look.")
    assert second == {"role": "assistant", "content": [thinking, {"type": "text", "text": "It is late."}]}
    assert third == {"role": "assistant", "content": "Bye."}
    assert messages(assistant(ThinkingPart("hm"), "It is late.")) == [{"role": "assistant", "content": "It is late."}]


@pytest.mark.parametrize(
    ("text", "error", "data"),
    [
        ('{"degrees": 22}', False, {"degrees": 22}),
        (' {"degrees": 22}', False, {"degrees": 22}),
        ("22", False, {"output": "22"}),
        ("[1]", False, {"output": "[1]"}),
        ("", False, {"output": ""}),
        ("{}", False, {"output": "{}"}),
        ("{broken", False, {"output": "{broken"}),
        ("{" * 100_000, False, {"output": "{" * 100_000}),
        ("no such city", True, {"error": "no such city"}),
        ('{"degrees": 22}', True, {"error": '{"degrees": 22}'}),
    ],
)
def test_results_are_documents(text, error, data):
    assert messages(user(ToolResult("1", [TextPart(text)], error))) == [
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "document", "document": {"data": data}}]}
    ]


def test_each_result_is_a_message_and_results_come_first():
    picture = ImagePart(data="QQ==")
    results = ToolResult("1", [TextPart("a"), picture, TextPart("b")]), ToolResult("2", [])
    first, second, rest = messages(user("so", *results))
    assert [first["tool_call_id"], second["tool_call_id"]] == ["1", "2"]
    assert [part["document"]["data"] for part in first["content"]] == [{"output": "a"}, {"output": "b"}]
    assert [part["document"]["data"] for part in second["content"]] == [{"output": ""}]
    assert rest == {
        "role": "user",
        "content": [
            {"type": "text", "text": "What came with the result of 1:"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}},
            {"type": "text", "text": "so"},
        ],
    }


# --- tools and formats


def tool(name="weather", schema=SCHEMA, **fields):
    return Tool(name, schema=schema, **fields)


def test_tools_are_written():
    body, ignored = settings(tools=[tool(description="tells it"), tool("now", {})])
    assert body == {
        "tools": [
            {"type": "function", "function": {"name": "weather", "description": "tells it", "parameters": SCHEMA}},
            {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
        ]
    }
    assert ignored == []


@pytest.mark.parametrize(
    ("choice", "expected", "names"),
    [
        (None, None, ["weather", "now"]),
        (ToolChoice(), None, ["weather", "now"]),
        (ToolChoice("none"), "NONE", ["weather", "now"]),
        (ToolChoice("required"), "REQUIRED", ["weather", "now"]),
        (ToolChoice("tool", "now"), "REQUIRED", ["now"]),
    ],
)
def test_the_choice_of_tools_is_written(choice, expected, names):
    body, _ = settings(tools=[tool(), tool("now")], tool_choice=choice)
    assert body.get("tool_choice") == expected
    assert [given["function"]["name"] for given in body["tools"]] == names


def test_a_choice_of_no_tool_is_written():
    prompt = Prompt("m", [user("?")], tools=[tool()], tool_choice=ToolChoice("tool", "now"))
    assert refused(INVALID_REQUEST, prompt).param == "tool_choice"
    assert settings(tool_choice=ToolChoice("required")) == ({}, [])


@pytest.mark.parametrize(
    ("tools", "strict", "ignored"),
    [
        ([tool(strict=True)], True, []),
        ([tool(strict=True), tool("now", {}, strict=True)], True, []),
        ([tool(strict=True), tool("now")], None, ["strict"]),
        ([tool(strict=True, schema={"properties": {"a": {}}})], None, ["strict"]),
        ([tool(strict=False)], None, []),
    ],
)
def test_strict_tools_are_written(tools, strict, ignored):
    body, left_out = settings(tools=tools)
    assert (body.get("strict_tools"), left_out) == (strict, ignored)


def test_the_format_of_the_answer_is_written():
    assert settings(format=OutputFormat(SCHEMA, "city", strict=True)) == (
        {"response_format": {"type": "json_object", "json_schema": SCHEMA}},
        [],
    )


@pytest.mark.parametrize(
    ("system", "said", "rules"),
    [
        ([], [user("As JSON, please")], None),
        ([], [user("As json", ImagePart(data="QQ=="))], None),
        ([TextPart("Say JSON")], [user("hello")], "Say JSON"),
        ([TextPart("be brief")], [user("hello")], "be brief\n\nAnswer in JSON."),
        ([], [user("a", "b"), assistant(ToolCall("1", "f", "{}")), user(ToolResult("1", []))], "Answer in JSON."),
    ],
)
def test_json_without_a_schema_is_asked_for_in_words(system, said, rules):
    body, _ = encode(Prompt("m", said, system=system, format=OutputFormat()))
    assert body["response_format"] == {"type": "json_object"}
    found = [message["content"] for message in body["messages"] if message["role"] == "system"]
    assert found == ([rules] if rules else [])


def test_a_format_beside_tools_is_refused():
    prompt = Prompt("m", [user("?")], tools=[tool()], format=OutputFormat(SCHEMA))
    assert refused(UNSUPPORTED_BY_TARGETS, prompt).param == "response_format"
    prompt.tool_choice = ToolChoice("none")
    body, _ = encode(prompt)
    assert "tools" not in body
    assert "tool_choice" not in body


# --- sampling


@pytest.mark.parametrize(
    ("fields", "expected", "ignored"),
    [
        ({"temperature": 0.4}, {"temperature": 0.4}, []),
        ({"temperature": 1.7}, {"temperature": 1.0}, ["temperature"]),
        ({"top_p": 0.5}, {"p": 0.5}, []),
        ({"top_p": 1.0}, {"p": 0.99}, []),
        ({"top_p": 0}, {"p": 0.01}, []),
        ({"top_k": 40}, {"k": 40}, []),
        ({"top_k": 1000}, {"k": 500}, []),
        ({"top_k": -1}, {}, []),
        ({"seed": 7}, {"seed": 7}, []),
        ({"seed": -7}, {}, ["seed"]),
        ({"stop": ["a", "", "b"]}, {"stop_sequences": ["a", "b"]}, []),
        ({"stop": list("abcdef")}, {"stop_sequences": list("abcde")}, ["stop"]),
        ({"presence_penalty": 0.5}, {"presence_penalty": 0.5}, []),
        ({"presence_penalty": 0.0, "frequency_penalty": 0.5}, {"frequency_penalty": 0.5}, []),
        ({"presence_penalty": 0.2, "frequency_penalty": 0.5}, {"frequency_penalty": 0.5}, ["presence_penalty"]),
        ({"presence_penalty": -1.0}, {}, ["presence_penalty"]),
        ({"frequency_penalty": 1.5}, {"frequency_penalty": 1.0}, ["frequency_penalty"]),
        ({"max_tokens": 10}, {"max_tokens": 10}, []),
        ({"logprobs": 0}, {"logprobs": True}, []),
        ({"logprobs": 3}, {"logprobs": True}, ["top_logprobs"]),
        ({"user": "u", "metadata": {"a": "b"}}, {}, ["user", "metadata"]),
        ({"service_tier": "auto"}, {}, []),
        ({"service_tier": "flex"}, {}, ["service_tier"]),
        ({"tools": [tool()], "parallel_tools": True}, None, []),
        ({"tools": [tool()], "parallel_tools": False}, None, ["parallel_tool_calls"]),
    ],
)
def test_settings_are_written(fields, expected, ignored):
    body, left_out = settings(**fields)
    assert left_out == ignored
    assert expected is None or body == expected


def test_the_limit_is_at_most_that_of_the_model():
    assert settings(max_tokens=9000, most=4096)[0] == {"max_tokens": 4096}


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt("m", [user(TextPart("a", MARK))]),
        Prompt("m", [user("a")], system=[TextPart("b", MARK)]),
        Prompt("m", [user("a")], tools=[tool(cache=MARK)]),
        Prompt("m", [user(ToolResult("1", [], cache=MARK))]),
    ],
)
def test_cache_marks_are_left_out(prompt):
    body, ignored = encode(prompt)
    assert ignored == ["cache_control"]
    assert "ephemeral" not in json.dumps(body)


# --- thinking


def enabled(budget=None):
    return {"thinking": {"type": "enabled"} | ({"token_budget": budget} if budget else {})}


OFF = {"thinking": {"type": "disabled"}}


@pytest.mark.parametrize(
    ("fields", "most", "expected"),
    [
        ({}, 32000, {}),
        ({"effort": "none"}, None, OFF),
        ({"thinking_budget": 0}, None, OFF),
        ({"effort": "low"}, None, enabled(2048)),
        ({"effort": "high"}, None, enabled(16384)),
        ({"effort": "xhigh"}, 32000, enabled()),
        ({"thinking_adaptive": True}, None, enabled()),
        ({"thinking_budget": 5000}, None, enabled(5000)),
        ({"thinking_budget": 5000, "effort": "low"}, None, enabled(5000)),
        ({"thinking_budget": 5000, "max_tokens": 9000}, None, enabled(5000) | {"max_tokens": 9000}),
        ({"thinking_budget": 5000, "max_tokens": 5500}, None, enabled(5000) | {"max_tokens": 5500}),
        ({"thinking_budget": 5000, "max_tokens": 4000}, None, enabled(5000) | {"max_tokens": 9000}),
        ({"thinking_budget": 40000, "max_tokens": 4000}, 32000, enabled(31000) | {"max_tokens": 32000}),
        ({"thinking_budget": 40000}, 32000, enabled(31000)),
        ({"thinking_budget": 40000}, 1000, enabled(500)),
        ({"thinking_budget": 1, "max_tokens": 1}, 1, enabled(1) | {"max_tokens": 1}),
    ],
)
def test_thinking_is_written(fields, most, expected):
    assert settings(THINKS, most, **fields) == (expected, [])


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"effort": "none"}, []),
        ({"thinking_budget": 0}, []),
        ({"effort": "low"}, ["reasoning_effort"]),
        ({"effort": "xhigh"}, ["reasoning_effort"]),
        ({"thinking_budget": 5000}, ["thinking"]),
        ({"thinking_adaptive": True}, ["thinking"]),
        ({"show_thinking": False}, []),
    ],
)
def test_models_that_do_not_think_get_no_thinking_setting(fields, ignored):
    assert settings(**fields) == ({}, ignored)


def test_thinking_is_always_shown():
    assert settings(THINKS, show_thinking=True)[1] == []
    assert settings(THINKS, show_thinking=False)[1] == ["show_thinking"]
    assert settings(THINKS, effort="none", show_thinking=False)[1] == []


@pytest.mark.parametrize(
    ("model", "thinks"),
    [
        ("command-a-reasoning-08-2025", True),
        ("command-a-plus-05-2026", True),
        ("north-mini-code-1-0", True),
        ("command-a-03-2025", False),
        ("command-a-vision-07-2025", False),
        ("command-r-plus-08-2024", False),
        ("command-r7b-12-2024", False),
        ("command-r", False),
        ("cohere/Command-R", False),
        ("c4ai-aya-expanse-32b", False),
    ],
)
def test_models_that_think_are_recognised(model, thinks):
    assert reasons(model) is thinks


# --- any conversation

WORDS = st.sampled_from(["", "a", '{"a": 1}', "{", "JSON"])
MARKS = st.none() | st.just(MARK)
TEXTS = st.builds(TextPart, WORDS, MARKS)
IMAGES = st.builds(ImagePart, data=st.sampled_from(["", "QQ=="]), url=st.sampled_from(["", "https://x", "gs://x"]))
FILES = st.builds(FilePart, data=st.sampled_from(["", "QQ=="]))
PARTS = st.one_of(
    TEXTS,
    IMAGES,
    FILES,
    st.builds(ThinkingPart, WORDS, WORDS, WORDS),
    st.builds(RefusalPart, WORDS),
    st.builds(ToolCall, WORDS, WORDS, WORDS, WORDS),
    st.builds(ToolResult, WORDS, st.lists(TEXTS | IMAGES | FILES, max_size=2), st.booleans()),
)
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), st.lists(PARTS, max_size=4)), max_size=4)
LIMITS = st.none() | st.integers(1, 50_000)
NUMBERS = st.none() | st.floats(-3, 3)
PROMPTS = st.builds(
    Prompt,
    st.just("m"),
    MESSAGES,
    system=st.lists(TEXTS, max_size=2),
    tools=st.lists(st.builds(Tool, WORDS, WORDS, st.just(SCHEMA) | st.just({}), st.none() | st.booleans()), max_size=2),
    tool_choice=st.none() | st.builds(ToolChoice, st.sampled_from(["auto", "none", "required", "tool"]), WORDS),
    format=st.none() | st.builds(OutputFormat, st.none() | st.just(SCHEMA)),
    max_tokens=LIMITS,
    temperature=NUMBERS,
    top_p=NUMBERS,
    presence_penalty=NUMBERS,
    frequency_penalty=NUMBERS,
    seed=st.none() | st.integers(),
    effort=st.none() | st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh"]),
    thinking_budget=st.none() | st.integers(0, 50_000),
    thinking_adaptive=st.booleans(),
)


@given(PROMPTS, st.sampled_from([PLAIN, THINKS]), LIMITS)
def test_any_request_is_well_formed(prompt, model, most):
    try:
        body, _ = encode(prompt, model, most)
    except Refusal:
        return
    roles = [message["role"] for message in body["messages"]]
    assert "system" not in roles[1:]
    assert set(roles) - {"system"}
    assert all(message.get("content") or message.get("tool_calls") for message in body["messages"])
    assert not ("tools" in body and "response_format" in body)
    assert not ("frequency_penalty" in body and "presence_penalty" in body)
    limit, budget = body.get("max_tokens"), body.get("thinking", {}).get("token_budget")
    assert limit is None or most is None or limit <= most
    assert budget is None or budget >= 1
    ceiling = min((bound for bound in (limit, most) if bound is not None), default=None)
    assert budget is None or ceiling is None or budget < ceiling or ceiling == 1


@given(MESSAGES)
def test_a_conversation_of_another_client_is_written(said):
    """It comes from chat completions, as a client would write the same conversation."""
    chat = client_apis()["openai_chat"]
    try:
        written, _ = chat.encode_request(Prompt("m", said), Destination("m"))
        encode(chat.translation.decode_request(json.loads(json.dumps(written))))
    except Refusal:
        return


# --- the official SDK


@pytest.mark.parametrize("model", [PLAIN, THINKS])
def test_the_sdk_reads_the_request(model):
    types = pytest.importorskip("cohere.types")
    body, _ = encode(
        Prompt(
            "m",
            [
                user("hello", ImagePart(data="QQ=="), ImagePart(url="https://x.test/a.png", detail="low")),
                assistant(ThinkingPart("hm"), "look", ToolCall("1", "weather", '{"city": "Rome"}')),
                user(ToolResult("1", [TextPart('{"degrees": 22}'), TextPart("sun")])),
                assistant(ThinkingPart("hm"), "warm"),
                user("bye"),
            ],
            system=[TextPart("be brief")],
            tools=[tool(description="tells it", strict=True)],
        ),
        model,
    )
    roles = {
        "system": types.SystemChatMessageV2,
        "user": types.UserChatMessageV2,
        "assistant": types.AssistantChatMessageV2,
        "tool": types.ToolChatMessageV2,
    }
    for message in body["messages"]:
        read = roles[message["role"]].model_validate(message)
        assert json.loads(read.model_dump_json(exclude_none=True)) == message
    for given_tool in body["tools"]:
        assert types.ToolV2.model_validate(given_tool).model_dump(exclude_none=True) == given_tool


@pytest.mark.parametrize(
    ("given", "sent"),
    [('{"a": 1}', '{"a": 1}'), ("", "{}"), ("{oops", '{"arguments":"{oops"}'), ("[1]", '{"arguments":"[1]"}')],
)
def test_arguments_of_calls_are_objects(given, sent):
    """Another model may have written anything else."""
    [_, said, _] = messages(user(TextPart("x")), assistant(ToolCall("1", "f", given)), user(ToolResult("1", [])))
    assert said["tool_calls"][0]["function"]["arguments"] == sent
