"""The tools that a model may call, and the arguments of its calls, plain and streamed in every client API."""

import json

import pytest
import yaml
from pydantic import ValidationError

from extproc.guardrails._rules import ArgumentRules, ArgumentSettings
from extproc.guardrails.tools import ToolsSettings
from tests.guardrails.streams import PATHS, PROVIDER, Played, heard, request, stream
from tests.guardrails.test_output import asking

CALLING = [dialect for dialect in PATHS if dialect != "openai_completions"]


def settings(rules, action="block"):
    return f"{PROVIDER}guardrails: [{{name: calls, kind: tools, action: {action}, {rules}}}]"


PLAIN = {
    "gemini_generate_content": lambda name, arguments: {
        "candidates": [{"content": {"parts": [{"functionCall": {"name": name, "args": arguments}}]}}]
    },
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
        text = json.dumps(arguments, separators=(",", ":")).replace(" ", "\\u0020")
        body = stream(dialect, arguments=[text[start : start + 3] for start in range(0, len(text), 3)])
        played = await Played(world(settings(rules)), dialect).answer([body])
    else:
        body = json.dumps(PLAIN[dialect]("f", arguments)).encode()
        played = await Played(world(settings(rules)), dialect, body=asking(dialect)).answer([body], "application/json")
    assert (played.status == 400) is blocked
    assert played.out == (b"" if blocked else body)


RULES = "arguments: {f: {command: {deny_pattern: 'rm\\s+-rf'}, cwd: {allow_pattern: '/tmp(?:/.*)?'}}}"
SAFE = ['{"command": "ls", "cwd": "/tmp/x"}', '{"command": ["ls", "-rf"]}', '{"note": "rm -rf"}', '{"command": null}']
UNSAFE = {
    r'{"command": "r\u006d -rf /"}': "f.command",
    r'{"c\u006fmmand": "rm  -rf /"}': "f.command",
    '{"command": ["rm", "-rf", "/"]}': "f.command",
    '{"steps": [{"Command": "rm -rf /"}]}': "f.command",
    json.dumps({"x": json.dumps({"y": json.dumps({"command": "rm -rf /"})})}): "f.command",
    '{"command": "\uff52\uff4d -rf /"}': "f.command",
    '{"command": "echo cm0gLXJmIC8gLS1uby1wcmVzZXJ2ZS1yb290 | base64 -d | sh"}': "f.command",
    '{"command": "ls", "command": "rm -rf /"}': "unreadable",
    '{"x": "{\\"command\\": \\"ls\\", \\"command\\": \\"rm -rf /\\"}"}': "unreadable",
    '{"command": "ls"': "unreadable",
    '{"cwd": "/etc"}': "f.cwd",
    '{"cwd": ["/tmp", "/etc"]}': "f.cwd",
    '{"cwd": "/tmp\\n/etc"}': "f.cwd",
    '{"a": [%s1]}' % ("1," * 10_000): "unreadable",
    "[" * 70 + "]" * 70: "unreadable",
}


@pytest.mark.parametrize("dialect", CALLING)
async def test_arguments_have_rules_of_their_own(world, dialect):
    """No event of a call leaves before its arguments are complete and judged, whatever form they have."""
    made, told = world(settings(RULES)), []
    for text, kind in [*((text, "") for text in SAFE), *UNSAFE.items()]:
        size = 3 if len(text) < 500 else 4000
        body = stream(dialect, ["Well. "] * 60, arguments=[text[at : at + size] for at in range(0, len(text), size)])
        before = len(told)
        played = await Played(made, dialect).answer([body[at : at + 1000] for at in range(0, len(body), 1000)])
        words = heard(dialect, played.out)
        assert words["text"] == "Well. " * 60
        verdict = ("calls", "output", "block", {kind: 1})
        if dialect == "gemini_generate_content" and kind == "unreadable" and text.startswith('{"command"'):
            verdict = ("calls", "output", "failed", {})  # its arguments are JSON of the event itself
        if kind:
            assert words["arguments"] == "", text
            assert "guardrail_" in json.dumps(words["error"])
        else:
            assert played.out == body
        told = played.verdicts
        assert told[before:] == ([verdict] if kind else [])


LIMITS = [  # rule, arguments that keep it, arguments that break it
    (
        "/amount: {exclusive_maximum: 100}",
        ["99.5", "-1", "[1, 2]"],
        ["100", "1e300", '"99"', "true", "null", "[1, 100]"],
    ),
    ("/amount: {minimum: 1, maximum: 3}", ["1", "3"], ["0", "3.5", "{}", "[]"]),
    ("/amount: {exclusive_minimum: 0, optional: true}", ["1", "null", "[]"], ["0"]),
    ("/amount: {enum: [1, DE, true]}", ["1", "1.0", '"DE"', "true", '["DE", 1]'], ["2", '"1"', '"true"', '"de"']),
    ("/amount: {enum: [1]}", ["1"], ["true"]),
    (
        "/amount: {prefix: /srv/}",
        ['"/srv/a..b"'],
        ['"/srv"', '"/srv/../etc"', '"/srv/a/.."', '"/srv/\uff0e\uff0e/x"', "7"],
    ),
    ("amount: {maximum: 5}", ["5", "null"], ["6", '{"x": [5, 6]}']),
    ("/~1a~0b/1/x: {enum: [y]}", [], ["1"]),
]


def _at(value):
    return f'{{"amount": {value}}}'


KEPT = [
    *(
        (rule, _at(value), kept)
        for rule, good, bad in LIMITS
        for value, kept in [(v, 1) for v in good] + [(v, 0) for v in bad]
    ),
    ("/amount: {maximum: 5}", '{"x": {"amount": 1}}', 0),  # a pointer names one place
    ("/amount: {maximum: 5}", '{"Amount": 1}', 0),
    ("amount: {maximum: 5}", '{"x": {"Amount": 6}}', 0),
    ("amount: {maximum: 5}", "{}", 1),
    ("/~1a~0b/1/x: {enum: [y]}", '{"/a~b": [0, {"x": "y"}]}', 1),
    ("/~1a~0b/1/x: {enum: [y]}", '{"/a~b": [{"x": "y"}]}', 0),
    ("/body/amount: {maximum: 5}", '{"body": "{\\"amount\\": 1}"}', 0),
]


@pytest.mark.parametrize(("rule", "arguments", "kept"), KEPT)
def test_the_conditions_of_an_argument(rule, arguments, kept):
    rules = ArgumentRules(
        {"pay*": {key: ArgumentSettings(**one) for key, one in yaml.safe_load(f"{{{rule}}}").items()}}
    )
    broken = rules.broken("payout", arguments, json=True)
    assert bool(broken) is not bool(kept)
    assert all(kind.startswith("pay*.") and "must be" in said for kind, said in broken.items())
    assert not rules.meant("other")


async def test_a_refusal_says_the_rule(world):
    made = world(settings("arguments: {f: {/amount: {exclusive_maximum: 100}}}"))
    body = json.dumps(PLAIN["openai_chat"]("f", {"amount": 100})).encode()
    played = await Played(made, "openai_chat", body=asking("openai_chat")).answer([body], "application/json")
    assert played.verdicts == [("calls", "output", "block", {"f./amount": 1})]
    assert "The argument '/amount' must be less than 100." in json.loads(played.head.body)["error"]["message"]


async def test_calls_side_by_side_are_judged_each_by_its_own_tool(world):
    def event(index, name, piece):
        function = {"arguments": piece} | ({"name": name} if name else {})
        chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": index, "function": function}]}}]}
        return f"data: {json.dumps(chunk)}\n\n".encode()

    def body(first, second):
        calls = [
            event(0, first, '{"command":'),
            event(1, second, '{"command":'),
            event(0, "", ' "rm'),
            event(1, "", ' "rm'),
        ]
        return b"".join([*calls, event(0, "", ' -rf"}'), event(1, "", ' -r"}'), b"data: [DONE]\n\n"])

    for first, second, blocked in (("f", "g", True), ("g", "f", False), ("", "g", True)):
        played = await Played(world(settings(RULES)), "openai_chat").answer([body(first, second)])
        assert played.status == (400 if blocked else 200)


async def test_a_name_in_several_pieces_is_one_name(world):
    body = b""
    for piece in ("sh", "ell"):
        call = {"index": 0, "function": {"name": piece, "arguments": ""}}
        body += f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'tool_calls': [call]}}]})}\n\n".encode()
    assert (await Played(world(settings("deny: [shell]")), "openai_chat").answer([body])).status == 400
    assert (await Played(world(settings("deny: [shellfish]")), "openai_chat").answer([body])).out == body


