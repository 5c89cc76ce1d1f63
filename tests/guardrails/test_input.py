"""The search of requests: which guardrails a request meets, masks, and every way in which a guardrail can fail."""

import json

import pytest
from pydantic import ValidationError

from extproc.guardrails import _guard as engine
from extproc.guardrails._applies import Chosen
from extproc.guardrails._guarding import guarding
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, Target
from tests.guardrails.fakes import EMAIL, Fake, Guard, Lying, Raising, Slow, Words, fake

LONG = " x" * 10_000
"""A text that is searched on a thread."""


def ask(text, **fields):
    return {"model": "m", "messages": [{"role": "user", "content": text}]} | fields


async def masked(exchange, body, *settings, path="/v1/chat/completions"):
    """The body that goes on."""
    guard = Guard(*(settings or [fake(action="mask")]))
    made = exchange(body, path=path)
    await guard.stage(made)
    assert json.loads(made.request.body) == made.request.json
    return made.request.body.decode()


# --- masks


@pytest.mark.parametrize("padding", ["", LONG])
async def test_a_finding_is_replaced_and_nothing_else_changes(exchange, padding):
    body = (
        '{ "model":"m","seed":1.50, "messages": [{"role":"user" ,"content":"Mail\\u0020ann@x.de nowPAD"},\n'
        ' {"role":"user","content":"stays \\u00e9 as it is"}],"n": 1}'
    ).replace("PAD", padding)
    found = await masked(exchange, body.encode())
    assert found == (
        '{"model":"m","seed":1.50,"messages":[{"role":"user","content":"Mail [EMAIL] nowPAD"},'
        '{"role":"user","content":"stays \\u00e9 as it is"}],"n":1}'
    ).replace("PAD", padding)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "to [EMAIL] and [EMAIL], [EMAIL]"),
        ({"style": "partial"}, "to [EMAIL:de] and [EMAIL:org], [EMAIL:de]"),
        ({"style": "reversible"}, "to <EMAIL_1> and <EMAIL_2>, <EMAIL_1>"),
    ],
)
async def test_styles(exchange, settings, text):
    body = ask("to ann.smith@x.de and bob@example.org, ann.smith@x.de")
    found = json.loads(await masked(exchange, body, fake(action="mask", **settings)))["messages"][0]["content"]
    assert found == text


async def test_a_hash_is_the_same_for_the_same_text_and_key(exchange, monkeypatch):
    monkeypatch.setenv("MASK_KEY", "k1")
    settings = fake(action="mask", style="hash", hash_key="env:MASK_KEY")
    first = await masked(exchange, ask("ann@x.de bob@x.de ann@x.de"), settings)
    words = json.loads(first)["messages"][0]["content"].split()
    assert words[0] == words[2] != words[1]
    monkeypatch.setenv("MASK_KEY", "k2")
    assert await masked(exchange, ask("ann@x.de bob@x.de ann@x.de"), settings) != first


async def test_a_placeholder_that_the_client_wrote_is_not_used(exchange):
    guard, made = Guard(fake(action="mask", style="reversible")), exchange(ask("<EMAIL_1> ann@x.de"))
    await guard.stage(made)
    assert made.request.json["messages"][0]["content"] == "<EMAIL_1> <EMAIL_2>"
    assert guarding(made).vault.kept == {"<EMAIL_2>": "ann@x.de"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"to": "ann@x.de", "n": 1}', '{"to": "[EMAIL]", "n": 1}'),
        (r'{"to": "ann\u0040x.de", "say": "\"hi\""}', r'{"to": "[EMAIL]", "say": "\"hi\""}'),
        ('{"number": 5551234567, "x": [5551234567]}', '{"number": "[PHONE]", "x": ["[PHONE]"]}'),
        ('["x\\ud83d\\ude00ann@x.de"]', '["x\\ud83d\\ude00[EMAIL]"]'),
    ],
)
async def test_masked_arguments_of_a_call_stay_json(exchange, arguments, expected):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    body = ask("Hello")
    body["messages"].append({"role": "assistant", "content": None, "tool_calls": [call]})
    phone = fake(Words("phone", r"5551234567"), "p", action="mask")
    found = json.loads(await masked(exchange, body, fake(action="mask"), phone))
    assert found["messages"][1]["tool_calls"][0]["function"]["arguments"] == expected
    json.loads(expected)


