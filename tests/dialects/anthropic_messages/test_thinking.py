"""Thinking: the settings that each generation of Claude accepts, and their translation."""

import pytest

from extproc.dialects import client_apis
from extproc.dialects._models import traits_of
from extproc.words.dialect import Destination
from extproc.words.messages import Message, Prompt, TextPart, ThinkingPart, Tool, ToolCall, ToolChoice, ToolResult

MESSAGES = client_apis()["anthropic_messages"]

GENERATIONS = {
    "claude-3-7-sonnet-20250219": "manual",
    "claude-sonnet-4-20250514": "manual",
    "claude-opus-4-5-20251101": "manual",
    "anthropic/claude-haiku-4.5": "manual",
    "eu.anthropic.claude-sonnet-4-5-20250929-v1:0": "manual",
    "claude-opus-4-6": "either",
    "anthropic.claude-opus-4-6-v1": "either",
    "claude-sonnet-4-6": "either",
    "claude-mythos-preview": "either",
    "claude-opus-4-7": "adaptive",
    "claude-opus-4-8@20260601": "adaptive",
    "claude-opus-5": "adaptive",
    "claude-sonnet-5": "adaptive",
    "databricks-claude-sonnet-5-5": "adaptive",
    "claude-haiku-5-5": "adaptive",
    "claude-fable-5-1": "adaptive",
    "claude-opus-7": "adaptive",
    "claude-latest": "adaptive",
    "kimi-k3": "manual",
    "mock": "manual",
}


@pytest.mark.parametrize(("model", "kind"), GENERATIONS.items())
def test_generations_are_found_by_name(model, kind):
    traits = traits_of(model)
    assert (traits.manual, traits.adaptive) == {
        "manual": (True, False),
        "either": (True, True),
        "adaptive": (False, True),
    }[kind]
    assert traits.sampling == (kind != "adaptive" and "mythos" not in model)


@pytest.mark.parametrize(
    ("model", "off"),
    [
        ("claude-opus-4-8", "disabled"),
        ("claude-opus-5", "disabled"),
        ("claude-sonnet-5-5", "between_tools"),
        ("claude-haiku-5-5", "disabled"),
        ("claude-opus-5-5", ""),
        ("claude-fable-5", ""),
        ("claude-opus-9", ""),
    ],
)
def test_thinking_is_turned_off_where_possible(model, off):
    assert traits_of(model).off == off


@pytest.mark.parametrize(
    ("model", "forced"),
    [
        ("claude-opus-5", True),
        ("claude-fable-5", True),
        ("claude-haiku-5-5", True),
        ("claude-opus-5-5", False),
        ("claude-sonnet-5-5", False),
        ("claude-fable-5-1", False),
        ("claude-mythos-5-1", False),
        ("claude-opus-9", False),
    ],
)
def test_forced_tool_calls_depend_on_the_model(model, forced):
    assert traits_of(model).forced_tools == forced


OLD, BOTH, LATER, ON, ALWAYS = (
    *("claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-8", "claude-opus-5", "claude-opus-5-5"),
)
ADAPTIVE = {"type": "adaptive"}


def budget(tokens):
    return {"type": "enabled", "budget_tokens": tokens}


