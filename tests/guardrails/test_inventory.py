"""The inventory of `except`, in the room and in the client of services: its verdict, and an exception injected in each.

| verdict | the exception means that                                                                             |
|---------|------------------------------------------------------------------------------------------------------|
| fails   | the guardrail could not judge: 503 where it is closed, and the text passes where it may fail          |
| finds   | the guardrail takes it for a finding: a blocking one refuses                                           |
| reads   | one reading of the text is not possible; the text is searched as it stands                             |
| refuses | the settings are refused                                                                               |
| ends    | the answer ends with the refusal that a guardrail decided                                              |

A new `except` needs a row. Timeouts are rows too: every wait ends in one of these exceptions.
"""

import ast
import binascii
import json
from base64 import b64encode
from pathlib import Path

import pytest

import extproc.guardrails
from extproc.guardrails import _input, _watch
from extproc.guardrails.limits import Limits
from extproc.guardrails.regex import Regex
from extproc.guardrails.tools import Tools
from extproc.guardrails.untrusted_context import UntrustedContext
from extproc.settings.document import ConfigError
from extproc.wire.outbound import service
from extproc.wire.outbound.service import Failure
from extproc.words.actions import LocalReply
from tests.cli import test_explain
from tests.guardrails import test_audits, test_failures, test_held, test_quarantine, test_regex, test_remote
from tests.guardrails.streams import PROVIDER, Played, request, stream

ROOM = Path(extproc.guardrails.__file__).parent
SECRET = "SECRET"
REGEX = "kind: regex, patterns: {k: SECRET}"
TOOLS = "kind: tools, arguments: {f: {a: {deny_pattern: SECRET}}}"
SCHEMA = "kind: json_schema, schema: {type: object}"
LONG = "All is well. " * 1000


def handlers():
    """(file and function, exceptions) of every `except` and `suppress`."""
    for path in sorted([*ROOM.glob("*.py"), Path(service.__file__)]):
        waiting = [(ast.parse(path.read_text(encoding="utf-8")), "")]
        while waiting:
            node, name = waiting.pop()
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{name}.{node.name}" if name else node.name
            if isinstance(node, ast.ExceptHandler):
                yield f"{path.stem}:{name}", ast.unparse(node.type) if node.type else "everything"
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
                yield f"{path.stem}:{name}", ast.unparse(node.args[0])
            waiting += [(child, name) for child in ast.iter_child_nodes(node)]


def raising(error):
    def call(*args, **kwargs):
        raise error

    return call


class Case:
    """An exchange with one guardrail. `answer`: an answer to play, of a client API; else the request alone counts."""

    def __init__(
        self, entry, *, target=None, name="", error=None, ask=None, answer=None, dialect="openai_chat", limits=""
    ):
        self.entry, self.target, self.name, self.error = entry, target, name, error
        self.body, self.answer, self.dialect, self.limits = ask or {}, answer, dialect, limits

    async def status(self, world, monkeypatch, failure):
        if self.target is not None:
            monkeypatch.setattr(self.target, self.name, self.error, raising=False)
        made = world(
            f"{PROVIDER}limits: {{{self.limits}}}\nguardrails: [{{name: g, {self.entry}, failure: {failure}}}]"
        )
        body = request(self.dialect) | self.body
        plain = isinstance(self.answer, dict)
        played = Played(made, self.dialect, body=body | ({"stream": False} if plain else {}))
        if self.answer is None:
            sent = await played.ask()
            await played.stream.on_end()
            return sent.status if isinstance(sent, LocalReply) else 200
        kind = "application/json" if plain else "text/event-stream"
        chunk = json.dumps(self.answer).encode() if plain else self.answer
        return (await played.answer([chunk], kind)).status


def said(text):
    return {"messages": [{"role": "user", "content": text}]}


BUG, SLOW, FULL = raising(RuntimeError("CANARY")), raising(TimeoutError()), raising(Failure("overload"))
CALL = stream("openai_chat", arguments=['{"a": "x"}'])
PLAIN_CALL = {"content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": "x"}}]}
RESULT = {"messages": [{"role": "tool", "tool_call_id": "c", "content": "page"}]}
TAINT = "kind: untrusted_context, sensitive: [f]"
ON_ANSWERS = f"{REGEX}, on: [output]"


def too_long(guard, channel):
    if channel.kept > 1000:
        raise Failure("error")
    return guard.whole


async def run_aside(self, work, *rest):
    """Only the text of the request is collected."""
    if work.func is _input.collect:
        return work()
    raise Failure("overload")