async def test_text_split_over_parts_is_found_and_masked_in_each(exchange):
    parts = [{"type": "text", "text": "write ann"}, {"type": "text", "text": "@x.de soon"}]
    found = json.loads(await masked(exchange, ask(parts)))["messages"][0]["content"]
    assert [part["text"] for part in found] == ["write [EMAIL]", " soon"]


@pytest.mark.parametrize(
    "text", ["ａｎｎ＠ｘ.ｄｅ", "an\u200bn@x\u00ad.de", "".join(chr(0xE0000 + ord(letter)) for letter in "ann@x.de")]
)
async def test_disguised_text_is_masked_as_it_was_written(exchange, text):
    found = json.loads(await masked(exchange, ask(f"é: {text} é")))["messages"][0]["content"]
    assert found == "é: [EMAIL] é"


async def test_of_two_masks_at_one_place_the_first_guardrail_wins(exchange):
    first, second = Words("word", r"ann@x"), Words("email", EMAIL)
    found = await masked(
        exchange, ask("to ann@x.de!"), fake(first, "a", action="mask"), fake(second, "b", action="mask")
    )
    assert json.loads(found)["messages"][0]["content"] == "to [WORD]!"


async def test_what_cannot_be_masked_is_refused(exchange):
    guard = Guard(fake(Words("card", "4111111111111111"), action="mask"))
    with pytest.raises(Refusal) as refused:
        await guard.stage(exchange(ask("x", metadata={"n": 4111111111111111})))
    assert refused.value.kind.code == "guardrail_blocked"
    assert "cannot mask" in refused.value.message


async def test_validators_see_the_text_as_it_was_sent(exchange):
    guard = Guard(fake(name="mask", action="mask"), fake(name="watch", action="audit"))
    await guard.stage(exchange(ask("ann@x.de")))
    assert guard.told == [("mask", "mask", {"email": 1}), ("watch", "audit", {"email": 1})]