# The client's settings, and for each model: thinking, effort, names of ignored fields.
ASKED = {
    "nothing": ({}, {OLD: (None, None), LATER: (None, None), ON: (None, None), ALWAYS: (None, None)}),
    "an effort": (
        {"effort": "medium"},
        {
            OLD: (budget(8192), None),
            BOTH: (ADAPTIVE, "medium"),
            LATER: (ADAPTIVE, "medium"),
            ALWAYS: (ADAPTIVE, "medium"),
        },
    ),
    "hardly any effort": ({"effort": "minimal"}, {OLD: (budget(1024), None), LATER: (ADAPTIVE, "low")}),
    "all effort": (
        {"effort": "xhigh"},
        {OLD: (budget(32768), None), BOTH: (ADAPTIVE, "max"), LATER: (ADAPTIVE, "xhigh")},
    ),
    "a budget": (
        {"thinking_budget": 2000},
        {OLD: (budget(2000), None), BOTH: (budget(2000), None), LATER: (ADAPTIVE, "low"), ON: (ADAPTIVE, "low")},
    ),
    "a tiny budget": ({"thinking_budget": 5}, {OLD: (budget(1024), None), LATER: (ADAPTIVE, "low")}),
    "as much as it takes": (
        {"thinking_adaptive": True},
        {OLD: (budget(8192), None), BOTH: (ADAPTIVE, None), LATER: (ADAPTIVE, None)},
    ),
    "as much as it takes, with effort": (
        {"thinking_adaptive": True, "effort": "high"},
        {OLD: (budget(16384), None), LATER: (ADAPTIVE, "high")},
    ),
    "none": (
        {"effort": "none"},
        {
            OLD: (None, None),
            LATER: (None, None),
            ON: ({"type": "disabled"}, None),
            "claude-sonnet-5-5": ({"type": "between_tools"}, None),
            ALWAYS: (None, "low", "reasoning_effort"),
        },
    ),
    "a budget of nothing": (
        {"thinking_budget": 0},
        {OLD: (None, None), ON: ({"type": "disabled"}, None), ALWAYS: (None, "low", "thinking")},
    ),
    "no thinking but all effort": (
        {"thinking_budget": 0, "effort": "xhigh"},
        {OLD: (None, None), LATER: (None, "xhigh"), ON: ({"type": "disabled"}, "high")},
    ),
    "to see it": (
        {"effort": "low", "show_thinking": True},
        {
            OLD: (budget(2048) | {"display": "summarized"}, None),
            LATER: (ADAPTIVE | {"display": "summarized"}, "low"),
            "kimi-k3": (budget(2048), None),
        },
    ),
    "to see none of it": (
        {"effort": "low", "show_thinking": False},
        {
            LATER: (ADAPTIVE | {"display": "omitted"}, "low"),
            "kimi-k3": (budget(2048), None, "thinking.display"),
        },
    ),
    "to see what there is": (
        {"show_thinking": True},
        {OLD: (None, None), LATER: (None, None), ON: (ADAPTIVE | {"display": "summarized"}, None)},
    ),
}


@pytest.mark.parametrize(
    ("asked", "model", "thinking", "effort", "ignored"),
    [
        pytest.param(asked, model, made[0], made[1], list(made[2:]), id=f"{name} of {model}")
        for name, (asked, models) in ASKED.items()
        for model, made in models.items()
    ],
)
def test_a_request_becomes_the_settings_of_its_model(asked, model, thinking, effort, ignored):
    body, named = encode(model, max_tokens=50_000, **asked)
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == effort
    assert named == ignored
    assert body["max_tokens"] == 50_000


def encode(model, most=None, **fields):
    fields.setdefault("messages", [Message("user", [TextPart("Hello")])])
    return MESSAGES.encode_request(Prompt("m", **fields), Destination(model, most))


@pytest.mark.parametrize(
    ("asked", "most", "budget_tokens", "max_tokens"),
    [
        (9000, None, 8192, 9000),
        (8192, None, 8192, 16384),
        (100, None, 8192, 8292),
        (None, None, 8192, 12288),
        (100, 8200, 4100, 8200),
        (None, 64_000, 8192, 64_000),
        (None, 2000, 1024, 2000),
    ],
)
def test_the_output_limit_is_above_the_thinking_budget(asked, most, budget_tokens, max_tokens):
    body, _ = encode(OLD, most, max_tokens=asked, effort="medium")
    assert (body["thinking"]["budget_tokens"], body["max_tokens"]) == (budget_tokens, max_tokens)