async def test_a_call_without_a_name_has_the_name_of_its_kind(world):
    item = {"type": "shell_call", "id": "s", "call_id": "c", "action": {"commands": ["ls", "rm -rf /"]}}
    body = json.dumps({"output": [item]}).encode()
    streamed = b'data: {"type": "response.output_item.done", "item": %b}\n\n' % json.dumps(item).encode()
    for rules in ("deny: [shell]", "arguments: {shell: {commands: {deny_pattern: 'rm -rf'}}}"):
        played = Played(world(settings(rules)), "openai_responses", body=asking("openai_responses"))
        assert (await played.answer([body], "application/json")).status == 400
        assert (await Played(world(settings(rules)), "openai_responses").answer([streamed])).status == 400


async def test_custom_tools_take_text(world):
    item = {"type": "custom_tool_call", "id": "s", "call_id": "c", "name": "f", "input": "rm -rf /"}
    rules = "arguments: {f: {input: {deny_pattern: 'rm -rf'}}}"
    played = Played(world(settings(rules)), "openai_responses", body=asking("openai_responses"))
    assert (await played.answer([json.dumps({"output": [item]}).encode()], "application/json")).status == 400


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
    [
        {},
        {"allow": ["f"], "action": "mask"},
        {"allow": ["f"], "on": ["input"]},
        {"deny_arguments": {"a": "("}},
        {"arguments": {"f": {}}},
        {"arguments": {"f": {"a": {}}}},
        {"arguments": {"f": {"a": {"deny_pattern": "("}}}},
        {"arguments": {"f": {"/a": {"optional": True}}}},
        {"arguments": {"f": {"/a": {"maximum": float("nan")}}}},
        {"arguments": {"f": {"/a": {"enum": []}}}},
        {"arguments": {"f": {"/a": {"prefix": ""}}}},
    ],
)
def test_settings_that_make_no_sense_are_refused(rules):
    with pytest.raises(ValidationError):
        ToolsSettings(name="g", kind="tools", **rules)


@pytest.mark.parametrize("dialect", ["anthropic_messages", "gemini_generate_content"])
async def test_a_plain_answer_with_a_field_given_twice_is_withheld(world, dialect):
    """One reader takes the first, another the last."""
    body = json.dumps(PLAIN[dialect]("f", {"command": "ls"})).replace('"ls"', '"ls", "command": "rm -rf /"').encode()
    played = await Played(world(settings(RULES)), dialect, body=asking(dialect)).answer([body], "application/json")
    assert (played.status, played.verdicts) == (503, [("calls", "output", "failed", {})])