async def test_the_ask_of_other_dialects_is_masked_too(exchange):
    body = {"model": "m", "max_tokens": 5, "system": "ann@x.de", "messages": [{"role": "user", "content": "ann@x.de"}]}
    found = json.loads(await masked(exchange, body, path="/v1/messages"))
    assert (found["system"], found["messages"][0]["content"]) == ("[EMAIL]", "[EMAIL]")
    body = {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": "ann@x.de"}]}]}
    assert "ann@" not in await masked(exchange, body, path="/v1/responses")
    assert "ann@" not in await masked(exchange, {"model": "m", "prompt": ["ann@x.de"]}, path="/v1/completions")
    assert "ann@" not in await masked(exchange, {"model": "m", "input": ["a", "ann@x.de"]}, path="/v1/embeddings")


# --- the requests that meet a guardrail


@pytest.mark.parametrize(
    ("applies_to", "meets"),
    [
        ({}, True),
        ({"consumers": ["al*"]}, True),
        ({"consumers": ["bob"]}, False),
        ({"consumers": []}, False),
        ({"models": ["m"]}, True),
        ({"models": ["gpt-*"]}, True),  # the second target
        ({"models": ["claude-*"]}, False),
        ({"labels": {"team": "*"}}, True),
        ({"labels": {"team": "blue"}}, False),
        ({"labels": {"other": "*"}}, False),
        ({"consumers": ["alice"], "labels": {"team": "red"}}, True),
        ({"consumers": ["bob"], "labels": {"team": "red"}}, False),
    ],
)
@pytest.mark.parametrize("header", [None, "g", " other , g "])
async def test_a_guardrail_applies_or_is_named_by_the_request(exchange, applies_to, meets, header):
    guard = Guard(fake(applies_to=applies_to), fake(name="other", applies_to={"consumers": []}))
    made = exchange(
        ask("ann@x.de"),
        consumer=Consumer("alice"),
        labels={"team": "red"},
        headers={"x-ai-guardrails": header} if header else {},
        targets=(Target("m", "a", "m"), Target("gpt-4o", "b", "x")),
    )
    if meets or header:
        with pytest.raises(Refusal):
            await guard.stage(made)
    else:
        await guard.stage(made)


@pytest.mark.parametrize("guards", [[], [fake()]])
async def test_a_name_that_no_guardrail_has_is_refused(exchange, guards):
    with pytest.raises(Refusal) as refused:
        await Guard(*guards).stage(exchange(ask("x"), headers={"x-ai-guardrails": "unknown"}))
    assert (refused.value.kind.code, refused.value.param) == ("invalid_request", "x-ai-guardrails")


async def test_more_names_than_fit_are_refused(exchange):
    guards = [fake(name=f"g{index}") for index in range(40)]
    header = ",".join(guard.name for guard in guards)
    with pytest.raises(Refusal):
        await Guard(*guards).stage(exchange(ask("x"), headers={"x-ai-guardrails": header}))


async def test_a_request_that_a_budget_downgrades_meets_the_guardrails_of_the_cheaper_model(world):
    made = world(
        """
budgets: [{name: b, unit: requests, limit: 0, window: day, on_exceed: downgrade, downgrade_to: n, match: {model: m}}]
guardrails: [{name: g, kind: regex, patterns: {a: CANARY}, applies_to: {models: [n]}}]
"""
    )
    stream = made.stream()
    await stream.on_request_headers({":method": "POST", ":path": "/v1/chat/completions"}, False)
    refused = await stream.on_request_body(json.dumps(ask("CANARY")).encode())
    assert b"guardrail_blocked" in refused.body
    await stream.on_end()


async def test_tool_results_alone(exchange):
    settings = fake(on=["tool_results"])
    await Guard(settings).stage(exchange(ask("ann@x.de")))
    body = ask("Hello")
    body["messages"].append({"role": "tool", "tool_call_id": "1", "content": "ann@x.de"})
    with pytest.raises(Refusal):
        await Guard(settings).stage(exchange(body))


async def test_guardrails_of_answers_do_not_read_requests(exchange):
    detector = Words("email", EMAIL)
    made = exchange(ask("ann@x.de"))
    await Guard(fake(detector, on=["output"])).stage(made)
    assert detector.seen == []
    assert [guard.name for guard in guarding(made).guards] == ["g"]


# --- verdicts


@pytest.mark.parametrize(("action", "told"), [("audit", False), ("annotate", True), ("mask", True)])
async def test_verdicts_are_entered_and_told(world, action, told):
    made = world(f"guardrails: [{{name: g, kind: regex, patterns: {{email: '{EMAIL}'}}, action: {action}}}]")
    stream = made.stream()
    await stream.on_request_headers({":method": "POST", ":path": "/v1/chat/completions"}, False)
    await stream.on_request_body(json.dumps(ask("ann@x.de bob@x.de")).encode())
    head = await stream.on_response_headers(
        {":status": "200", "content-type": "application/json"}, {"upstream.request_attempt_count": 1.0}, True
    )
    assert head.set_headers.get("x-ai-guardrails") == (f"g:{action}" if told else None)
    await stream.on_end()
    assert made.metric("extproc_guardrail_findings_total", guardrail="g", action=action) == 1
    [verdict] = made.verdicts
    assert [(one["where"], one["kind"]) for one in verdict["examples"]] == [("messages[0].content", "email")] * 2
    wanted = {"guardrail": "g", "on": "input", "action": action, "findings": {"email": 2}}
    assert verdict | wanted == verdict
    assert verdict["exchange"] == made.log[0]["id"]
    assert "ann@" not in json.dumps([made.log, made.trail])


async def test_a_block_is_told_in_a_header(exchange):
    with pytest.raises(Refusal) as refused:
        await Guard(fake()).stage(exchange(ask("ann@x.de")))
    assert refused.value.headers == {"x-ai-guardrails": "g:block"}


# --- failures: every way in which a guardrail can fail, and its verdict

FAILURES = {
    "an exception": (Raising, {}, "error"),
    "a span outside of the text": (Lying, {}, "error"),
    "a timeout": (Slow, {"timeout": "50ms"}, "timeout"),
}


@pytest.mark.parametrize("action", ["block", "mask", "annotate", "audit"])
@pytest.mark.parametrize("failure", ["closed", "open"])
@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("padding", ["", LONG])
async def test_a_failure_refuses_where_it_is_closed_and_enforced(exchange, how, failure, action, padding):
    detector, settings, reason = FAILURES[how]
    padding = padding or (LONG if how == "a timeout" else "")  # short text is searched in place
    guard = Guard(fake(detector(), action=action, failure=failure, **settings), fake(name="after", action="audit"))
    made = exchange(ask("ann@x.de" + padding))
    if failure == "closed" and action in ("block", "mask"):
        with pytest.raises(Refusal) as refused:
            await guard.stage(made)
        assert (refused.value.kind.status, refused.value.kind.code) == (503, "guardrail_unavailable")
        assert "CANARY" not in refused.value.message
    else:
        await guard.stage(made)
        assert guard.told[1] == ("after", "audit", {"email": 1})
    assert (guard.verdicts[0].action, guard.verdicts[0].reason) == ("failed", reason)


@pytest.mark.parametrize("failure", ["closed", "open"])
async def test_more_scans_than_the_limit_are_a_failure(exchange, failure):
    guard = Guard(fake(failure=failure), most=0)
    made = exchange(ask("ann@x.de" + LONG))
    if failure == "closed":
        with pytest.raises(Refusal) as refused:
            await guard.stage(made)
        assert refused.value.kind.code == "guardrail_unavailable"
    else:
        await guard.stage(made)
    assert guard.verdicts[0].reason == "overload"


async def test_a_bug_in_the_gateways_own_code_is_no_verdict(exchange, monkeypatch):
    made = exchange(ask("x" + LONG))
    monkeypatch.setattr(made.request.dialect, "texts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await Guard(fake(failure="open")).stage(made)


async def test_unreadable_input_passes_only_where_guardrails_may_fail(exchange):
    made = exchange({"model": "m", "input": [1, 2]}, path="/v1/embeddings")
    for settings in (fake(action="audit"), fake(failure="open")):
        guard = Guard(settings)
        await guard.stage(made)
        assert guard.verdicts[0].reason == "unreadable"
    with pytest.raises(Refusal):
        await Guard(fake()).stage(made)


# --- settings


@pytest.mark.parametrize(
    "settings",
    [
        {"style": "hash"},
        {"action": "mask", "style": "reversible", "on": ["output"]},
        {"on": []},
        {"on": ["everything"]},
        {"timeout": "0s"},
        {"timeout": "10s"},
        {"applies_to": {"labels": {f"l{index}": "x" for index in range(17)}}},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError):
        Fake(name="g", **settings)


async def test_the_header_of_the_request_reaches_no_provider(world):
    made = world("attribution: {prefix: x-ai-}\nguardrails: [{name: g, kind: regex, patterns: {a: CANARY}}]")
    stream = made.stream()
    headers = {":method": "POST", ":path": "/v1/chat/completions", "x-ai-guardrails": "g", "x-ai-task": "t"}
    await stream.on_request_headers(headers, False)
    onward = await stream.on_request_body(json.dumps(ask("x")).encode())
    assert {"x-ai-guardrails", "x-ai-task"} <= {*onward.remove_headers}
    assert stream._exchange.money.labels == {"task": "t"}


async def test_guardrails_found_by_a_fact_are_those_that_apply(exchange):
    wheres = [
        {},
        {"consumers": ["ann"]},
        {"consumers": ["bob", "ann"], "labels": {"team": "x*"}},
        {"consumers": ["a*"]},
        {"consumers": []},
        {"labels": {"team": "red"}},
        {"labels": {"team": "*", "city": "rome"}, "models": ["m*"]},
        {"models": ["m", "n"]},
        {"models": ["n"]},
        {"models": ["later"]},
    ]
    guards = [engine.Guard(fake(name=f"g{at}", applies_to=where), at) for at, where in enumerate(wheres)]
    chosen = Chosen(guards, ["later"])
    for name in ("ann", "bob", "eve"):
        for labels in ({}, {"team": "red"}, {"team": "xy", "city": "rome"}):
            made = exchange(ask("x"))
            made.consumer, made.money.labels = Consumer(name), labels
            assert chosen.of(made, ()) == [guard for guard in guards if guard.applies(made, ["later"])]
            assert guards[4] in chosen.of(made, [guards[4]])


@pytest.mark.parametrize("action", ["mask", "block", "annotate"])
async def test_a_request_with_more_findings_than_the_bound(exchange, action):
    guard = Guard(fake(action=action, max_findings=2))
    made = exchange(ask("ann@x.de bob@x.de eve@x.de"))
    if action == "annotate":
        await guard.stage(made)
        assert guard.told == [("g", "annotate", {"email": 2})]
        return
    with pytest.raises(Refusal) as refused:
        await guard.stage(made)
    assert refused.value.kind.code == "guardrail_blocked"
    assert ("too many findings" in refused.value.message) is (action == "mask")
