"""The gateway's reading of an answer that passes through.

Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from extproc.dialects._observer import Observer
from extproc.dialects._usage import MOST_CALLS
from extproc.dialects.gemini_generate_content.shapes import MOST_CHOICES, Part, Response, service_tier
from extproc.dialects.gemini_generate_content.usage import read_usage
from extproc.words.dialect import Report

USAGE_KEY = b'"usageMetadata"'
_BY_PROMPT = re.compile(r"(?:.*/)?gemini-[12]\b").match
_NO_ARGUMENTS = frozenset((b"{}", b"null"))


def _read(said: Response | list[Response], report: Report) -> bool:
    """Read one event. A stream without SSE is one array. Every event reports the usage so far; its source is
    `estimated` until the answer has a finish reason.
    """
    for response in said if isinstance(said, list) else (said,):
        _read_response(response, report)
    return False


OBSERVER = Observer(Response | list[Response], _read, openings=(b"{", b"[{"), key=USAGE_KEY)


def _read_response(response: Response, report: Report) -> None:
    if response.model:
        report.model = response.model
    if response.id:
        report.id = response.id
    if response.error is not None:
        report.error = "provider_error"
    for place, candidate in enumerate(response.candidates or ()):
        index = place if candidate.index is None else candidate.index
        if candidate.finish and 0 <= index < MOST_CHOICES:
            report.finish_reasons[index] = candidate.finish
        if isinstance(candidate.grounding, dict):
            _count_grounding(candidate.grounding, report)
        if candidate.content is not None:
            parts = candidate.content.parts or ()
            report.add_text("".join([_text(part) for part in parts]))
            report.pictures += sum(part.inline is not None for part in parts)
    if response.feedback is not None and response.feedback.block:
        report.finish_reasons.setdefault(0, response.feedback.block)
    if response.usage is None:
        return
    usage = read_usage(response.usage)
    if usage is not None and not report.finish_reasons:
        usage.source = "estimated"
    if tier := service_tier(response.usage):
        report.options["service_tier"] = tier
    report.add_usage(usage)


def _count_grounding(grounding: Mapping[str, Any], report: Report) -> None:
    """Note searches and maps. Google bills an answer with maps once.

    Source: https://ai.google.dev/gemini-api/docs/maps-grounding#pricing
    """
    if searches := _searches(grounding, report.model):
        report.units["searches"] = max(searches, report.units.get("searches", 0))
    chunks = grounding.get("groundingChunks")
    if any(isinstance(chunk, dict) and "maps" in chunk for chunk in (chunks if isinstance(chunks, list) else ())):
        report.units["maps"] = 1


def _searches(grounding: Mapping[str, Any], model: str) -> int:
    """Searches that Google bills: each query; one for an answer of models before Gemini 3.

    Source: https://ai.google.dev/gemini-api/docs/google-search#pricing
    """
    asked = grounding.get("webSearchQueries")
    queries = {query for query in asked if isinstance(query, str) and query} if isinstance(asked, list) else ()
    return min(len(queries), 1 if _BY_PROMPT(model) else MOST_CALLS)


def _text(part: Part) -> str:
    """Billable text of a part: its words, and a call's name and arguments."""
    if part.call is not None:
        given = bytes(part.call.args)
        return (part.call.name or "") + ("" if given in _NO_ARGUMENTS else given.decode(errors="replace"))
    if part.code is not None:
        return part.code.code or ""
    if part.result is not None:
        return part.result.output or ""
    return part.text or ""
