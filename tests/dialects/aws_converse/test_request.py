"""A conversation as a request of Converse."""

import base64
import json
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.dialects import aws_converse as api
from extproc.dialects.aws_converse.models import family_of
from extproc.words.dialect import Destination
from extproc.words.errors import UNSUPPORTED_BY_TARGETS, Refusal
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

OLD, EITHER, NEW = "anthropic.claude-sonnet-4-5-20250929-v1:0", "us.anthropic.claude-opus-4-6-v1", "claude-opus-4-7"
NOVA, NOVA_1, OSS, GPT = (
    "us.amazon.nova-2-lite-v1:0",
    "amazon.nova-pro-v1:0",
    "openai.gpt-oss-120b-1:0",
    "us.openai.gpt-6",
)
LLAMA = "meta.llama4-scout-17b-instruct-v1:0"
HELLO = [{"role": "user", "content": [{"text": "hello"}]}]
MARK = {"type": "ephemeral"}
POINT = {"cachePoint": {"type": "default"}}


def turn(role, *blocks):
    return {"role": role, "content": list(blocks)}


def encode(prompt, model=OLD, most=None):
    return written(api, prompt, model, most)


def turns(*messages, model=OLD):
    body, ignored = encode(Prompt("m", list(messages)), model)
    assert ignored == []
    return body["messages"]


def settings(model=OLD, most=None, **fields):
    """The fields that a prompt adds to the smallest body, and the names of ignored fields."""
    body, ignored = encode(Prompt("m", [user("hello")], **fields), model, most)
    assert body.pop("messages") == HELLO
    return body, ignored


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        (LLAMA, False, "/model/meta.llama4-scout-17b-instruct-v1%3A0/converse"),
        (NEW, True, "/model/claude-opus-4-7/converse-stream"),
        (
            "arn:aws:bedrock:x:1:inference-profile/a",
            False,
            "/model/arn%3Aaws%3Abedrock%3Ax%3A1%3Ainference-profile%2Fa/converse",
        ),
    ],
)
def test_the_path_names_the_model(model, stream, path):
    assert api.path(Destination(model), stream=stream) == path


@pytest.mark.parametrize(
    ("model", "claude", "effort", "caches"),
    [
        (OLD, True, "", True),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-6-v1", True, "", True),
        (NOVA, False, "nova", True),
        (NOVA_1, False, "", True),
        (OSS, False, "oss", False),
        (GPT, False, "openai", False),
        (LLAMA, False, "", False),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", False, "", False),
    ],
)
def test_families_of_models_are_recognised(model, claude, effort, caches):
    family = family_of(model)
    assert (family.claude is not None, family.effort, family.caches) == (claude, effort, caches)


# --- text, system prompts, roles


def test_the_smallest_request_is_written():
    assert encode(Prompt("m", [user("hello")])) == ({"messages": HELLO}, [])


def test_system_prompts_are_separate_and_not_blank():
    system = [TextPart("be brief", MARK), TextPart(" \n"), TextPart("be kind")]
    assert settings(system=system)[0] == {"system": [{"text": "be brief"}, POINT, {"text": "be kind"}]}
    assert settings(system=[TextPart(" ")])[0] == {}


@pytest.mark.parametrize("messages", [[], [user("")], [assistant(ThinkingPart("hm"))]])
def test_there_is_always_a_turn(messages):
    assert turns(*messages) == [turn("user", {"text": "Begin."})]


def test_roles_alternate_the_user_begins_and_no_text_is_blank():
    assert turns(assistant("a"), user("b", ""), user(" ", "c"), user(""), assistant(RefusalPart("no"), "d \n")) == [
        turn("user", {"text": "Begin."}),
        turn("assistant", {"text": "a"}),
        turn("user", {"text": "b"}, {"text": "\n\nc"}),
        turn("assistant", {"text": "no"}, {"text": "d"}),
    ]


# --- images, files, audio

HERE = {"bytes": "QQ=="}


def image(format, source):
    return {"image": {"format": format, "source": source}}


