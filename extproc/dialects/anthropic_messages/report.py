"""The gateway's reading of an answer that passes through.

Source: https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from typing import Any

from extproc.dialects._observer import Observer
from extproc.dialects.anthropic_messages.ask import FIELDS
from extproc.dialects.anthropic_messages.shapes import NO_INPUT, Block, Event
from extproc.dialects.anthropic_messages.usage import Tally
from extproc.words.dialect import Report


def _read(event: Event, report: Report) -> bool:
    """Read one event. A stream's first event reports the input. Until the last one reports the output, the source of
    `report.usage` is `estimated`.
    """
    kind = event.type
    if kind == "content_block_delta":
        delta = event.delta
        if delta is not None:
            report.add_text((delta.text or "") + (delta.thinking or "") + (delta.partial_json or ""))
            if delta.thinking or delta.signature:
                report.thought.add(delta.thinking or "", delta.signature or "")
    elif kind == "content_block_start":
        if (block := event.content_block) is not None:
            report.thought.going_on = block.type == "thinking"
            _read_block(block, report)
    elif kind == "content_block_stop":
        report.thought.going_on = False
    elif kind == "message_start":
        report.thought.told = True
        if event.message is not None:
            report.model, report.id = event.message.model or report.model, event.message.id or report.id
            _read_usage(event.message.usage, report, final=False)
    elif kind == "message_delta":
        if event.delta is not None and event.delta.stop_reason is not None:
            report.finish_reasons[0] = event.delta.stop_reason
        _read_usage(event.usage, report, final=True)
    elif kind == "error" or event.error is not None:
        report.error = "provider_error"
    else:
        _read_whole(event, report)
    return False  # usage is always reported, so no event needs to be hidden


_IN_CONTAINER = frozenset(("code_execution", "bash_code_execution", "text_editor_code_execution"))
OBSERVER = Observer(Event, _read)


def _read_whole(answer: Event, report: Report) -> None:
    report.model, report.id = answer.model or report.model, answer.id or report.id
    for block in answer.content:
        _read_block(block, report)
    if answer.stop_reason is not None:
        report.finish_reasons[0] = answer.stop_reason
    _read_usage(answer.usage, report, final=True)


def _read_block(block: Block, report: Report) -> None:
    report.add_text(_text(block))
    if block.type == "server_tool_use" and block.name in _IN_CONTAINER:
        report.units["sessions"] = 1
    if block.thinking or block.signature or block.data:
        report.thought.add(block.thinking or "", (block.signature or "") + (block.data or ""))


def _read_usage(said: Any, report: Report, *, final: bool) -> None:
    """Read a usage object. Counts that it does not repeat stay."""
    if said is None:
        return
    tally: Tally | None = report.memory
    if tally is None:
        tally = report.memory = Tally()
    usage, before = tally.add(said), report.usage
    for name in FIELDS.options if isinstance(said, dict) else ():
        if isinstance(value := said.get(name), str):
            report.options[name] = value
    if usage is not None and not (final and said.get("output_tokens") is not None):
        usage.source = "estimated" if before is None else before.source
    report.add_usage(usage)


def _text(block: Block) -> str:
    """Billable text of a block: its words, and a call's name and input."""
    said = (block.text or "") + (block.thinking or "")
    if block.type != "tool_use":
        return said
    given = bytes(block.input)
    return said + (block.name or "") + ("" if given in NO_INPUT else given.decode(errors="replace"))
