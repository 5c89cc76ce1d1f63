"""Sensitive tools in conversations with results of untrusted ones, in every client API."""

import json
import re

import pytest

from extproc.dialects import client_apis
from extproc.guardrails.untrusted_context import UntrustedContextSettings
from extproc.words.api import Tools
from tests.guardrails.streams import PROVIDER, Played, request, stream
from tests.guardrails.test_output import asking
from tests.guardrails.test_tools import CALLING, PLAIN


def guard(rules="", action="block"):
    return (
        f"{PROVIDER}guardrails: [{{name: taint, kind: untrusted_context, sensitive: [f], action: {action}, {rules}}}]"
    )


def conversation(dialect, tool="browse", id="c1"):
    """A request that offers f and browse, after a result of `tool`."""
    if dialect == "openai_chat":
        call = {"id": id, "type": "function", "function": {"name": tool, "arguments": "{}"}}
        messages = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "page"},
        ]
        offered = [{"type": "function", "function": {"name": name}} for name in ("f", "browse")]
        choice = {"type": "function", "function": {"name": "f"}}
        return {"messages": messages, "tools": offered, "tool_choice": choice}
    if dialect == "openai_responses":
        items = [
            {"role": "user", "content": "Hi"},
            {"type": "function_call", "call_id": id, "name": tool, "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "page"},
        ]
        offered = [{"type": "function", "name": name, "parameters": {}} for name in ("f", "browse")]
        return {"input": items, "tools": offered, "tool_choice": {"type": "function", "name": "f"}}
    if dialect == "gemini_generate_content":
        contents = [
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [{"functionCall": {"id": id, "name": tool, "args": {}}}]},
            {"role": "user", "parts": [{"functionResponse": {"id": "c1", "name": tool, "response": {}}}]},
        ]
        calling = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}
        return {
            "contents": contents,
            "tools": [{"functionDeclarations": [{"name": name} for name in ("f", "browse")]}],
            "toolConfig": calling,
        }
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": tool, "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "page"}]},
    ]
    offered = [{"name": name, "input_schema": {"type": "object"}} for name in ("f", "browse")]
    return {"messages": messages, "tools": offered, "tool_choice": {"type": "tool", "name": "f"}}


def calls(dialect):
    return stream(dialect, arguments=["{}"]), json.dumps(PLAIN[dialect]("f", {})).encode()


@pytest.mark.parametrize("dialect", CALLING)
@pytest.mark.parametrize(
    "case",
    [
        ("", "browse", "c1", True),
        ("trusted: [browse]", "browse", "c1", False),
        ("trusted: [browse]", "other", "c1", True),
        ("untrusted: ['web*']", "browse", "c1", False),
        ("untrusted: ['web*']", "web_search", "c1", True),
        ("untrusted: [], trusted: ['*']", "browse", "another", True),  # the result of an unknown call
    ],
)
async def test_a_sensitive_call_after_an_untrusted_result_is_refused(world, dialect, case):
    rules, tool, id, blocked = case
    streamed, plain = calls(dialect)
    more = conversation(dialect, tool, id)
    played = Played(world(guard(rules)), dialect, body=request(dialect) | more)
    await played.answer([streamed])
    assert (played.status, played.out) == ((400, b"") if blocked else (200, streamed))
    sent = json.loads(played.sent.body) if played.sent.body is not None else more
    assert ("f" not in re.sub("'function[A-Za-z]*'", "", str(sent["tools"]))) is blocked
    assert ({"tool_choice", "toolConfig"}.isdisjoint(sent)) is blocked
    assert "browse" in str(sent["tools"])
    played = Played(world(guard(rules)), dialect, body=asking(dialect) | more)
    await played.answer([plain], "application/json")
    assert (played.status, played.out) == ((400, b"") if blocked else (200, plain))
    if blocked:
        assert played.verdicts[0] == ("taint", "input", "mask", {"sensitive_tool": 1})
        assert played.verdicts[1] == ("taint", "output", "block", {"sensitive_tool": 1})


@pytest.mark.parametrize("dialect", CALLING)
async def test_a_conversation_without_results_may_call_everything(world, dialect):
    streamed, _ = calls(dialect)
    assert (await Played(world(guard()), dialect).answer([streamed])).out == streamed