def document(format, name, source):
    return {"document": {"format": format, "name": name, "source": source}}


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (ImagePart("iVBO", "image/png"), image("png", {"bytes": "iVBO"})),
        (ImagePart("QQ==", "image/jpg"), image("jpeg", HERE)),
        (ImagePart("/9j/"), image("jpeg", {"bytes": "/9j/"})),
        (FilePart("QQ==", "image/gif"), image("gif", HERE)),
        (ImagePart(url="s3://b/a.JPG"), image("jpeg", {"s3Location": {"uri": "s3://b/a.JPG"}})),
        (FilePart("QQ==", "application/pdf", name="a_b.pdf"), document("pdf", "a b", HERE)),
        (FilePart("QQ==", "text/plain;charset=utf-8"), document("txt", "document", HERE)),
        (FilePart("QQ==", "text/x-python", name="v1.2 é/x"), document("txt", "v1 2 x", HERE)),
        (FilePart("QQ==", name="Q3 (final).XLSX"), document("xlsx", "Q3 (final)", HERE)),
        (FilePart(url="s3://b/a", name="a.md"), document("md", "a", {"s3Location": {"uri": "s3://b/a"}})),
        (AudioPart("QQ==", "mp3"), {"audio": {"format": "mp3", "source": HERE}}),
    ],
)
def test_media_are_written(part, block):
    assert turns(user("look", part)) == [turn("user", {"text": "look"}, block)]


@pytest.mark.parametrize(
    "part",
    [
        ImagePart(url="https://x.test/a.png"),
        ImagePart("QQ==", "image/bmp"),
        ImagePart(),
        FilePart(id="file-1"),
        FilePart(url="https://x.test/a.pdf"),
        FilePart("QQ==", "application/zip"),
    ],
)
def test_unsupported_media_are_refused(part):
    with pytest.raises(Refusal) as refused:
        turns(user(part))
    assert refused.value.kind is UNSUPPORTED_BY_TARGETS


def test_documents_have_unique_names_and_a_text_beside_them():
    def pdf(name):
        return FilePart("QQ==", "application/pdf", name=name)

    given = turns(user(pdf("a.pdf"), pdf("A.docx")), assistant("so"), user("and", pdf(""), pdf("a")))
    names = [block["document"]["name"] for turn in given for block in turn["content"] if "document" in block]
    assert names == ["a", "A-2", "document", "a-3"]
    assert given[0]["content"][2:] == [{"text": "See the document."}]
    assert given[2]["content"][0] == {"text": "and"}


def test_the_detail_of_an_image_is_advisory():
    for detail, ignored in (("", []), ("auto", []), ("low", ["detail"]), ("high", ["detail"])):
        assert encode(Prompt("m", [user(ImagePart("QQ==", "image/png", detail=detail))]))[1] == ignored


# --- tools

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALLS = assistant("let me see", ToolCall("1", "weather", '{"city":"Rome"}'), ToolCall("2", "now", ""))


def spec(name, schema, **rest):
    return {"toolSpec": {"name": name, "inputSchema": {"json": schema}, **rest}}


def use(id, name, input):
    return {"toolUse": {"toolUseId": id, "name": name, "input": input}}


def result(id, *content, **rest):
    return {"toolResult": {"toolUseId": id, "content": list(content), **rest}}


def test_tools_are_written():
    tools = [Tool("weather", "tells it", WEATHER), Tool("now"), Tool("x", schema={"properties": {}}, cache=MARK)]
    expected = [
        spec("weather", WEATHER, description="tells it"),
        spec("now", {"type": "object"}),
        spec("x", {"properties": {}, "type": "object"}),
    ]
    assert settings(tools=tools) == ({"toolConfig": {"tools": [*expected, POINT]}}, [])
    assert settings(NOVA, tools=tools) == ({"toolConfig": {"tools": expected}}, ["cache_control"])


@pytest.mark.parametrize(
    ("choice", "expected", "ignored"),
    [
        (ToolChoice("auto"), None, []),
        (ToolChoice("required"), {"any": {}}, []),
        (ToolChoice("tool", "x"), {"tool": {"name": "x"}}, []),
    ],
)
def test_the_choice_of_tools_is_written(choice, expected, ignored):
    body, found = settings(tools=[Tool("x")], tool_choice=choice)
    assert (body["toolConfig"].get("toolChoice"), found) == (expected, ignored)


def test_a_choice_of_no_tool_is_named_as_ignored_when_tools_are_needed():
    tools, none = [Tool("weather"), Tool("now")], ToolChoice("none")
    assert settings(tools=tools, tool_choice=none) == ({}, [])
    # Tools named in the conversation have to be defined, and Converse has no choice "none".
    body, ignored = encode(Prompt("m", [user("hello"), CALLS], tools=tools, tool_choice=none))
    assert body["toolConfig"] == {"tools": [spec("weather", {"type": "object"}), spec("now", {"type": "object"})]}
    assert ignored == ["tool_choice"]