FAILS = {
    "_guard:_tried Exception (of bound)": Case(
        TAINT, target=UntrustedContext, name="for_exchange", error=BUG, ask=RESULT
    ),
    "_input:GuardInput._bound Failure": Case(
        TAINT, target=UntrustedContext, name="for_exchange", error=SLOW, ask=RESULT
    ),
    "_guard:_tried Exception (of measure)": Case("kind: limits, tools: 1", target=Limits, name="measure", error=BUG),
    "_input:GuardInput._measure Failure": Case(
        "kind: limits, tools: 1", target=_input.Threads, name="run", error=FULL, ask=said(LONG)
    ),
    "_guard:Guard.hits Exception": Case(REGEX, target=Regex, name="find", error=BUG),
    "_input:_attempt Failure": Case(REGEX, target=Regex, name="find", error=SLOW),
    "_input:GuardInput._scan Failure": Case(REGEX, target=_input.Threads, name="run", error=FULL, ask=said(LONG)),
    "_input:GuardInput._attempt_aside Failure": Case(
        REGEX, target=_input.Threads, name="run", error=run_aside, ask=said(LONG)
    ),
    "_guard:_tried Exception (of held)": Case(
        ON_ANSWERS, target=Regex, name="hold", error=BUG, answer=stream("openai_chat", ["x"] * 9)
    ),
    "_watch:Watch._decide Failure": Case(
        ON_ANSWERS, target=Regex, name="find", error=BUG, answer=stream("openai_chat", ["x"])
    ),
    "_guard:_tried Exception (of reads_whole)": Case(TOOLS, target=Tools, name="reads", error=BUG, answer=CALL),
    "_guard:_tried Exception (of judge)": Case(TOOLS, target=Tools, name="judge", error=BUG, answer=CALL),
    "_guard:_tried TimeoutError": Case(TOOLS, target=Tools, name="judge", error=SLOW, answer=CALL),
    "_watch:Watch._called Failure": Case(
        TOOLS, target=Tools, name="judge", error=BUG, answer=PLAIN_CALL, dialect="anthropic_messages"
    ),
    "_watch:Watch._too_long Failure": Case(
        SCHEMA,
        target=_watch.Watch,
        name="_reads_whole",
        error=staticmethod(too_long),
        answer=stream("openai_chat", ["x" * 600] * 3),
        limits="buffered_response: 1KiB",
    ),
}
"""The guardrail fails: closed 503, open the text passes."""

FOUND = {
    "_arguments:read InvalidJSON": Case(TOOLS, answer=stream("openai_chat", arguments=['{"a": '])),
    "_arguments:_inside InvalidJSON": Case(
        TOOLS, answer=stream("openai_chat", arguments=[json.dumps({"b": '{"a": 1, "a": 2}'})])
    ),
    "_rules:ArgumentRules.broken Unreadable": Case(TOOLS, answer=stream("openai_chat", arguments=['{"a": 1, "a": 2}'])),
    "json_schema:JSONSchema.judge InvalidJSON": Case(SCHEMA, answer=stream("openai_chat", ["no JSON"])),
    "_schema:_multiple OverflowError": Case(
        f"kind: json_schema, schema: {{multipleOf: 1{'0' * 400}}}", answer=stream("openai_chat", ["0.5"])
    ),
    # reads: text that cannot be read in one way is searched in the other
    "_watch:Watch._add InvalidJSON": Case(ON_ANSWERS, answer=b"data: {SECRET\n\n"),
    "_collect:_source (msgspec.DecodeError, UnicodeError, RecursionError)": Case(REGEX, ask=said("[1, SECRET")),
    "_files:_bytes ValueError": Case(REGEX, ask=said("data:text/plain;base64,é SECRET")),
    "_files:_decoded UnicodeDecodeError": Case(
        REGEX, ask=said(f"data:text/plain;base64,{b64encode('– SECRET'.encode('cp1252')).decode()}")
    ),
    "_unwrap:_bytes binascii.Error": Case(
        "kind: secrets",
        target=binascii,
        name="a2b_base64",
        error=raising(binascii.Error()),
        ask=said("aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0d1F3xyzA5 AKIAQ2WE4R5T6Y7U8I9O"),
    ),
    "_unwrap:_text UnicodeDecodeError": Case(
        "kind: secrets", ask=said("gP+A/4D/gP+A/4D/gP+A/4D/ AKIAQ2WE4R5T6Y7U8I9O")
    ),
    "_checks:jwt (binascii.Error, msgspec.DecodeError, UnicodeDecodeError)": Case(
        "kind: secrets",
        ask=said("eyJhbGciOiJIUzI1Ni.eyJzdWIiOiIxMjM0NTY3ODkwIn0.aB3dE6gH9jK2mN5pQ8s AKIAQ2WE4R5T6Y7U8I9O"),
    ),
    "_checks:credential (binascii.Error, UnicodeDecodeError)": Case(
        "kind: secrets", ask=said("Authorization: Basic gP+A/4D/gP+A/4D/x AKIAQ2WE4R5T6Y7U8I9O")
    ),
    "_personal:_ip ValueError": Case("kind: pii", ask=said("1.2.3.999 or ana@example.org")),
}
"""Blocked, whatever `failure` says: findings of their own, and text that is searched as it stands."""