def test_a_tool_that_the_provider_runs_gives_results_within_the_answer(exchange):
    more = conversation("openai_responses")
    more["input"] = more["input"][:1]
    detector = UntrustedContextSettings(name="g", kind="untrusted_context", sensitive=["f"]).build()
    for offered, untrusted in ([{"type": "web_search"}], ("web_search",)), ([], ()):
        asked = exchange({"model": "m"} | more | {"tools": [*more["tools"], *offered]}, path="/v1/responses")
        assert (detector.for_exchange(asked) is not None) is bool(untrusted)
        assert asked.findings.untrusted == untrusted


async def test_the_last_tool_goes_with_its_list(world):
    more = conversation("openai_chat") | {"functions": [{"name": "f"}], "parallel_tool_calls": True}
    more["tools"] = more["tools"][:1]
    played = Played(world(guard()), "openai_chat", body=request("openai_chat") | more)
    await played.ask()
    sent = json.loads(played.sent.body)
    assert not {"tools", "functions", "tool_choice", "parallel_tool_calls"} & {*sent}


async def test_audit_leaves_the_request_alone(world):
    streamed, _ = calls("openai_chat")
    played = Played(
        world(guard(action="audit")), "openai_chat", body=request("openai_chat") | conversation("openai_chat")
    )
    await played.answer([streamed])
    assert played.out == streamed
    assert played.sent.body is None
    assert played.verdicts == [("taint", "output", "audit", {"sensitive_tool": 1})]


def gemini(*parts, **more):
    return {"contents": [{"role": "user", "parts": [*parts]}], **more}


RESULTS = {
    "gemini_generate_content": [
        ({"cachedContent": "cachedContents/x"}, [""]),
        (gemini({"codeExecutionResult": {"output": "1"}}, {"toolResponse": {}}), ["code_execution", ""]),
        (gemini({"functionCall": {"name": "read"}}, {"functionResponse": {"name": "read"}}), ["read"]),
        (gemini({"functionResponse": {"name": "read"}}), [""]),  # no call of that name
        (gemini({"functionCall": {"id": "x", "name": "read"}}, {"functionResponse": {"id": "x"}}), ["read"]),
        (gemini({"functionResponse": 3}, None, contents="x"), []),
    ],
    "openai_chat": [
        ({"messages": [{"role": "function", "name": "old"}]}, ["old"]),
        ({"messages": [{"role": "tool", "tool_call_id": []}, 3]}, [""]),
        ({"messages": "x", "tools": [1, {"function": []}]}, []),
    ],
    "openai_responses": [
        ({"previous_response_id": "r"}, [""]),
        ({"input": [{"type": "web_search_call", "id": "w"}]}, ["web_search"]),
        ({"input": [{"type": "mcp_call", "id": "w", "name": "read"}]}, ["read"]),
        ({"input": [{"type": "shell_call", "call_id": "s"}, {"type": "shell_call_output", "call_id": "s"}]}, ["shell"]),
        ({"input": [{"id": "i"}, {"type": "item_reference", "id": "i"}]}, ["", ""]),
        ({"input": "x"}, []),
    ],
    "anthropic_messages": [
        ({"thread": "t"}, [""]),
        ({"messages": [{"content": [{"type": "web_search_tool_result", "tool_use_id": "x"}]}]}, ["web_search"]),
        (
            {
                "messages": [
                    {"content": [{"type": "mcp_tool_use", "id": "x", "name": "read"}]},
                    {"content": [{"type": "mcp_tool_result", "tool_use_id": "x"}]},
                ]
            },
            ["read"],
        ),
        ({"messages": [{"content": [{"type": "tool_result"}]}, {"content": "x"}, None]}, [""]),
    ],
}


@pytest.mark.parametrize("dialect", RESULTS)
def test_results_and_their_tools(dialect):
    for body, results in RESULTS[dialect]:
        assert client_apis()[dialect].offers.tools.tooling(body).results == results


def test_every_api_in_which_clients_call_tools_tells_its_tools():
    """An API without `tooling` would let every call pass."""
    for dialect in client_apis().values():
        if dialect.endpoints.paths and dialect.family == "chat" and dialect.name != "openai_completions":
            assert dialect.offers.tools.tooling is not Tools().tooling, dialect.name