def test_tools_of_past_calls_are_defined():
    body, ignored = encode(Prompt("m", [user("hello"), CALLS, user(ToolResult("1", []))]))
    assert body["toolConfig"] == {"tools": [spec("weather", {"type": "object"}), spec("now", {"type": "object"})]}
    assert encode(Prompt("m", [user(ToolResult("1", []))]))[0]["toolConfig"] == {
        "tools": [spec("tool", {"type": "object"})]
    }
    assert ignored == []


def test_tool_settings_without_an_equivalent_are_named():
    assert settings(tools=[Tool("x")], parallel_tools=False)[1] == ["parallel_tool_calls"]
    assert settings(tools=[Tool("x")], parallel_tools=True)[1] == []
    # A Claude that always thinks cannot be forced.
    body, ignored = settings("claude-fable-5-1", tools=[Tool("x")], tool_choice=ToolChoice("required"))
    assert ("toolChoice" in body["toolConfig"], ignored) == (False, ["tool_choice"])


def test_strict_tools_are_closed_where_the_model_supports_them():
    closed = {**WEATHER, "additionalProperties": False}
    body, ignored = settings(tools=[Tool("a", schema=WEATHER, strict=True), Tool("b", schema=WEATHER, strict=False)])
    assert body["toolConfig"] == {"tools": [spec("a", closed, strict=True), spec("b", WEATHER)]}
    assert ignored == []
    loose = Tool("a", schema={"type": "object", "additionalProperties": True}, strict=True)
    assert settings(tools=[loose])[1] == ["strict"]
    assert settings(LLAMA, tools=[Tool("a", schema=WEATHER, strict=True)])[1] == ["strict"]


def test_calls_and_results_are_written():
    given = [
        user("hello"),
        CALLS,
        user("so?", ToolResult("2", [TextPart("noon")]), ToolResult("1", [TextPart("x")], error=True)),
    ]
    expected = [
        *HELLO,
        turn("assistant", {"text": "let me see"}, use("1", "weather", {"city": "Rome"}), use("2", "now", {})),
        turn("user", result("2", {"text": "noon"}), result("1", {"text": "x"}, status="error"), {"text": "so?"}),
    ]
    assert turns(*given) == expected
    del expected[2]["content"][1]["toolResult"]["status"]
    assert turns(*given, model=LLAMA) == expected


def test_results_come_first_in_their_turn():
    given = turns(
        user("hello"), CALLS, user(ToolResult("1", [])), user("quick"), user(ToolResult("2", [TextPart(" ")]))
    )
    nothing = {"text": "(no output)"}
    assert given[2:] == [turn("user", result("1", nothing), result("2", nothing), {"text": "quick"})]


def test_results_may_hold_images_and_files():
    parts = [TextPart("here"), ImagePart("QQ==", "image/png"), FilePart("QQ==", "text/csv", name="a.csv")]
    assert turns(user(ToolResult("1", parts)))[0]["content"] == [
        result(
            "1",
            {"text": "here"},
            image("png", HERE),
            document("csv", "a", HERE),
        )
    ]


@pytest.mark.parametrize(
    ("text", "input"),
    [("", {}), (" ", {}), ('{"a":[1,2.5]}', {"a": [1, 2.5]}), ("[1]", {"arguments": "[1]"}), ("{", {"arguments": "{"})],
)
def test_arguments_are_always_an_object(text, input):
    assert turns(user("hello"), assistant(ToolCall("1", "f", text)))[1]["content"] == [use("1", "f", input)]


def test_ids_are_shortened_consistently():
    given = turns(
        user("a"), assistant(ToolCall("a b/é", "f", ""), ToolCall("x" * 65, "f", "")), user(ToolResult("x" * 65, []))
    )
    first, second = given[1]["content"]
    assert first["toolUse"]["toolUseId"] == "a_b__"
    assert len(second["toolUse"]["toolUseId"]) == 64
    assert second["toolUse"]["toolUseId"] == given[2]["content"][0]["toolResult"]["toolUseId"]


# --- thinking