REFUSED = {
    "_patterns:readable re2.error": "kind: regex, patterns: {k: '('}",
    "_schema:Schema._parts ValueError": "kind: json_schema, schema: {pattern: '('}",
    "service:service_url ValueError": "kind: webhook, url: 'http://[x'",
}
"""Settings that are refused."""

ELSEWHERE = {
    "_explain:explain_guardrails Refusal": test_explain.test_the_guardrails_that_a_request_meets_are_explained,
    "_explain:_verdict Refusal": test_explain.test_the_text_that_a_guardrail_found_is_not_shown,
    "_guard:Guard.hits Failure": test_regex.test_the_deadline_is_looked_at_inside_of_a_piece,
    "_patterns:Matching.__init__ re2.error": test_regex.test_patterns_too_large_for_one_set_are_searched_one_by_one,
    "_held:HoldCalls.__call__ Refusal": test_held.test_a_call_that_asks_leaves_no_trace_and_others_pass,
    "_held:HoldCalls._findings Failure": test_held.test_an_answer_that_cannot_be_checked_passes_where_it_may,
    "_held:HoldCalls.released StoreError": test_held.test_questions_that_cannot_be_asked_refuse,
    "_held:HoldCalls._state TooManyQuestionsError": test_held.test_questions_that_cannot_be_asked_refuse,
    "_output:GuardOutput.__call__ Failure": test_failures.test_no_thread_is_free,
    "_watch:Watch.take Ends": test_failures.test_find_fails_when_the_answer_has_begun,
    "_watch:Watch.judged Ends": test_remote,
    "_audits:Review.verdicts Failure": test_audits.test_a_failure_ends_the_questions_about_an_answer,
    "_audits:Review.verdicts asyncio.CancelledError": test_audits.test_a_stop_waits_and_what_is_late_then_is_a_timeout,
    "_audits:Audits._finish Exception": test_audits.test_a_record_that_fails_is_told,
    "_input:GuardInput._ask Failure": test_remote,
    "_output:GuardOutput._ask.findings Failure": test_remote,
    "service:Service._post ConnectionError": test_remote,
    "service:Service._post TimeoutError": test_remote,
    "service:Service._post AnswerError": test_remote,
    "service:Service._post OSError": test_remote,
    "service:Service._post BaseException": test_remote,
    "service:decoded (msgspec.DecodeError, UnicodeError, RecursionError)": test_remote,
    "service:bounded Failure": test_remote,
    "service:bounded Exception": test_remote,
    "_asking:_words ValueError": test_remote,
    "_input:GuardInput._replace Failure": test_quarantine,
    "quarantine:_date ValueError": test_quarantine,
    "quarantine:_reference msgspec.DecodeError": test_quarantine,
    "quarantine:Quarantine._answers Failure": test_quarantine,
    "azure_content_safety:AzureContentSafety._headers TokenError": test_remote.test_without_a_token_nothing_is_asked,
    "webhook:_texts msgspec.ValidationError": test_remote,
}
"""Injected by other tests: those of services have an inventory of their own, with every kind."""


def test_every_except_has_a_verdict():
    known = {place.partition(" (of ")[0] for place in (*FAILS, *FOUND, *REFUSED, *ELSEWHERE)}
    assert {f"{place} {kind}" for place, kind in handlers()} == known


@pytest.mark.parametrize("place", FAILS)
async def test_a_failure_refuses_unless_the_guardrail_may_fail(world, monkeypatch, place):
    assert await FAILS[place].status(world, monkeypatch, "closed") == 503
    assert await FAILS[place].status(world, monkeypatch, "open") == 200


@pytest.mark.parametrize("place", FOUND)
async def test_text_that_cannot_be_read_in_one_way_never_passes_unsearched(world, monkeypatch, place):
    for failure in ("closed", "open"):
        assert await FOUND[place].status(world, monkeypatch, failure) == 400


@pytest.mark.parametrize("place", REFUSED)
def test_settings_that_cannot_be_used_are_refused(world, place):
    with pytest.raises(ConfigError):
        world(f"{PROVIDER}guardrails: [{{name: g, {REFUSED[place]}}}]")
