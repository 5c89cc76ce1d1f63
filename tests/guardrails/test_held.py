"""Calls in answers that wait for a person, in every client API: no part of one leaves before its approval."""

import json
import re

import pytest
from pydantic import ValidationError

from extproc.access import questions
from extproc.dialects import client_apis
from extproc.guardrails._held import AnswerCalls
from extproc.guardrails.tools import Tools, ToolsSettings
from extproc.stores import StoreError
from tests.guardrails.streams import PROVIDER, Played, heard, request, stream
from tests.guardrails.test_output import asking
from tests.guardrails.test_tools import CALLING, PLAIN, RULES, SAFE, UNSAFE


def settings(rules, **more):
    found = {
        "name": "calls",
        "kind": "tools",
        "action": "ask",
        "on": ["tool_calls"],
        "approval": {"wait": "0s"},
        **more,
    }
    return f"{PROVIDER}guardrails: [{json.dumps(found)[:-1]}, {rules}}}]"


@pytest.mark.parametrize("dialect", CALLING)
async def test_a_call_that_asks_leaves_no_trace_and_others_pass(world, dialect):
    """The same arguments ask that the guardrail would block, whatever form they have; without questions none passes."""
    made = world(settings(RULES))
    for text, kind in [*((text, "") for text in SAFE), *UNSAFE.items()]:
        size = 3 if len(text) < 500 else 4000
        body = stream(dialect, ["Well. "] * 60, arguments=[text[at : at + size] for at in range(0, len(text), size)])
        played = await Played(made, dialect).answer([body[at : at + 1000] for at in range(0, len(body), 1000)])
        if not kind:
            assert played.out == body
            continue
        words = heard(dialect, played.out)
        assert (words["text"], words["arguments"]) == ("Well. " * 60, ""), text
        found = set(re.findall(r"approval_required|approval_denied|guardrail_unavailable", json.dumps(words["error"])))
        assert len(found) == 1, text


@pytest.mark.parametrize("dialect", CALLING)
@pytest.mark.parametrize("arguments", [{}, {"a": [1, "x"]}])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_tool_that_always_asks_does_so_without_arguments_too(world, dialect, arguments, streamed):
    made = world(settings("deny: [f]"))
    kept = made.services.tools.questions
    if streamed:
        text = json.dumps(arguments) if arguments or dialect == "gemini_generate_content" else ""
        body, given, kind = stream(dialect, ["Well. "], arguments=[text[:4], text[4:]]), None, "text/event-stream"
    else:
        body, given, kind = json.dumps(PLAIN[dialect]("f", arguments)).encode(), asking(dialect), "application/json"
    played = await Played(made, dialect, body=given).answer([body], kind)
    [(question, state)] = await kept.all()
    assert (question.call.tool, json.loads(question.call.arguments or "{}")) == ("f", arguments)
    assert state is questions.State.OPEN
    assert b'"f"' not in played.out
    await kept.decide(question.id, approve=True, by="ada", reason="")
    assert (await Played(made, dialect, body=given).answer([body], kind)).out == body
    assert b'"f"' not in (await Played(made, dialect, body=given).answer([body], kind)).out, "an approval is used once"


@pytest.mark.parametrize("failure", ["open", "closed"])
@pytest.mark.parametrize("fault", ["bug", "unreadable", "large"])
async def test_an_answer_that_cannot_be_checked_passes_where_it_may(world, monkeypatch, failure, fault):
    text = settings("deny: [g]", failure=failure) + ("\nlimits: {buffered_response: 1KiB}" if fault == "large" else "")
    body = stream("openai_chat", arguments=['{"a": "', "x" * 3000, '"}'])
    if fault == "unreadable":
        body = b"data: {\n\n" + body
    if fault == "bug":
        monkeypatch.setattr(Tools, "find", lambda *_: 1 / 0)
    played = await Played(world(text), "openai_chat").answer([body])
    assert (played.out == body) is (failure == "open")
    assert (b"guardrail_unavailable" in (played.out or played.head.body)) is (failure == "closed")


async def test_questions_that_cannot_be_asked_refuse(world, monkeypatch):
    made = world(settings("deny: [f]"))
    body = stream("openai_chat", arguments=["{}"])
    monkeypatch.setattr("extproc.access.questions.MOST", 0)
    assert b"too many questions" in (await Played(made, "openai_chat").answer([body])).out
    large = stream("openai_chat", arguments=[json.dumps({"a": "x" * 5000})])
    assert b"4KiB" in (await Played(made, "openai_chat").answer([large])).out

    async def away(*_):
        raise StoreError("away")

    monkeypatch.setattr(made.services.counters, "share", away)
    assert b"store_unavailable" in (await Played(made, "openai_chat").answer([body])).out


@pytest.mark.parametrize("changes", [{}, {"on": ["tool_arguments"]}, {"on": ["tool_calls"], "action": "mask"}])
def test_settings_that_cannot_ask_are_refused(changes):
    with pytest.raises(ValidationError):
        ToolsSettings(name="calls", kind="tools", deny=["f"], **{"action": "ask", **changes})


@pytest.mark.parametrize("tainted", [True, False])
async def test_a_sensitive_tool_asks_after_untrusted_text(world, tainted):
    asks = "kind: untrusted_context, action: ask, sensitive: [f], approval: {wait: 0s}"
    made = world(f"{PROVIDER}guardrails: [{{name: taint, {asks}}}]")
    page = [{"role": "tool", "tool_call_id": "c", "content": "page"}] if tainted else []
    given = request("openai_chat") | {"messages": [{"role": "user", "content": "Hello"}, *page]}
    body = stream("openai_chat", arguments=["{}"])
    played = await Played(made, "openai_chat", body=given).answer([body])
    assert (b"approval_required" in played.out) is tainted
    assert (played.out == body) is not tainted


FUNCTION = {"name": "f", "arguments": "{}"}
TWICE = {  # events of an answer that calls f twice with the same arguments
    "openai_chat": [
        {
            "choices": [
                {"index": 0, "delta": {"tool_calls": [{"index": n, "function": {"name": "f", "arguments": "{}"}}]}}
            ]
        }
        for n in range(2)
    ],
    "anthropic_messages": [
        {"type": "content_block_start", "index": n, "content_block": {"type": "tool_use", "id": "t", "name": "f"}}
        for n in range(2)
    ],
    "gemini_generate_content": [
        {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {}}}]}}]} for _ in range(2)
    ],
}


@pytest.mark.parametrize("dialect", CALLING)
def test_equal_calls_of_an_answer_are_each_asked_about(dialect):
    api, said = client_apis()[dialect], AnswerCalls()
    if dialect == "openai_responses":
        items = [
            {"type": "function_call", "id": f"fc{n}", "call_id": "c", "name": "f", "arguments": "{}"} for n in range(2)
        ]
        events = [
            {"type": "response.output_item.done", "output_index": n, "item": item} for n, item in enumerate(items)
        ]
        events.append({"type": "response.completed", "response": {"output": items}})
    else:
        events = TWICE[dialect]
    for event in events:
        assert said.add(api.said(event))
    assert [(tool, number) for tool, _, _, number in said.found()] == [("f", 0), ("f", 1)]


def test_an_action_that_events_repeat_is_one_call():
    item = {"type": "shell_call", "id": "s", "call_id": "c", "action": {"commands": ["ls"]}}
    said, api = AnswerCalls(), client_apis()["openai_responses"]
    for event in (
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"output": [item]}},
    ):
        said.add(api.said(event))
    assert [(tool, number) for tool, *_, number in said.found() if tool] == [("shell", 0)]