def test_thinking_is_returned_only_to_its_own_model():
    said = assistant(
        ThinkingPart("a", "c2ln"),
        ThinkingPart("", "b21pdHRlZA=="),
        ThinkingPart(redacted="cmVk"),
        ThinkingPart("b"),
        ThinkingPart("c", "gemini:x"),
        ThinkingPart("d", "openai:rs_1:x"),
        "hi",
    )
    shown = [
        {"reasoningContent": {"reasoningText": {"text": "a", "signature": "c2ln"}}},
        {"reasoningContent": {"reasoningText": {"text": "", "signature": "b21pdHRlZA=="}}},
    ]
    redacted = {"reasoningContent": {"redactedContent": "cmVk"}}
    for model, blocks in ((OLD, [*shown, redacted]), (GPT, [redacted]), (NOVA, []), (LLAMA, [])):
        assert turns(user("a"), said, model=model)[1] == turn("assistant", *blocks, {"text": "hi"})


def fields(**more):
    return {"additionalModelRequestFields": more}


def limit(tokens):
    return {"inferenceConfig": {"maxTokens": tokens}}


def by_budget(tokens, most):
    return limit(most) | fields(thinking={"type": "enabled", "budget_tokens": tokens})


def by_effort(level, **thinking):
    return {"outputConfig": {"effort": level}} | fields(thinking={"type": "adaptive", **thinking})


def nova(level):
    return fields(reasoningConfig={"type": "enabled", "maxReasoningEffort": level})


SHOWN, HIDDEN = {"show_thinking": True}, {"show_thinking": False}


@pytest.mark.parametrize(
    ("model", "asked", "expected", "ignored"),
    [
        # with a budget: the limit is raised above it
        (OLD, {"effort": "low"}, by_budget(2048, 4096), []),
        (OLD, {"effort": "low", "max_tokens": 1000}, by_budget(2048, 3048), []),
        (OLD, {"thinking_budget": 5000, "max_tokens": 9000, **SHOWN}, by_budget(5000, 9000), []),
        (OLD, {"thinking_budget": 5000, "max_tokens": 9000, **HIDDEN}, by_budget(5000, 9000), ["thinking.display"]),
        (OLD, {"effort": "none"}, {}, []),
        # by effort
        (NEW, {"effort": "high"}, by_effort("high"), []),
        (NEW, {"effort": "minimal", "max_tokens": 100}, limit(100) | by_effort("low"), []),
        (NEW, {"thinking_budget": 5000, **SHOWN}, by_effort("medium", display="summarized"), []),
        (EITHER, {"thinking_adaptive": True, "effort": "xhigh"}, by_effort("max"), []),
        ("claude-opus-5", {"effort": "none"}, fields(thinking={"type": "disabled"}), []),
        # of other providers
        (NOVA, {"effort": "minimal"}, nova("low"), []),
        (NOVA, {"thinking_adaptive": True, "max_tokens": 9}, limit(9) | nova("medium"), []),
        (NOVA, {"effort": "xhigh", "temperature": 0.5, "top_k": 3}, nova("high"), ["temperature", "top_k"]),
        (NOVA, {"effort": "high", "max_tokens": 9}, limit(9) | nova("medium"), ["reasoning_effort"]),
        (NOVA, {"effort": "none"}, {}, []),
        (NOVA_1, {"effort": "low"}, {}, ["reasoning_effort"]),
        (OSS, {"thinking_budget": 30000}, fields(reasoning_effort="high"), []),
        (OSS, {"thinking_budget": 0}, {}, ["thinking"]),
        (GPT, {"effort": "minimal"}, fields(reasoning={"effort": "low"}), []),
        (GPT, {"effort": "none"}, fields(reasoning={"effort": "none"}), []),
        (GPT, {"thinking_adaptive": True}, {}, []),
        (LLAMA, {"thinking_budget": 2000}, {}, ["thinking"]),
        (LLAMA, {"effort": "none"}, {}, []),
    ],
)
def test_effort_and_budget_are_written(model, asked, expected, ignored):
    assert settings(model, **asked) == (expected, ignored)


def test_a_turn_begun_without_thinking_gets_no_thinking_budget():
    messages = [user("hello"), CALLS, user(ToolResult("1", []), ToolResult("2", []))]
    body, ignored = encode(Prompt("m", messages, effort="low"))
    assert ("additionalModelRequestFields" in body, ignored) == (False, ["reasoning_effort"])
    messages[1] = assistant(ThinkingPart("hm", "c2ln"), *CALLS.parts)
    assert encode(Prompt("m", messages, effort="low"))[0]["additionalModelRequestFields"] == {
        "thinking": {"type": "enabled", "budget_tokens": 2048}
    }


# --- settings


