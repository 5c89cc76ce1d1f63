"""What the gateway reads of answers that it lets pass as they are.

Source: https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from typing import Any

from extproc.dialects import MAX_TOKENS, token_count
from extproc.dialects.anthropic_messages.shapes import UNREADABLE, Block, Event, decode
from extproc.words.dialect import Report
from extproc.words.exchange import Usage

_BYTES_PER_TOKEN = 3  # as budgets.py estimates


def observe(data: bytes, report: Report) -> None:
    """Read one event, or a whole answer, into `report`.

    The beginning of a stream tells the input. Until its end tells the output, `report.usage` holds an estimate of it.
    """
    try:
        event = decode(data)
    except UNREADABLE:
        _count(len(data), report)  # all of it rather than nothing
        return
    kind = event.type
    if kind == "content_block_delta":
        delta = event.delta
        if delta is not None:
            _count(_size(delta.text) + _size(delta.thinking) + _size(delta.partial_json), report)
    elif kind == "content_block_start":
        if event.content_block is not None:
            _count(_block_size(event.content_block), report)
    elif kind == "message_start":
        if event.message is not None:
            report.model = event.message.model or report.model
            _read_usage(event.message.usage, report, final=False)
    elif kind == "message_delta":
        if event.delta is not None and event.delta.stop_reason is not None:
            report.finish_reasons[0] = event.delta.stop_reason
        _read_usage(event.usage, report, final=True)
    elif kind == "error" or event.error is not None:
        report.error = "provider_error"
    else:
        _read_whole(event, report)


def _read_whole(answer: Event, report: Report) -> None:
    report.model = answer.model or report.model
    for block in answer.content:
        _count(_block_size(block) + (len(bytes(block.input)) if block.type == "tool_use" else 0), report)
    if answer.stop_reason is not None:
        report.finish_reasons[0] = answer.stop_reason
    _read_usage(answer.usage, report, final=True)


def _read_usage(usage: Any, report: Report, *, final: bool) -> None:
    """What is not told again stays as it was."""
    if usage is None:
        return
    if not isinstance(usage, dict):
        report.usage_refused = True
        return
    before = report.usage
    known = Usage() if before is None else before
    counts = []
    for name, earlier in (
        ("input_tokens", known.input_tokens - known.cached_tokens - known.cache_write_tokens),
        ("cache_read_input_tokens", known.cached_tokens),
        ("cache_creation_input_tokens", known.cache_write_tokens),
        ("output_tokens", known.output_tokens),
    ):
        value = usage.get(name)
        count = earlier if value is None else token_count(value)
        if count is None:
            report.usage_refused = True
            return
        counts.append(count)
    told, cached, cache_write, output = counts
    total = told + cached + cache_write
    if total > MAX_TOKENS:
        report.usage_refused = True
        return
    if before is None and (usage.get("input_tokens") is None or usage.get("output_tokens") is None):
        return  # half of it is no count
    details = usage.get("output_tokens_details")
    thought = token_count(details.get("thinking_tokens")) if isinstance(details, dict) else None
    reasoning = min(known.reasoning_tokens if thought is None else thought, output)
    final = final and usage.get("output_tokens") is not None
    source = "provider" if final or (known.source == "provider" and before is not None) else "estimated"
    report.usage = Usage(total, output, cached, reasoning, cache_write, source)


def _count(size: int, report: Report) -> None:
    if not size:
        return
    report.output_bytes += size
    report.output_events += 1
    usage = report.usage
    if usage is not None and usage.source == "estimated":
        seen = max(report.output_events, -(-report.output_bytes // _BYTES_PER_TOKEN))
        usage.output_tokens = max(usage.output_tokens, seen)


def _size(text: str | None) -> int:
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode())


def _block_size(block: Block) -> int:
    return _size(block.text) + _size(block.thinking) + (_size(block.name) if block.type == "tool_use" else 0)
