"""What the gateway reads of requests and answers that it lets pass as they are.

Source: https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from extproc.dialects import MAX_TOKENS, read_flag, read_integer, read_model, text_size
from extproc.dialects._effort import asked
from extproc.dialects.anthropic_messages.shapes import NO_INPUT, UNREADABLE, Block, Event, decode
from extproc.dialects.anthropic_messages.usage import Tally
from extproc.words.dialect import ADDED_TOKENS, Ask, Report, Text, strings
from extproc.words.errors import INVALID_REQUEST, Refusal

_ROLES = frozenset(("user", "assistant", "system"))
_INLINE = ("text", "content")  # a PDF is packed: a kilobyte of it can hold a thousand pages
_SAID = frozenset(("text", "thinking", "redacted_thinking", "tool_use", "search_result"))
_CLIENT_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")  # the client runs them, Anthropic defines them
_DEFINITION = 1280  # tokens of such a definition: at most 735, and 499 for using a computer


def read(body: Mapping[str, Any], *, counting: bool) -> Ask:
    """`counting`: the body asks for a count of its tokens, so it has no limit."""
    ask = Ask(read_model(body), read_flag(body, "stream"))
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(INVALID_REQUEST, "'messages' must be a list with at least one message.", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            where = f"messages[{index}]"
            raise Refusal(INVALID_REQUEST, f"'{where}' must be an object.", param=where)
        content = message.get("content")
        if isinstance(content, list):
            _read_blocks(content, ask)
    for name in ("container", "mcp_servers"):
        if body.get(name):
            ask.add_unseen(name)
    if body.get("tools"):
        ask.needs["tools"] = "tools"
        _read_tools(body["tools"], ask)
    config = body.get("output_config")
    if isinstance(config, dict) and config.get("format"):
        ask.needs["json_schema"] = "output_config"
    elif body.get("output_format"):
        ask.needs["json_schema"] = "output_format"
    if "tools" in ask.needs or "json_schema" in ask.needs:
        ask.added_tokens += ADDED_TOKENS
    if not counting:
        limit = read_integer(body, "max_tokens", 0, MAX_TOKENS)
        if limit is None:
            message = "'max_tokens' is required: say how many tokens the answer may have."
            raise Refusal(INVALID_REQUEST, message, param="max_tokens")
        ask.output_field = "max_tokens"
        ask.max_output_tokens = max(1, limit)  # 0 only fills the prompt cache
        ask.thinking = _thinking(body.get("thinking"), config)
    return ask


def _thinking(thinking: Any, config: Any) -> int:
    level = config.get("effort") if isinstance(config, dict) else None
    if not isinstance(thinking, dict):
        return asked(level)
    kind = thinking.get("type")
    tokens = thinking.get("budget_tokens") if kind == "enabled" else 0 if kind != "adaptive" else None
    return asked(level, tokens, adaptive=kind == "adaptive")


def _read_blocks(blocks: list[Any], ask: Ask) -> None:
    for block in blocks:
        if not isinstance(block, dict):
            continue
        kind, source = block.get("type"), block.get("source")
        source = source if isinstance(source, dict) else {}
        if kind == "image":
            ask.needs["images"] = "messages"
            data = source.get("data")
            if source.get("type") == "base64" and isinstance(data, str):
                ask.add_image_data(data)
            else:
                ask.add_image(None, kind)
        elif kind == "document":
            content = source.get("content")
            if isinstance(content, list):
                _read_blocks(content, ask)
            elif content is None:
                ask.needs["files"] = "messages"
            if source.get("type") not in _INLINE:
                ask.add_unseen(kind)
        elif kind == "tool_result":
            content = block.get("content")
            if isinstance(content, list):
                _read_blocks(content, ask)
        elif not (isinstance(kind, str) and kind in _SAID):
            ask.add_unseen(kind, "content")


def _read_tools(tools: Any, ask: Ask) -> None:
    for tool in tools if isinstance(tools, list) else ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind is None or kind == "custom":
            continue
        if isinstance(kind, str) and kind.startswith(_CLIENT_TOOLS):
            ask.added_tokens += _DEFINITION
        else:
            ask.add_unseen(kind, "tools")


def texts(body: Mapping[str, Any]) -> Iterator[Text]:
    for index, message in enumerate(body["messages"]):
        role = message.get("role")
        role = role if isinstance(role, str) else ""
        where = f"messages[{index}]"
        for key, value in message.items():
            if key == "role" and role in _ROLES:
                continue
            if isinstance(value, str):
                yield Text(role, f"{where}.{key}", message, key)
            elif key == "content" and isinstance(value, list):
                yield from _texts_of_blocks(value, role, f"{where}.content")
            else:
                yield from strings(value, role, f"{where}.{key}")
    for key, value in body.items():
        if key in ("messages", "model"):
            continue
        role = "system" if key == "system" else "request"
        if isinstance(value, str):
            yield Text(role, key, body, key)
        else:
            yield from strings(value, role, key)


def _texts_of_blocks(blocks: list[Any], role: str, where: str) -> Iterator[Text]:
    for index, block in enumerate(blocks):
        at = f"{where}[{index}]"
        if isinstance(block, str):
            yield Text(role, at, blocks, index)
        elif isinstance(block, dict):
            yield from strings(block, "tool" if block.get("type") == "tool_result" else role, at)
        else:
            yield from strings(block, role, at)


def observe(data: bytes, report: Report) -> None:
    """Read one event, or a whole answer, into `report`.

    The beginning of a stream tells the input. Until its end tells the output, `report.usage` is of source `estimated`.
    """
    try:
        event = decode(data)
    except UNREADABLE:
        report.add_text(len(data))  # all of it rather than nothing
        return
    kind = event.type
    if kind == "content_block_delta":
        delta = event.delta
        if delta is not None:
            report.add_text(text_size(delta.text) + text_size(delta.thinking) + text_size(delta.partial_json))
    elif kind == "content_block_start":
        if (block := event.content_block) is not None:
            report.add_text(_block_size(block) + (len(bytes(block.input)) if bytes(block.input) not in NO_INPUT else 0))
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
        report.add_text(_block_size(block) + (len(bytes(block.input)) if block.type == "tool_use" else 0))
    if answer.stop_reason is not None:
        report.finish_reasons[0] = answer.stop_reason
    _read_usage(answer.usage, report, final=True)


def _read_usage(said: Any, report: Report, *, final: bool) -> None:
    """What is not told again stays as it was."""
    if said is None:
        return
    tally: Tally | None = report.memory
    if tally is None:
        tally = report.memory = Tally()
    usage, before = tally.add(said), report.usage
    if usage is not None and not (final and said.get("output_tokens") is not None):
        usage.source = "estimated" if before is None else before.source
    report.add_usage(usage)


def _block_size(block: Block) -> int:
    name = block.name if block.type == "tool_use" else ""
    return text_size(block.text) + text_size(block.thinking) + text_size(name)