@pytest.mark.parametrize(
    ("asked", "expected", "ignored"),
    [
        ({"max_tokens": 9}, limit(9), []),
        ({"temperature": 0.5}, {"inferenceConfig": {"temperature": 0.5}}, []),
        ({"temperature": 2.0}, {"inferenceConfig": {"temperature": 1.0}}, ["temperature"]),
        ({"top_p": 0.5}, {"inferenceConfig": {"topP": 0.5}}, []),
        ({"top_k": 5}, fields(top_k=5), []),
        ({"temperature": 0.5, "top_p": 0.5}, {"inferenceConfig": {"temperature": 0.5}}, ["top_p"]),
        ({"temperature": 0.5, "effort": "low"}, by_budget(2048, 4096), ["temperature"]),
        ({"metadata": {"team": "a/b"}}, {"requestMetadata": {"team": "a/b"}}, []),
        ({"metadata": {"team": "a", "n": 1, "q": "?"}}, {"requestMetadata": {"team": "a"}}, ["metadata"]),
        ({"metadata": {str(n): "a" for n in range(17)}}, {}, ["metadata"]),
        ({"service_tier": "auto"}, {}, []),
        ({"service_tier": "standard_only"}, {"serviceTier": {"type": "default"}}, []),
        ({"service_tier": "flex"}, {"serviceTier": {"type": "flex"}}, []),
        ({"service_tier": "scale"}, {}, ["service_tier"]),
        ({"seed": 1, "user": "u"}, {}, ["seed", "user"]),
        ({"presence_penalty": 0.5, "frequency_penalty": 0.0}, {}, ["presence_penalty"]),
    ],
)  # fmt: skip
def test_settings_of_a_claude_are_written(asked, expected, ignored):
    assert settings(**asked) == (expected, ignored)


def test_settings_of_other_models_are_written():
    sampling = {"temperature": 1.5, "top_p": 0.5, "top_k": 5}
    inference = {"inferenceConfig": {"temperature": 1.0, "topP": 0.5}}
    assert settings(LLAMA, **sampling) == (inference, ["temperature", "top_k"])
    assert settings(NOVA, **sampling) == (inference | fields(inferenceConfig={"topK": 5}), ["temperature"])


def test_stop_sequences_are_written():
    inference = {"inferenceConfig": {"stopSequences": ["END"]}}
    assert settings(LLAMA, stop=["END"]) == (inference, [])
    told = inference | {"additionalModelResponseFieldPaths": ["/stop_sequence"]}  # to learn which of them matched
    assert settings(stop=["END", "\n"]) == (told, ["stop"])


@pytest.mark.parametrize(
    ("wanted", "most", "limit"), [(None, 100, 100), (50, 100, 50), (200, 100, 100), (None, None, None)]
)
def test_the_limit_is_at_most_that_of_the_model(wanted, most, limit):
    for model in (OLD, LLAMA):
        body, _ = settings(model, most, max_tokens=wanted)
        assert body.get("inferenceConfig", {}).get("maxTokens") == limit


