"""The contract of every guardrail, and the effects of `GuardInput`. A new kind has its example on its page."""

import json
import re
import time
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from extproc.guardrails import Finding, GuardInput, GuardrailSettings, OneKind, RemoteSettings, kinds
from extproc.guardrails._base import ROLES
from extproc.words.errors import Refusal
from tests.guardrails.services import KINDS


def on_the_pages():
    """Examples of docs/guardrails: the first settings of a page, and the text that it says to send."""
    for page in Path(__file__).parents[2].glob("docs/guardrails/*.md"):
        text = page.read_text()
        if sends := re.search(r"^Send (?:the prompt |a prompt with )?`(.+?)`", text, re.MULTILINE):
            settings = re.search(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
            [entry, *_] = yaml.safe_load(settings[1])["guardrails"]
            yield entry["kind"], ({key: entry[key] for key in entry.keys() - {"kind", "name", "action"}}, sends[1])


# Settings of each kind, and a text that they match.
EXAMPLES = {
    "regex": ({"patterns": {"canary": "CANARY-[0-9]+"}}, "CANARY-42"),
    "secrets": ({}, "AKIA" + "IOSFODNN7ABCDEFG"),
    **dict(sorted(on_the_pages())),
}
ELSEWHERE = {"tools", "json_schema", "limits", "quarantine", "untrusted_context"}
"""Kinds that check answers alone, or no text: they have tests of their own."""
each = pytest.mark.parametrize("kind", EXAMPLES)


def test_every_kind_has_an_example():
    remote = {kind for kind, settings in kinds().items() if issubclass(settings, RemoteSettings)}
    assert {*EXAMPLES, *ELSEWHERE} - {"quarantine"} == set(kinds()) - remote  # services are in `services.py`
    assert remote - {"quarantine"} == {text.removeprefix("kind: ").partition(",")[0] for text in KINDS.values()}


def build(kind, **more):
    return kinds()[kind](**{"name": "g", "kind": kind} | EXAMPLES[kind][0] | more)


@pytest.mark.parametrize(("kind", "settings"), kinds().items())
def test_the_settings_are_those_of_the_kind(kind, settings):
    assert issubclass(settings, GuardrailSettings)
    assert settings.model_fields["kind"].annotation.__args__ == (kind,)


@each
def test_an_entry_of_the_settings_becomes_its_kind(kind):
    entry = {"name": "g", "kind": kind} | EXAMPLES[kind][0]
    assert type(TypeAdapter(OneKind).validate_python(entry)) is kinds()[kind]


@each
def test_a_finding_has_a_span_and_a_score(kind):
    text = f"é🌍 {EXAMPLES[kind][1]} and more"
    [finding] = build(kind).build().find(text, "user", "messages[0].content")
    assert isinstance(finding, Finding)
    start, end = finding.span
    assert text[start:end] in EXAMPLES[kind][1] or EXAMPLES[kind][1] in text[start:end]
    assert 0 < finding.score <= 1
    assert finding.kind


@each
@pytest.mark.parametrize("text", ["", "Hello", "\0", "🌍" * 1000, "a" * 100_000])
def test_harmless_text_has_no_finding(kind, text):
    assert list(build(kind).build().find(text, "user", "x")) == []


# --- GuardInput


class Guard:
    def __init__(self, *settings):
        self.counted = []
        self.stage = GuardInput(settings, lambda verdict: self.counted.append((verdict.guardrail, verdict.action)))

    async def refusal(self, exchange):
        with pytest.raises(Refusal) as refused:
            await self.stage(exchange)
        return refused.value


PLACES = {
    "messages[0].content": lambda text: {"messages": [{"role": "user", "content": text}]},
    "messages[1].content[0].text": lambda text: {
        "messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": [{"type": "text", "text": text}]}]
    },
    "messages[0].tool_calls[0].function.arguments": lambda text: {
        "messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": text}}]}]
    },
    "tools[0].function.description": lambda text: {"tools": [{"function": {"description": text}}]},
    "response_format.json_schema.schema.description": lambda text: {
        "response_format": {"json_schema": {"schema": {"description": text}}}
    },
    "metadata.a": lambda text: {"metadata": {"a": text}},
    "user": lambda text: {"user": text},
}


def question(**fields):
    return {"model": "m", "messages": [{"role": "user", "content": "Hello"}]} | fields


@each
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("padding", [0, 100_000])
async def test_a_match_anywhere_blocks_however_long_the_request(exchange, kind, where, padding):
    everyone = {"roles": ROLES} if "roles" in kinds()[kind].model_fields else {}
    guard = Guard(build(kind, **everyone))
    text = "." * padding + " " + EXAMPLES[kind][1] + " " + "." * padding
    refused = await guard.refusal(exchange(question(**PLACES[where](text))))
    assert (refused.kind.status, refused.kind.code, refused.param) == (400, "guardrail_blocked", where)
    assert "'g'" in refused.message
    assert where in refused.message
    assert guard.counted == [("g", "block")]


@each
async def test_the_refusal_never_repeats_the_match(exchange, kind):
    refused = await Guard(build(kind)).refusal(exchange(question(user=EXAMPLES[kind][1])))
    assert EXAMPLES[kind][1] not in refused.message + str(refused) + json.dumps(refused.headers)


@each
@pytest.mark.parametrize("padding", [0, 100_000])
async def test_audit_counts_and_lets_the_request_pass(exchange, kind, padding):
    guard = Guard(build(kind, action="audit"))
    await guard.stage(exchange(question(user=EXAMPLES[kind][1] + "." * padding)))
    assert guard.counted == [("g", "audit")]


@each
async def test_without_a_finding_nothing_is_counted(exchange, kind):
    guard = Guard(build(kind))
    await guard.stage(exchange(question(user="." * 100_000)))
    assert guard.counted == []


async def test_audits_before_a_block_are_counted(exchange):
    patterns = {"a": "CANARY"}
    guard = Guard(
        build("regex", name="watch", action="audit", patterns=patterns),
        build("regex", name="stop", patterns=patterns),
        build("regex", name="later", patterns=patterns),
    )
    assert "'stop'" in (await guard.refusal(exchange(question(user="CANARY")))).message
    assert guard.counted == [("watch", "audit"), ("stop", "block")]


@pytest.mark.parametrize("given", [[1, 2, 3], [[1], [2]], ["text", [1]]])
async def test_input_as_tokens_is_refused_under_a_guardrail(exchange, given):
    body = {"model": "m", "input": given}
    refused = await Guard(build("regex")).refusal(exchange(body, path="/v1/embeddings"))
    assert (refused.kind.code, refused.param) == ("guardrail_blocked", "input")
    await Guard().stage(exchange(body, path="/v1/embeddings"))


async def test_json_escapes_do_not_hide_text(exchange):
    body = rb'{"model":"m","messages":[{"content":"\u0043ANARY\u002d42"}]}'
    await Guard(build("regex")).refusal(exchange(body))


async def test_a_long_request_does_not_block_the_event_loop(exchange):
    guard = Guard(build("regex", patterns={"evil": "(a+)+$"}))
    start = time.perf_counter()
    await guard.stage(exchange(question(user="a" * 100_000 + "!")))
    assert time.perf_counter() - start < 5
