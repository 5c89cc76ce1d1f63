"""A conversation as a GenerateContentRequest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.dialects import gemini_generate_content as api
from extproc.dialects._models import gemini
from extproc.words.dialect import Destination
from extproc.words.errors import UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.messages import (
    AudioPart,
    FilePart,
    ImagePart,
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

OLD, BUDGETS, LEVELS = "gemini-2.0-flash", "gemini-2.5-flash", "gemini-3.8-flash"
HELLO = [{"role": "user", "parts": [{"text": "hello"}]}]
MARK = {"type": "ephemeral"}


def encode(prompt, model=LEVELS, most=None):
    return written(api, prompt, model, most)


def contents(*messages, model=LEVELS):
    body, ignored = encode(Prompt("m", list(messages)), model)
    assert ignored == []
    return body["contents"]


def config(model=LEVELS, most=None, **fields):
    body, ignored = encode(Prompt("m", [user("hello")], **fields), model, most)
    assert body["contents"] == HELLO
    return body.get("generationConfig", {}), ignored


def turn(role, *parts):
    return {"role": role, "parts": list(parts)}


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("gemini-3.8-flash", False, "/models/gemini-3.8-flash:generateContent"),
        ("gemini-3.8-flash", True, "/models/gemini-3.8-flash:streamGenerateContent?alt=sse"),
        ("gemini-2.0-flash@001", False, "/models/gemini-2.0-flash@001:generateContent"),
        ("models/gemini-3.8-flash", False, "/models/gemini-3.8-flash:generateContent"),
        ("tunedModels/mine-1", True, "/tunedModels/mine-1:streamGenerateContent?alt=sse"),
        ("publishers/google/models/g", False, "/publishers/google/models/g:generateContent"),
        ("a/b?c d:e", False, "/models/a%2Fb%3Fc%20d%3Ae:generateContent"),
        ("models/../x", False, "/models/models%2F..%2Fx:generateContent"),
        ("projects//x", False, "/models/projects%2F%2Fx:generateContent"),
    ],
)
def test_the_path_names_the_model(model, stream, path):
    assert api.path(Destination(model), stream=stream) == path


def test_every_field_that_changes_the_meaning_is_expressed():
    assert api.able.lacks == frozenset()


# --- text, system prompts, roles


def test_the_smallest_request_is_written():
    assert encode(Prompt("m", [user("hello")])) == ({"contents": HELLO}, [])


def test_system_prompts_are_separate():
    body, _ = encode(Prompt("m", [user("hello")], system=[TextPart("be brief"), TextPart(""), TextPart("be kind")]))
    assert body == {"contents": HELLO, "systemInstruction": {"parts": [{"text": "be brief"}, {"text": "be kind"}]}}


@pytest.mark.parametrize(
    ("system", "messages", "text"),
    [([TextPart("be brief")], [], "be brief"), ([], [user("")], " "), ([], [assistant(ThinkingPart("hm"))], " ")],
)
def test_there_is_always_a_turn(system, messages, text):
    assert encode(Prompt("m", messages, system=system)) == ({"contents": [turn("user", {"text": text})]}, [])


def test_neighbours_of_one_role_become_one_turn_and_empty_texts_are_left_out():
    assert contents(user("a", ""), user("b"), assistant("c"), assistant("", "d"), assistant(""), user("e")) == [
        turn("user", {"text": "a"}, {"text": "\n\nb"}),
        turn("model", {"text": "c"}, {"text": "\n\nd"}),
        turn("user", {"text": "e"}),
    ]


def test_a_refusal_is_written_as_text():
    assert contents(user("a"), assistant(RefusalPart("no")))[1] == turn("model", {"text": "no"})


# --- images, files, audio


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (ImagePart(data="QQ==", media_type="image/png"), {"inlineData": {"mimeType": "image/png", "data": "QQ=="}}),
        (ImagePart(data="QQ==", media_type="image/jpg"), {"inlineData": {"mimeType": "image/jpeg", "data": "QQ=="}}),
        (ImagePart(data="QQ=="), {"inlineData": {"mimeType": "image/jpeg", "data": "QQ=="}}),
        (FilePart(data="QQ==", media_type="text/csv"), {"inlineData": {"mimeType": "text/csv", "data": "QQ=="}}),
        (FilePart(data="QQ==", name="a.pdf"), {"inlineData": {"mimeType": "application/pdf", "data": "QQ=="}}),
        (AudioPart("QQ==", "wav"), {"inlineData": {"mimeType": "audio/wav", "data": "QQ=="}}),
        (AudioPart("QQ==", "mp3"), {"inlineData": {"mimeType": "audio/mp3", "data": "QQ=="}}),
        (
            ImagePart(url="https://x.test/a/b.PNG?v=1.gif#c"),
            {"fileData": {"mimeType": "image/png", "fileUri": "https://x.test/a/b.PNG?v=1.gif#c"}},
        ),
        (
            ImagePart(url="http://x.test/image"),
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "http://x.test/image"}},
        ),
        (ImagePart(url="gs://b/a.webp"), {"fileData": {"mimeType": "image/webp", "fileUri": "gs://b/a.webp"}}),
        (FilePart(url="gs://b/a.mp4"), {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/a.mp4"}}),
        (
            FilePart(url="gs://b/a", media_type="text/plain"),
            {"fileData": {"mimeType": "text/plain", "fileUri": "gs://b/a"}},
        ),
        (FilePart(id="gs://b/a.txt"), {"fileData": {"mimeType": "text/plain", "fileUri": "gs://b/a.txt"}}),
        (
            FilePart(url="https://youtu.be/abc"),
            {"fileData": {"mimeType": "video/mp4", "fileUri": "https://youtu.be/abc"}},
        ),
        (
            FilePart(url="https://www.youtube.com/watch?v=abc"),
            {"fileData": {"mimeType": "video/mp4", "fileUri": "https://www.youtube.com/watch?v=abc"}},
        ),
        (
            FilePart(id="files/abc"),
            {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
        ),
    ],
)
def test_media_are_written(part, expected):
    assert contents(user("look", part)) == [turn("user", {"text": "look"}, expected)]


@pytest.mark.parametrize("part", [ImagePart(url="ftp://x.test/a.png"), FilePart(id="file-1"), ImagePart(), FilePart()])
def test_media_that_google_cannot_reach_are_refused(part):
    with pytest.raises(Refusal) as refused:
        contents(user(part))
    assert refused.value.kind is UNSUPPORTED_BY_TARGETS
    assert "base64" in refused.value.message


def test_the_detail_of_an_image_is_advisory():
    image = {"data": "QQ==", "media_type": "image/png"}
    for detail, ignored in (("", []), ("auto", []), ("low", ["detail"]), ("high", ["detail"])):
        assert encode(Prompt("m", [user(ImagePart(**image, detail=detail))]))[1] == ignored


# --- tools

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def test_tools_are_written():
    tools = [Tool("weather", "tells it", WEATHER), Tool("now", schema={"type": "object", "properties": {}}), Tool("x")]
    body, ignored = encode(Prompt("m", [user("hello")], tools=tools))
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "tells it", "parametersJsonSchema": WEATHER},
                {"name": "now"},
                {"name": "x"},
            ]
        }
    ]
    assert "toolConfig" not in body
    assert ignored == []


def test_a_schema_without_properties_is_kept_if_it_has_constraints():
    schema = {"type": "object", "anyOf": [{"required": ["a"]}]}
    body, _ = encode(Prompt("m", [user("hello")], tools=[Tool("x", schema=schema)]))
    assert body["tools"] == [{"functionDeclarations": [{"name": "x", "parametersJsonSchema": schema}]}]


@pytest.mark.parametrize(
    ("choice", "calling"),
    [
        (ToolChoice("auto"), {"mode": "AUTO"}),
        (ToolChoice("none"), {"mode": "NONE"}),
        (ToolChoice("required"), {"mode": "ANY"}),
        (ToolChoice("tool", "x"), {"mode": "ANY", "allowedFunctionNames": ["x"]}),
    ],
)
def test_the_choice_of_tools_is_written(choice, calling):
    body, _ = encode(Prompt("m", [user("hello")], tools=[Tool("x")], tool_choice=choice))
    assert body["toolConfig"] == {"functionCallingConfig": calling}
    assert "toolConfig" not in encode(Prompt("m", [user("hello")], tool_choice=choice))[0]


def test_tool_settings_without_an_equivalent_are_named():
    tools = [Tool("x", strict=True, cache=MARK)]
    assert encode(Prompt("m", [user("hello")], tools=tools, parallel_tools=False))[1] == [
        "cache_control",
        "strict",
        "parallel_tool_calls",
    ]
    assert encode(Prompt("m", [user("hello")], tools=[Tool("x", strict=False)], parallel_tools=True))[1] == []


def call(id, name, args, **rest):
    return {"functionCall": {"id": id, "name": name, "args": args}, **rest}


def result(id, name, response, **rest):
    return {"functionResponse": {"id": id, "name": name, "response": response, **rest}}


CALLS = assistant("let me see", ToolCall("1", "weather", '{"city":"Rome"}', "c2ln"), ToolCall("2", "now", ""))


def test_calls_and_results_are_written():
    assert contents(
        user("hello"), CALLS, user(ToolResult("2", [TextPart("noon")]), ToolResult("1", [TextPart("sun")], error=True))
    ) == [
        *HELLO,
        turn(
            "model",
            {"text": "let me see"},
            call("1", "weather", {"city": "Rome"}, thoughtSignature="c2ln"),
            call("2", "now", {}),
        ),
        turn("user", result("1", "weather", {"error": "sun"}), result("2", "now", {"output": "noon"})),
    ]


def test_results_follow_their_calls_in_a_turn_of_their_own():
    given = contents(
        user("hello"),
        CALLS,
        user(ToolResult("1", [TextPart("a"), TextPart("b")])),
        user("and now"),
        user("quick"),
        user(ToolResult("2", [])),
        assistant("so"),
        user("thanks"),
    )
    assert given[2:] == [
        turn("user", result("1", "weather", {"output": "a\nb"}), result("2", "now", {"output": ""})),
        turn("user", {"text": "and now"}, {"text": "\n\nquick"}),
        turn("model", {"text": "so"}),
        turn("user", {"text": "thanks"}),
    ]


def test_each_step_has_its_own_results():
    given = contents(
        user("hello"),
        assistant(ToolCall("1", "now", "{}", "YQ==")),
        user(ToolResult("1", [TextPart("noon")])),
        assistant(ToolCall("2", "now", "{}", "Yg==")),
        user(ToolResult("2", [TextPart("one")])),
    )
    assert [part["role"] for part in given] == ["user", "model", "user", "model", "user"]
    assert given[4] == turn("user", result("2", "now", {"output": "one"}))


def test_a_result_without_its_call_keeps_its_name():
    assert contents(user(ToolResult("9", [TextPart("x")], name="now"))) == [
        turn("user", result("9", "now", {"output": "x"}))
    ]
    assert contents(user(ToolResult("9", [TextPart("x")]))) == [turn("user", result("9", "9", {"output": "x"}))]


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("", {}),
        (" ", {}),
        ('{"a":[1,2.5,null]}', {"a": [1, 2.5, None]}),
        ("[1]", {"arguments": [1]}),
        ('{"a":', {"arguments": '{"a":'}),
        ("\ud800", {"arguments": "\ud800"}),
        ("[" * 5000, {"arguments": "[" * 5000}),
    ],
)
def test_arguments_are_always_an_object(text, args):
    written = contents(user("hello"), assistant(ToolCall("1", "f", text, "c2ln")))
    assert written[1]["parts"][0]["functionCall"]["args"] == args


IMAGE = {"inlineData": {"mimeType": "image/png", "data": "QQ=="}}


def test_results_may_hold_images():
    messages = [
        user("hello"),
        CALLS,
        user(
            ToolResult("1", [TextPart("here"), ImagePart(data="QQ==", media_type="image/png")]),
            ToolResult("2", [TextPart("noon")]),
            "go on",
        ),
    ]
    assert contents(*messages)[2:] == [
        turn("user", result("1", "weather", {"output": "here"}, parts=[IMAGE]), result("2", "now", {"output": "noon"})),
        turn("user", {"text": "go on"}),
    ]
    # Before Gemini 3 a result cannot hold images, and a turn of results may hold nothing else.
    assert contents(*messages, model=BUDGETS)[2:] == [
        turn("user", result("1", "weather", {"output": "here"}), result("2", "now", {"output": "noon"})),
        turn("user", IMAGE, {"text": "go on"}),
    ]


# --- thoughts and their signatures

UNSIGNED = "skip_thought_signature_validator"


@pytest.mark.parametrize(
    ("model", "signature"),
    [
        ("gemini-3-flash-preview", UNSIGNED),
        ("models/gemini-4-argon", UNSIGNED),
        ("gemini-flash-latest", UNSIGNED),
        ("gemini-2.5-pro", None),
        ("tunedModels/mine", None),
    ],
)
def test_the_first_call_of_a_turn_is_signed_where_the_model_requires_it(model, signature):
    given = contents(
        user("hello"),
        assistant("a", ToolCall("1", "f", "{}"), ToolCall("2", "f", "{}")),
        assistant(ToolCall("3", "f", "{}")),
        model=model,
    )
    assert [part.get("thoughtSignature") for part in given[1]["parts"]] == [None, signature, None, None]


def test_signatures_return_to_their_parts():
    assert contents(
        user("hello"),
        assistant(ThinkingPart("I think", "gemini:YQ=="), "hi", ThinkingPart(signature="gemini:Yg==")),
    )[1] == turn(
        "model",
        {"text": "I think", "thought": True, "thoughtSignature": "YQ=="},
        {"text": "hi", "thoughtSignature": "Yg=="},
    )


def test_a_signature_finds_its_text_after_a_client_moved_it():
    given = contents(user("hello"), assistant(ThinkingPart(signature="gemini:Yg=="), "hi", "there"))
    assert given[1] == turn("model", {"text": "hi"}, {"text": "there", "thoughtSignature": "Yg=="})
    given = contents(user("hello"), assistant(ThinkingPart(signature="gemini:Yg==")))
    assert given[1] == turn("model", {"text": "", "thoughtSignature": "Yg=="})


@pytest.mark.parametrize("part", [ThinkingPart("hm"), ThinkingPart("hm", "EqQBCkYIBx"), ThinkingPart(redacted="Qw==")])
def test_thoughts_of_other_providers_are_left_out(part):
    assert contents(user("hello"), assistant(part, "hi"))[1] == turn("model", {"text": "hi"})


# --- settings


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"top_p": 0.5, "top_k": 3}, {"topP": 0.5, "topK": 3}),
        ({"max_tokens": 9}, {"maxOutputTokens": 9}),
        ({"stop": ["", "a", "b"]}, {"stopSequences": ["a", "b"]}),
        ({"stop": [""]}, {}),
        ({"seed": 7}, {"seed": 7}),
        ({"choices": 2}, {"candidateCount": 2}),
        ({"choices": 1}, {}),
        ({"presence_penalty": 0.0, "frequency_penalty": 0.0}, {}),
        ({"logprobs": 0}, {"responseLogprobs": True}),
        ({"logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
        ({"format": OutputFormat()}, {"responseMimeType": "application/json"}),
        (
            {"format": OutputFormat(WEATHER, "w", strict=True)},
            {"responseMimeType": "application/json", "responseJsonSchema": WEATHER},
        ),
    ],
)
def test_settings_are_written(fields, expected):
    assert config(**fields) == (expected, [])


@pytest.mark.parametrize(
    ("fields", "expected", "ignored"),
    [
        ({"stop": list("abcdef")}, {"stopSequences": list("abcde")}, ["stop"]),
        ({"seed": 2**31}, {}, ["seed"]),
        ({"presence_penalty": 1.0, "frequency_penalty": 0.5}, {}, ["presence_penalty", "frequency_penalty"]),
        ({"user": "u", "metadata": {"a": "b"}}, {}, ["user", "metadata"]),
    ],
)
def test_settings_without_an_equivalent_are_named(fields, expected, ignored):
    assert config(**fields) == (expected, ignored)


def test_penalties_are_written_for_older_models():
    fields = {"presence_penalty": 1.0, "frequency_penalty": 0.5}
    assert config(OLD, **fields) == ({"presencePenalty": 1.0, "frequencyPenalty": 0.5}, [])
    assert config(BUDGETS, **fields) == ({}, ["presence_penalty", "frequency_penalty"])


def test_the_limit_is_at_most_that_of_the_model():
    assert config(max_tokens=100_000, most=65_536) == ({"maxOutputTokens": 65_536}, [])
    assert config(most=65_536) == ({}, [])


@pytest.mark.parametrize(
    ("tier", "sent", "ignored"),
    [
        ("", None, []),
        ("auto", None, []),
        ("default", None, []),
        ("flex", "flex", []),
        ("priority", "priority", []),
        ("scale", None, ["service_tier"]),
    ],
)
def test_the_service_tier_is_written(tier, sent, ignored):
    body, left_out = encode(Prompt("m", [user("hello")], service_tier=tier))
    assert (body.get("serviceTier"), left_out) == (sent, ignored)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt("m", [user(TextPart("a", cache=MARK))]),
        Prompt("m", [user("a")], system=[TextPart("b", cache=MARK)]),
        Prompt("m", [user(ImagePart(data="QQ==", cache=MARK))]),
        Prompt("m", [user("a"), assistant(ToolCall("1", "f", "{}", cache=MARK))]),
        Prompt("m", [user("a"), CALLS, user(ToolResult("1", [], cache=MARK))]),
    ],
)
def test_cache_marks_are_left_out(prompt):
    assert encode(prompt)[1] == ["cache_control"]


# --- thinking


@pytest.mark.parametrize(
    ("model", "fields", "thinking", "ignored"),
    [
        # Gemini 3 and later take a level.
        (LEVELS, {}, None, []),
        (LEVELS, {"effort": "low"}, {"thinkingLevel": "LOW"}, []),
        (LEVELS, {"effort": "medium"}, {"thinkingLevel": "MEDIUM"}, []),
        (LEVELS, {"effort": "high"}, {"thinkingLevel": "HIGH"}, []),
        (LEVELS, {"effort": "xhigh"}, {"thinkingLevel": "HIGH"}, []),
        (LEVELS, {"effort": "minimal"}, {"thinkingLevel": "LOW"}, []),
        (LEVELS, {"effort": "none"}, {"thinkingLevel": "LOW"}, ["reasoning_effort"]),
        (LEVELS, {"thinking_budget": 0}, {"thinkingLevel": "LOW"}, ["thinking"]),
        (LEVELS, {"thinking_budget": 4000}, {"thinkingLevel": "MEDIUM", "includeThoughts": True}, []),
        (LEVELS, {"thinking_budget": 10**6}, {"thinkingLevel": "HIGH", "includeThoughts": True}, []),
        (LEVELS, {"thinking_adaptive": True}, {"includeThoughts": True}, []),
        (LEVELS, {"thinking_adaptive": True, "show_thinking": False}, None, []),
        (LEVELS, {"effort": "low", "show_thinking": True}, {"thinkingLevel": "LOW", "includeThoughts": True}, []),
        ("gemini-3-flash-preview", {"effort": "none"}, {"thinkingLevel": "MINIMAL"}, []),
        ("gemini-3.6-flash", {"effort": "minimal"}, {"thinkingLevel": "MINIMAL"}, []),
        ("gemini-3.1-pro-preview", {"effort": "minimal"}, {"thinkingLevel": "LOW"}, []),
        ("gemini-4-argon", {"effort": "minimal"}, {"thinkingLevel": "LOW"}, []),
        ("gemini-pro-latest", {"effort": "high"}, {"thinkingLevel": "HIGH"}, []),
        # Gemini 2.5 takes a budget.
        (BUDGETS, {}, None, []),
        (BUDGETS, {"effort": "none"}, {"thinkingBudget": 0}, []),
        (BUDGETS, {"effort": "low"}, {"thinkingBudget": 2048}, []),
        (BUDGETS, {"effort": "xhigh"}, {"thinkingBudget": 24576}, []),
        (BUDGETS, {"thinking_budget": 5000}, {"thinkingBudget": 5000, "includeThoughts": True}, []),
        (BUDGETS, {"thinking_adaptive": True}, {"thinkingBudget": -1, "includeThoughts": True}, []),
        ("gemini-2.5-flash-lite", {"thinking_budget": 9}, {"thinkingBudget": 512, "includeThoughts": True}, []),
        ("gemini-2.5-pro", {"effort": "none"}, {"thinkingBudget": 128}, ["reasoning_effort"]),
        ("gemini-2.5-pro", {"thinking_budget": 0}, {"thinkingBudget": 128}, ["thinking"]),
        ("gemini-2.5-pro", {"effort": "xhigh"}, {"thinkingBudget": 32768}, []),
        # Other models do not think, or their names do not tell.
        (OLD, {"effort": "low"}, None, ["reasoning_effort"]),
        (OLD, {"effort": "none"}, None, []),
        (OLD, {"thinking_budget": 5000}, None, ["thinking"]),
        ("tunedModels/mine", {"effort": "none"}, None, ["reasoning_effort"]),
        ("gemma-3-27b-it", {"thinking_adaptive": True, "show_thinking": True}, None, ["thinking"]),
    ],
)
def test_thinking_is_written(model, fields, thinking, ignored):
    assert config(model, **fields) == ({} if thinking is None else {"thinkingConfig": thinking}, ignored)


@pytest.mark.parametrize(
    ("budget", "limit", "most", "expected"),
    [
        (2048, None, None, (2048, None)),
        (2048, 4096, None, (2048, 4096)),
        (2048, 2048, None, (2048, 4096)),
        (2048, 100, None, (2048, 2148)),
        (2048, 100, 65_536, (2048, 2148)),
        (24576, 100, 8192, (4096, 8192)),
        (0, 100, None, (0, 100)),
    ],
)
def test_a_thinking_budget_leaves_room_for_the_answer(budget, limit, most, expected):
    settings, _ = config(BUDGETS, most, thinking_budget=budget, max_tokens=limit)
    assert (settings["thinkingConfig"]["thinkingBudget"], settings.get("maxOutputTokens")) == expected


@pytest.mark.parametrize(
    "name", ["", "gemini", "gemini-", "gemini-x", "gemini-1.5.2-pro", "gpt-5", "gemini-²-pro", "/"]
)
def test_unknown_names_have_no_generation(name):
    assert gemini(name).thinking == ""


@given(st.text() | st.from_regex(r"(models/)?gemini-[0-9]*\.?[0-9]*(-[a-z]+)*", fullmatch=True))
def test_any_name_is_accepted(name):
    assert gemini(name).thinking in ("", "budget", "level")


# --- the official SDK


def test_the_sdk_reads_the_request():
    types = pytest.importorskip("google.genai.types")
    body, _ = encode(
        Prompt(
            "m",
            [
                user("hello", ImagePart(data="QQ==", media_type="image/png"), FilePart(url="gs://b/a.pdf")),
                assistant(ThinkingPart("hm", "gemini:YQ=="), "hi", CALLS.parts[1], CALLS.parts[2]),
                user(ToolResult("1", [TextPart("sun"), ImagePart(data="QQ==", media_type="image/png")])),
                user(ToolResult("2", [TextPart("noon")]), "go on"),
                assistant(ToolCall("3", "now", "{}")),
            ],
            system=[TextPart("be brief")],
            tools=[Tool("weather", "tells it", WEATHER), Tool("now")],
            tool_choice=ToolChoice("tool", "now"),
            format=OutputFormat(WEATHER),
            temperature=0.5,
            top_p=0.5,
            top_k=3,
            stop=["a"],
            seed=7,
            choices=2,
            logprobs=3,
            effort="high",
            show_thinking=True,
            max_tokens=100,
            service_tier="flex",
        )
    )
    for content in [*body.pop("contents"), body.pop("systemInstruction")]:
        types.Content.model_validate(content)
    for tool in body.pop("tools"):
        types.Tool.model_validate(tool)
    types.ToolConfig.model_validate(body.pop("toolConfig"))
    types.GenerationConfig.model_validate(body.pop("generationConfig"))
    assert types.ServiceTier(body.pop("serviceTier")) is types.ServiceTier.FLEX
    assert body == {}


def test_json_beside_tools_is_refused_where_the_model_takes_none():
    """The next target is tried then."""
    asked = Prompt("m", [user(TextPart("x"))], tools=[Tool("f")], format=OutputFormat())
    for model in ("gemini-2.5-flash", "gemini-2.5-pro", "models/gemini-2.0-flash"):
        with pytest.raises(Refusal) as refused:
            encode(asked, model)
        assert (refused.value.kind.code, refused.value.param) == ("unsupported_by_targets", "response_format")
    for model in ("gemini-3-pro-preview", "gemini-flash-latest", "gemma-3"):
        encode(asked, model)
