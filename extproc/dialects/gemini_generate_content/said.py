"""Texts of an answer, for guardrails.

Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extproc.dialects.gemini_generate_content.partial import streamed, values
from extproc.words.said import ANSWER, CALL, ArgumentPart, Called, Closed, Piece, apart, is_long, loose

QUIET = frozenset(
    (
        *("role", "finishReason", "index", "usageMetadata", "modelVersion", "responseId", "createTime", "mimeType"),
        *("thoughtSignature", "data", "id", "safetyRatings", "logprobsResult", "avgLogprobs", "tokenCount", "language"),
        *("outcome", "probability", "category", "modelStatus", "thought"),
    )
)
"""Fields without a model's words; `logprobsResult` is read with its text."""

_WHOLE = frozenset(
    (
        *("executableCode", "codeExecutionResult", "functionResponse", "inlineData", "fileData", "videoMetadata"),
        *("toolCall", "toolResponse", "partMetadata"),
    )
)
"""Fields of a part with complete values in one event. Source: `ArgumentPart` in google-genai's types."""


def said(event: Any) -> Iterator[Piece | Closed | Called | ArgumentPart]:
    """See `ClientAPI.said`. A stream without SSE is one array of events."""
    for one in event if isinstance(event, list) else (event,):
        candidates = one.get("candidates") if isinstance(one, dict) else None
        if not isinstance(candidates, list):
            yield from loose(one, "answer", QUIET)
            continue
        for place, candidate in enumerate(candidates):
            if isinstance(candidate, dict):
                yield from _candidate(candidate, place)
        yield from loose(one, "answer", QUIET, without=("candidates",))


def _candidate(candidate: dict[str, Any], place: int) -> Iterator[Piece | Closed | Called | ArgumentPart]:
    index = candidate.get("index", place)
    index = index if type(index) is int else place
    where = f"candidates[{index}]"
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    parts = parts if isinstance(parts, list) else []
    for number, part in enumerate(parts):
        if isinstance(part, dict):
            yield from _part(part, candidate, f"{where}.content.parts[{number}]", index)
        else:
            yield from loose([part], f"{where}.content.parts", QUIET)
    if isinstance(content, dict):
        yield from loose(content, f"{where}.content", QUIET, without=("parts",))
    if not any(isinstance(part, dict) and part.get("text") for part in parts):
        yield from apart(candidate, "logprobsResult", where, (index,))
    yield from loose(candidate, where, QUIET, without=("content",))
    if candidate.get("finishReason") is not None:
        yield Closed((index,))


def _part(
    part: dict[str, Any], candidate: dict[str, Any], where: str, index: int
) -> Iterator[Piece | Called | ArgumentPart]:
    for name, value in part.items():
        at = f"{where}.{name}"
        if name == "text" and isinstance(value, str):
            beside = (candidate, "logprobsResult", None) if candidate.get("logprobsResult") is not None else None
            kind, whole = ("thought", "") if part.get("thought") is True else ("text", ANSWER)
            yield Piece(at, part, name, (index, kind), beside=beside, whole=whole)
        elif name == "functionCall" and isinstance(value, dict):
            yield from _part_of_call(value, at, index) if streamed(value) else _call(value, at)
        elif isinstance(value, str) and name not in QUIET:
            yield Piece(at, part, name, (index, "part", name), unknown=True)
        elif isinstance(value, dict | list) and name not in QUIET:
            yield from loose(value, at, QUIET, channel=None if name in _WHOLE else (index, "part", name))


def _call(call: dict[str, Any], where: str) -> Iterator[Piece | Called]:
    yield Called(f"{where}.args", call.get("name"), call.get("args") or {})
    for name, value in call.items():
        if isinstance(value, dict | list):
            yield from loose(value, f"{where}.{name}", frozenset(), call=True, numbers=True)
        elif isinstance(value, str) and name not in QUIET:
            yield Piece(f"{where}.{name}", call, name, call=True, name=name == "name")


def _part_of_call(call: dict[str, Any], where: str, index: int) -> Iterator[Piece | ArgumentPart]:
    name = call.get("name")
    tool = Piece(f"{where}.name", call, "name", call=True, name=True) if isinstance(name, str) and name else None
    found: list[tuple[tuple[str | int, ...], Any, Piece | None]] = []
    args = call.get("args")
    for key, value in args.items() if isinstance(args, dict) else ():
        found.append(((key,), value, None))
    yield from loose(args, f"{where}.args", frozenset(), call=True, numbers=True)
    for path, value, holder, key in values(call.get("partialArgs")):
        text = isinstance(value, str) or is_long(value)
        found.append((path, value, Piece(f"{where}.args", holder, key, call=True, whole=CALL) if text else None))
    yield ArgumentPart(where, (index,), tool, found, call.get("willContinue") is not True)
    rest = ("name", "args", "partialArgs")
    yield from loose(call, where, QUIET, without=rest, call=True, channel=(index, "call"))
