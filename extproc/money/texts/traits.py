"""Traits of an answer that say whether a model can replace another: it refuses, it is malformed, it calls tools. The
ledger keeps them without the text, for `money.ledger.comparing`.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from extproc.cache.entry import Entry
from extproc.cache.forms import answer_of
from extproc.guardrails import TOOL_CALL, Whole
from extproc.guardrails.json_schema import JSONSchema
from extproc.money.texts import Traits
from extproc.words.dialect import Tooling
from extproc.words.exchange import Exchange
from extproc.words.messages import Answer, Choice, RefusalPart, TextPart, ToolCall
from extproc.words.values import Patterns

MOST_CALLS = 32
_MOST_NAME = 64  # characters of a tool's name
_ANSWER_JSON = JSONSchema(Patterns(()), calls=False)
_CALL_JSON = JSONSchema(Patterns(("*",)), calls=True)
_MOST_REFUSAL = 600  # characters: a longer answer that begins so goes on with help
_refuses = re.compile(
    r"\W*(?:I(?:['\u2019]m| am) (?:really |very |so )?(?:sorry|afraid|unable to|not able to)|sorry,? (?:but )?I|"
    r"I (?:can(?:['\u2019]t|not)|could(?:n['\u2019]t| not)|won['\u2019]t|will not|must (?:decline|refuse)) "
    r"(?!wait|stress|thank)|as an AI\b|(?:unfortunately|my apologies),? (?:but )?I )",
    re.IGNORECASE,
).match
"""The beginning of a refusal in English. Sources: the lists of GCG (Zou and others, 2023) and of JailbreakBench."""


def read_traits(exchange: Exchange, body: bytes) -> Traits | None:
    """The traits of an exchange's answer from its body in the client's API; None if that is no whole conversational
    answer. Takes up to 0.1 s for the schema of a hostile client, so it may run on a thread.
    """
    dialect = exchange.request.dialect
    answer = answer_of(Entry(0.0, body, dialect.name, exchange.request.ask.stream))
    if not isinstance(answer, Answer):
        return None
    tooling = dialect.offers.tools.tooling(exchange.request.json)
    calls = [part for choice in answer.choices for part in choice.parts if isinstance(part, ToolCall)]
    refused = any(map(_is_refusal, answer.choices))
    return Traits(
        refused,
        None if refused else _malformed(exchange, tooling, answer, calls),
        tuple(sorted(map(_call, calls[:MOST_CALLS]))) if tooling.offered or calls else None,
    )


def _text(choice: Choice) -> str:
    return "".join([part.text for part in choice.parts if isinstance(part, TextPart)])


def _is_refusal(choice: Choice) -> bool:
    if choice.finish in ("content_filter", "refusal") or any(isinstance(part, RefusalPart) for part in choice.parts):
        return True
    text = _text(choice)
    return len(text) <= _MOST_REFUSAL and _refuses(text) is not None


def _malformed(exchange: Exchange, tooling: Tooling, answer: Answer, calls: list[ToolCall]) -> bool | None:
    found: list[bool] = []
    try:
        if not calls and tooling.answer is not None and (detector := _ANSWER_JSON.for_exchange(exchange)) is not None:
            found += [bool(detector.judge(Whole(_text(choice), "", ""))) for choice in answer.choices]
        if calls and (detector := _CALL_JSON.for_exchange(exchange)) is not None:
            found += [
                bool(detector.judge(Whole(call.arguments or "{}", TOOL_CALL, "", call.name, json=True)))
                for call in calls[:MOST_CALLS]
                if detector.reads(TOOL_CALL, call.name, False)
            ]
    except (ValueError, TimeoutError):  # a schema that cannot be checked, or not in time
        return None
    return any(found) if found else None


def _call(call: ToolCall) -> str:
    try:
        data = msgspec.json.encode(msgspec.json.decode(call.arguments or "{}"), order="sorted")
    except ValueError:
        data = call.arguments.encode(errors="replace")
    return f"{call.name[:_MOST_NAME]} {hashlib.blake2b(data, digest_size=8).hexdigest()}"
