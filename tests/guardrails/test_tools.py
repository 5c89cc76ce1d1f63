"""The tools that a model may call, and the arguments of its calls, plain and streamed in every client API."""

import json

import pytest
from pydantic import ValidationError

from extproc.guardrails.tools import ToolsSettings
from tests.guardrails.streams import PATHS, PROVIDER, Played, heard, request, stream
from tests.guardrails.test_output import asking

CALLING = [dialect for dialect in PATHS if dialect != "openai_completions"]


def settings(rules, action="block"):
    return f"{PROVIDER}guardrails: [{{name: calls, kind: tools, action: {action}, {rules}}}]"


PLAIN = {
    "openai_chat": lambda name, arguments: {
        "choices": [
            {
                "index": 0,
                "message": {"tool_calls": [{"function": {"name": name, "arguments": json.dumps(arguments)}}]},
            }
        ]
    },
    "openai_responses": lambda name, arguments: {
        "output": [{"type": "function_call", "call_id": "c", "name": name, "arguments": json.dumps(arguments)}]
    },
    "anthropic_messages": lambda name, arguments: {
        "content": [{"type": "tool_use", "id": "t", "name": name, "input": arguments}]
    },
}


@pytest.mark.parametrize("dialect", CALLING)
@pytest.mark.parametrize(
    ("rules", "blocked"),
    [
        ("allow: [f]", False),
        ('allow: ["f*"]', False),
        ("allow: [g]", True),
        ("allow: []", True),
        ('deny: ["*"]', True),
        ("allow: [f], deny: [f]", True),
        ("deny: [g]", False),
        ("deny_arguments: {drop: '(?i)drop table'}", True),
        ("deny_arguments: {drop: 'truncate'}", False),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_call_is_allowed_or_not(world, dialect, rules, blocked, streamed):
    arguments = {"sql": "x; DROP\u0020TABLE users"}
    if streamed:
        text = json.dumps(arguments).replace(" ", "\\u0020")
        body = stream(dialect, arguments=[text[start : start + 3] for start in range(0, len(text), 3)])
        played = await Played(world(settings(rules)), dialect).answer([body])
    else:
        body = json.dumps(PLAIN[dialect]("f", arguments)).encode()
        played = await Played(world(settings(rules)), dialect, body=asking(dialect)).answer([body], "application/json")
    assert (played.status == 400) is blocked
    assert played.out == (b"" if blocked else body)


async def test_words_are_no_calls(world):
    played = await Played(world(settings("allow: [g], deny_arguments: {a: delete}")), "openai_chat").answer(
        [stream("openai_chat", ["delete f"])]
    )
    assert heard("openai_chat", played.out)["text"] == "delete f"


async def test_audit_records(world):
    body = stream("openai_chat", arguments=["{}"])
    played = await Played(world(settings("allow: []", "audit")), "openai_chat").answer([body])
    assert played.out == body
    assert played.verdicts == [("calls", "output", "audit", {"tool": 1})]


async def test_results_in_the_request_are_not_its_business(world):
    asked = request("openai_chat")
    asked["messages"].append({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]})
    played = Played(world(settings("allow: []")), "openai_chat", body=asked)
    await played.answer([stream("openai_chat", ["ok"])])
    assert played.status == 200


@pytest.mark.parametrize(
    "rules",
    [{}, {"allow": ["f"], "action": "mask"}, {"allow": ["f"], "on": ["input"]}, {"deny_arguments": {"a": "("}}],
)
def test_settings_that_make_no_sense_are_refused(rules):
    with pytest.raises(ValidationError):
        ToolsSettings(name="g", kind="tools", **rules)
