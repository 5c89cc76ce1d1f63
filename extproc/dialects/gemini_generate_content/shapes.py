"""Shapes of Google's answers, plain or streamed, reduced to the fields that are read.

Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from extproc.wire.framing import UNREADABLE
from extproc.words.messages import FinishReason

MOST_CHOICES = 128


class FunctionCall(Struct):
    name: str | None = None
    args: Raw = Raw(b"{}")
    id: str | None = None
    values: Any = field(name="partialArgs", default=None)  # see partial.py
    more: bool | None = field(name="willContinue", default=None)


class Inline(Struct):
    """Image data, in base64."""

    media_type: str | None = field(default=None, name="mimeType")
    data: str | None = None


class Code(Struct):
    code: str | None = None


class Outcome(Struct):
    output: str | None = None


class Part(Struct):
    text: str | None = None
    thought: bool | None = None
    signature: str | None = field(name="thoughtSignature", default=None)
    call: FunctionCall | None = field(name="functionCall", default=None)
    inline: Inline | None = field(default=None, name="inlineData")
    code: Code | None = field(default=None, name="executableCode")
    result: Outcome | None = field(default=None, name="codeExecutionResult")


class Content(Struct):
    parts: list[Part] | None = None


class Token(Struct):
    token: str | None = None
    logprob: Any = field(name="logProbability", default=None)


class TopTokens(Struct):
    candidates: list[Token] | None = None


class Logprobs(Struct):
    chosen: list[Token] | None = field(name="chosenCandidates", default=None)
    top: list[TopTokens] | None = field(name="topCandidates", default=None)


class Candidate(Struct):
    content: Content | None = None
    finish: str | None = field(name="finishReason", default=None)
    index: int | None = None
    logprobs: Logprobs | None = field(name="logprobsResult", default=None)
    grounding: Any = field(name="groundingMetadata", default=None)


class Feedback(Struct):
    block: str | None = field(name="blockReason", default=None)


class Response(Struct):
    candidates: list[Candidate] | None = None
    feedback: Feedback | None = field(name="promptFeedback", default=None)
    usage: Any = field(name="usageMetadata", default=None)
    model: str | None = field(name="modelVersion", default=None)
    id: str | None = field(name="responseId", default=None)
    created: str | None = field(name="createTime", default=None)
    error: Any = None


_FINISH: Mapping[str, FinishReason] = {
    "STOP": "stop",
    "FINISH_REASON_UNSPECIFIED": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
}
_TIERS = {"ON_DEMAND_PRIORITY": "priority", "ON_DEMAND_FLEX": "flex", "priority": "priority", "flex": "flex"}
_UNLIKELY = -9999.0  # OpenAI's value for a log probability that JSON cannot express


def finish_reason(reason: str, *, calls: bool) -> FinishReason:
    """The finish reason. Safety, recitation and similar reasons are `content_filter`. So are failures such as a
    malformed call, because clients do not take that for a complete answer.
    """
    if calls and reason == "STOP":
        return "tool_calls"
    return _FINISH.get(reason, "content_filter")


def service_tier(usage: Any) -> str:
    """Service tier in a usageMetadata, in Vertex's or the Gemini API's field; empty for the default."""
    said = usage if isinstance(usage, dict) else {}
    named = (one for one in (said.get("trafficType"), said.get("serviceTier")) if isinstance(one, str))
    return next((_TIERS[one] for one in named if one in _TIERS), "")


def seconds(created: str | None) -> int:
    """Seconds since the epoch; 0 when `created` is not a time."""
    if not created:
        return 0
    try:
        return max(0, int(datetime.fromisoformat(created).timestamp()))
    except (ValueError, OverflowError, OSError):
        return 0


def call_id(call: FunctionCall) -> str:
    """The call's id; a new one for older models, which send no id."""
    return call.id or f"call_{uuid.uuid4().hex}"


def arguments(call: FunctionCall) -> str:
    """Arguments as JSON without white space, with numbers unchanged."""
    raw = bytes(call.args)
    if raw == b"null":
        return "{}"
    with suppress(*UNREADABLE):  # malformed arguments are passed to the client unchanged
        raw = msgspec.json.format(raw, indent=-1)
    return raw.decode(errors="replace")


def logprobs(result: Logprobs) -> dict[str, Any] | None:
    """Log probabilities in OpenAI chat's form; None without any."""
    if not result.chosen:
        return None
    top = result.top or []
    content = []
    for place, token in enumerate(result.chosen):
        others = (top[place].candidates or []) if place < len(top) else []
        content.append({**_token(token), "top_logprobs": [_token(other) for other in others]})
    return {"content": content, "refusal": None}


def _token(token: Token) -> dict[str, Any]:
    text, value = token.token or "", token.logprob
    if type(value) is not float and type(value) is not int:
        value = 0.0 if value is None else _UNLIKELY  # zero is left out, minus infinity is a string
    return {"token": text, "logprob": value, "bytes": list(text.encode())}