def test_structured_output_is_written():
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}
    body, ignored = settings(NEW, format=OutputFormat(schema, "it", "what it is"), effort="low")
    form = body["outputConfig"]["textFormat"]
    told = form["structure"]["jsonSchema"]
    assert body["outputConfig"]["effort"] == "low"
    assert json.loads(told.pop("schema")) == {
        "type": "object",
        "properties": {"a": {"type": "integer", "description": "(minimum: 1)"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert form == {"type": "json_schema", "structure": {"jsonSchema": {"name": "it", "description": "what it is"}}}
    assert ignored == []
    assert settings(format=OutputFormat({"type": "object"}))[1] == ["response_format"]  # closed by the dialect


def test_any_json_is_asked_for_in_words():
    body, ignored = settings(format=OutputFormat(), system=[TextPart("be brief")])
    assert [block["text"][:8] for block in body["system"]] == ["be brief", "Answer w"]
    assert ignored == ["response_format"]


# --- prompt-cache marks


def test_cache_points_are_written():
    long = {"type": "ephemeral", "ttl": "1h"}
    messages = [
        user(TextPart("a", MARK), ImagePart("QQ==", "image/png", cache=MARK)),
        assistant(ToolCall("1", "f", "", cache=MARK)),
        user(ToolResult("1", [TextPart("b", long)])),
    ]
    body, ignored = encode(Prompt("m", messages))
    kinds = [[next(iter(block)) for block in turn["content"]] for turn in body["messages"]]
    assert kinds == [
        ["text", "cachePoint", "image", "cachePoint"],
        ["toolUse", "cachePoint"],
        ["toolResult", "cachePoint"],
    ]
    assert body["messages"][2]["content"][1] == {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert ignored == []
    assert encode(Prompt("m", messages), NOVA)[0]["messages"][2]["content"][1] == POINT  # lifetimes are for Claude only
    body, ignored = encode(Prompt("m", messages, system=[TextPart("x", MARK)]), LLAMA)
    assert "cachePoint" not in json.dumps(body)
    assert ignored == ["cache_control"]


# --- any conversation, checked by Amazon's SDK

TEXT = st.sampled_from(["", " ", "a", "é\n"])
CACHE = st.none() | st.just(MARK)
DATA = st.sampled_from(["QQ==", "iVBO"])
RESULT_PART = st.one_of(
    st.builds(TextPart, TEXT, CACHE),
    st.builds(ImagePart, DATA, st.sampled_from(["", "image/png", "image/jpg"])),
    st.builds(FilePart, DATA, st.sampled_from(["", "text/plain", "application/json"]), name=st.text(max_size=5)),
)
PART = st.one_of(
    RESULT_PART,
    st.builds(ThinkingPart, TEXT, TEXT, st.just("") | DATA),
    st.builds(RefusalPart, TEXT),
    st.builds(ToolCall, st.text(max_size=3), st.sampled_from("fg"), TEXT, cache=CACHE),
    st.builds(ToolResult, st.text(max_size=3), st.lists(RESULT_PART, max_size=2), error=st.booleans(), cache=CACHE),
)
SCHEMA = st.sampled_from([{}, WEATHER])
TOOL = st.builds(Tool, st.sampled_from("fg"), TEXT, SCHEMA, st.none() | st.booleans(), CACHE)
EFFORTS = st.none() | st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh"])
PROMPT = st.builds(
    Prompt,
    st.just("m"),
    st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), st.lists(PART, max_size=3)), max_size=4),
    system=st.lists(st.builds(TextPart, TEXT, CACHE), max_size=2),
    tools=st.lists(TOOL, max_size=2),
    tool_choice=st.none() | st.builds(ToolChoice, st.sampled_from(["auto", "none", "required", "tool"]), st.just("f")),
    parallel_tools=st.none() | st.booleans(),
    format=st.none() | st.builds(OutputFormat, st.none() | st.just(WEATHER)),
    max_tokens=st.none() | st.integers(1, 10**6),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    top_k=st.none() | st.integers(0, 10),
    stop=st.lists(TEXT, max_size=2),
    effort=EFFORTS,
    thinking_budget=st.none() | st.integers(0, 10**5),
    thinking_adaptive=st.booleans(),
    show_thinking=st.none() | st.booleans(),
    metadata=st.dictionaries(st.text(max_size=3), st.text(max_size=3) | st.integers(), max_size=2),
    service_tier=st.sampled_from(["", "auto", "priority", "?"]),
)


@cache
def shape():
    from botocore.session import get_session

    return get_session().get_service_model("bedrock-runtime").operation_model("Converse").input_shape


def sent(value):
    """The body as the SDK takes it: bytes in place of base64."""
    if isinstance(value, list):
        return [sent(item) for item in value]
    if isinstance(value, dict):
        return {
            key: base64.b64decode(item) if key in ("bytes", "redactedContent") and isinstance(item, str) else sent(item)
            for key, item in value.items()
        }
    return value


@given(PROMPT, st.sampled_from([OLD, EITHER, NEW, "claude-opus-5", NOVA, OSS, GPT, LLAMA]), st.none() | st.just(8192))
def test_amazons_sdk_accepts_any_request(prompt, model, most):
    validate = pytest.importorskip("botocore.validate")
    body, ignored = api.encode_request(prompt, Destination(model, most))
    report = validate.ParamValidator().validate({"modelId": model, **sent(body)}, shape())
    assert not report.has_errors(), report.generate_report()
    assert len(set(ignored)) == len(ignored)
    roles = [turn["role"] for turn in body["messages"]]
    assert roles == [("user", "assistant")[index % 2] for index in range(len(roles))]
    blocks = [block for turn in body["messages"] for block in turn["content"]]
    assert all(block["text"].strip() for block in [*blocks, *body.get("system", [])] if "text" in block)
    names = [block["document"]["name"].lower() for block in blocks if "document" in block]
    assert len(set(names)) == len(names)
    if any("toolUse" in block or "toolResult" in block for block in blocks):
        assert body["toolConfig"]["tools"]