def test_a_model_without_room_for_thinking_does_not_think():
    body, ignored = encode(OLD, 1024, max_tokens=100, effort="medium")
    assert (body.get("thinking"), body["max_tokens"], ignored) == (None, 100, ["reasoning_effort"])


@pytest.mark.parametrize(
    ("model", "asked", "sent", "ignored"),
    [
        (OLD, {"temperature": 0.5}, {"temperature": 0.5}, []),
        (OLD, {"temperature": 0.5, "effort": "low"}, {}, ["temperature"]),
        (OLD, {"temperature": 1.0, "effort": "low"}, {}, []),
        (OLD, {"top_p": 0.97, "effort": "low"}, {"top_p": 0.97}, []),
        (OLD, {"top_p": 0.5, "top_k": 3, "effort": "low"}, {}, ["top_p", "top_k"]),
        (LATER, {"temperature": 0.5, "top_p": 0.5, "top_k": 3}, {}, ["temperature", "top_p", "top_k"]),
        (LATER, {"temperature": 1.0, "top_p": 1.0}, {}, []),
        ("kimi-k3", {"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5, "top_p": 0.5}, []),
    ],
)
def test_sampling_is_dropped_beside_thinking(model, asked, sent, ignored):
    body, named = encode(model, **asked)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == sent
    assert named == ignored


# A forced tool and thinking exclude each other. Thinking takes precedence over the force, an effort does not.
FORCED = {
    "a budget": (OLD, {"thinking_budget": 2000}, "auto", budget(2000), None, ["tool_choice"]),
    "adaptive": (LATER, {"thinking_adaptive": True}, "auto", ADAPTIVE, None, ["tool_choice"]),
    "an effort": (LATER, {"effort": "low"}, "any", None, "low", []),
    "an effort of an older model": (OLD, {"effort": "low"}, "any", None, None, ["reasoning_effort"]),
    "a model that always thinks": (ALWAYS, {"effort": "low"}, "auto", ADAPTIVE, "low", ["tool_choice"]),
    "no thinking": (OLD, {}, "any", None, None, []),
}


@pytest.mark.parametrize("case", FORCED.values(), ids=FORCED)
def test_a_forced_tool_excludes_thinking(case):
    model, asked, choice, thinking, effort, ignored = case
    body, named = encode(model, tools=[Tool("f")], tool_choice=ToolChoice("required"), **asked)
    assert body["tool_choice"] == {"type": choice}
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == effort
    assert named == ignored


CALL, RESULT = ToolCall("1", "f", "{}"), ToolResult("1", [TextPart("7")])


def test_an_answer_begun_by_the_client_continues_without_thinking():
    begun = [Message("user", [TextPart("Hello")]), Message("assistant", [TextPart("Well")])]
    body, ignored = encode(OLD, messages=begun, effort="low")
    assert ("thinking" in body, ignored) == (False, ["reasoning_effort"])
    assert "thinking" in encode(OLD, messages=[*begun, Message("user", [TextPart("?")])], effort="low")[0]


@pytest.mark.parametrize(
    ("model", "said", "on"),
    [
        (OLD, [Message("assistant", [CALL])], False),
        (OLD, [Message("assistant", [ThinkingPart("Hm"), CALL])], False),
        (OLD, [Message("assistant", [ThinkingPart("Hm", "gemini:x"), CALL])], False),
        (OLD, [Message("assistant", [ThinkingPart("Hm", "EqQB"), CALL])], True),
        (OLD, [Message("assistant", [ThinkingPart(redacted="EqQB")]), Message("assistant", [CALL])], True),
        (LATER, [Message("assistant", [CALL])], True),
    ],
)
def test_thinking_does_not_begin_between_calls(model, said, on):
    messages = [Message("user", [TextPart("Hello")]), *said, Message("user", [RESULT])]
    body, ignored = encode(model, messages=messages, tools=[Tool("f")], effort="low")
    assert ("thinking" in body) == on
    assert ignored == ([] if on else ["reasoning_effort"])
