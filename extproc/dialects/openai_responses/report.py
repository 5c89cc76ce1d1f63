"""The gateway's reading of an answer that passes through.

Source: https://developers.openai.com/api/reference/resources/responses/streaming-events
"""

from __future__ import annotations

from typing import Any

import msgspec

from extproc.dialects._observer import Observer
from extproc.dialects.openai_responses import provider_answer
from extproc.dialects.openai_responses.shapes import Body, Output, is_ours
from extproc.dialects.openai_responses.usage import fees_of, usage_of
from extproc.wire.framing import UNREADABLE
from extproc.words import messages
from extproc.words.dialect import Report
from extproc.words.late import Late, Progress


class _Said(Body, gc=False):
    """An event, or a plain response, reduced to the fields that are read."""

    type: Any = None
    delta: Any = None
    item: Output | None = None
    response: Body | None = None


_RUNNING = ("queued", "in_progress")
FIELDS = frozenset(_Said.__struct_encode_fields__)


def _read(said: _Said, report: Report) -> bool:
    if isinstance(said.delta, str):
        if said.type != "response.audio.delta":  # audio is base64, not text
            report.add_text(said.delta)
            if isinstance(said.type, str) and said.type.startswith("response.reasoning"):
                report.thought.add(said.delta)
        return False
    if said.type == "error" or said.error is not None:
        report.error = "provider_error"
    whole = said.response if said.type is not None else said
    if whole is not None:
        _observe_response(whole, report)
    elif said.item is not None and said.type == "response.output_item.done":
        for kind, count in fees_of((said.item,)).items():  # counted here, because the last response may never come
            report.units[kind] = report.units.get(kind, 0) + count
    elif said.item is not None and said.type == "response.output_item.added":
        report.add_text(provider_answer.text_of(said.item.name))  # the name; arguments come in later pieces
        if report.kept:
            _note_kept(report, said.item.id)
    return False


OBSERVER = Observer(_Said, _read, openings=(b'{"type":"response.completed","response":{', b"{"))


class _State(msgspec.Struct):
    status: Any = None


_state = msgspec.json.Decoder(_State).decode


def _read_progress(data: bytes) -> Progress | None:
    report = Report()
    try:
        if not isinstance(_state(data).status, str):
            return None
    except UNREADABLE:
        return None
    OBSERVER.observe(data, report)
    # A response that failed before it wrote any output has no usage.
    answered = 0 if report.usage is None and report.error else 1
    return Progress(ended=not report.pending, answered=answered, report=report if report.usage is not None else None)


LATE = Late("/v1/responses/{id}", _read_progress)


def _note_kept(report: Report, *ids: Any) -> None:
    """Note ids of a kept response, and of the objects in it."""
    report.kept = list(dict.fromkeys([*report.kept, *(id for id in ids if isinstance(id, str) and not is_ours(id))]))


def _observe_response(said: Body, report: Report) -> None:
    if isinstance(said.model, str) and said.model:
        report.model = said.model
    if isinstance(said.id, str):
        report.id = said.id
    if said.store is True or said.background is True:
        there = said.conversation.get("id") if isinstance(said.conversation, dict) else None
        _note_kept(report, said.id, said.previous_response_id, there, *(item.id for item in said.output or ()))
    elif said.object == "list" and isinstance(said.data, list):
        _note_kept(
            report, said.first_id, said.last_id, *(item.get("id") for item in said.data if isinstance(item, dict))
        )
    if isinstance(said.service_tier, str):
        report.options["service_tier"] = said.service_tier
    running = said.status in _RUNNING and isinstance(said.id, str)
    report.pending = said.id if running else ""
    if said.error is not None or said.status == "failed":
        report.error = "provider_error"
    if said.status in ("completed", "incomplete"):
        parts = [part for item in said.output or () for part in provider_answer.parts_of(item)]
        report.pictures = sum(item.type == "image_generation_call" for item in said.output or ())
        report.units |= fees_of(said.output or (), said.tools, said.tool_usage)
        text = "".join(map(_text, parts)).encode(errors="replace")
        if len(text) > report.output_bytes:  # a plain answer, or a stream without deltas
            report.add_text(text[report.output_bytes :].decode(errors="replace"))
        called = any(isinstance(part, messages.ToolCall) for part in parts)
        report.finish_reasons[0] = provider_answer.reason_of(said, called=called, refused=False)
    if said.usage is not None:
        report.add_usage(usage_of(said))


def _text(part: messages.Part) -> str:
    if isinstance(part, messages.ToolCall):
        return part.name + part.arguments
    return part.text if isinstance(part, messages.TextPart | messages.RefusalPart | messages.ThinkingPart) else ""
