"""The gateway's reading of a request.

Source: https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extproc.dialects import ADDED_TOKENS, MAX_TOKENS, _media, read_flag, read_integer, read_model
from extproc.dialects._conversation import count, effort_of, ends, first_instructions, inner, last_said, pieces
from extproc.dialects._effort import asked
from extproc.words.dialect import Ask, Conversation, Fields, Text, strings
from extproc.words.errors import INVALID_REQUEST, Refusal
from extproc.words.objects import Objects

FIELDS = Fields(
    model="model",
    fixed=("model", "messages", "stream"),
    output_limits=("max_tokens",),
    needs={
        **dict.fromkeys(("images", "files"), ("messages",)),
        "tools": ("tools",),
        "json_schema": ("output_config", "output_format"),
        "hosted_tools": ("tools", "messages", "mcp_servers"),
        "hosted_call": ("tool_choice",),
        "thread": ("thread",),
        "state": ("thread",),
    },
    spoken=frozenset(("messages", "system")),
    files=frozenset(("data",)),
    opaque=frozenset(("data", "signature", "encrypted_content")),
    options=("service_tier", "speed", "inference_geo"),
    also=("thinking", "tool_choice", "mcp_servers", "container"),
    inside=frozenset(
        (
            *("role", "content", "type", "text", "name", "id", "source", "data", "media_type", "url", "file_id"),
            *("tool_use_id", "input", "budget_tokens", "format"),
        )
    ),
    data=frozenset(("input", "input_schema", "schema", "metadata")),
)

_HOLD_TEXT = ("text", "content")  # fields of messages and blocks
_ROLES = frozenset(("user", "assistant", "system"))
_INLINE = ("text", "content")  # text only: a PDF is packed, and a kilobyte of it can hold a thousand pages
OBJECTS = Objects(
    at={"container": "container", "container.id": "container"},
    answers={
        "id": "message",
        "message.id": "message",
        **dict.fromkeys(("container.id", "message.container.id", "delta.container.id"), "container"),
    },
    marks=(b'"message"', b'"container"'),
    clients=frozenset(("messages.content.input",)),
)

_SAID = frozenset(("text", "thinking", "redacted_thinking", "tool_use", "search_result", "tool_reference"))
_HOSTED = frozenset(
    (
        *("server_tool_use", "mcp_tool_use", "mcp_tool_result", "web_search_tool_result"),
        *("web_fetch_tool_result", "code_execution_tool_result", "tool_search_tool_result", "browser_state"),
        *("bash_code_execution_tool_result", "text_editor_code_execution_tool_result"),
    )
)
"""What Anthropic's own tools leave in the conversation."""
_CLIENT_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")  # the client runs them, Anthropic defines them
_DEFINITION = 1280  # tokens of such a definition: at most 735, and 499 for using a computer


def read(body: Mapping[str, Any], *, counting: bool) -> Ask:
    """The gateway's reading of `body`. `counting`: the body asks for a count of its tokens, so it has no limit."""
    ask = Ask(read_model(body), read_flag(body, "stream"))
    if body.get("thread") is not None:  # anthropic-sdk-python/src/anthropic/types/beta/beta_message_thread_param.py
        ask.needs["thread"] = "thread"
        if inner(body, "thread", "type") != "create":  # it continues what Anthropic holds
            ask.needs["state"] = "thread"
            ask.add_unseen("thread")
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
    if body.get("container"):
        ask.add_unseen("container")
    if body.get("mcp_servers"):
        ask.add_hosted("mcp_servers", "mcp_servers")
    if body.get("tools"):
        ask.needs["tools"] = "tools"
        hosted = _read_tools(body["tools"], ask)
        if inner(body, "tool_choice", "name") in hosted:
            ask.needs["hosted_call"] = "tool_choice"
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
            message = "'max_tokens' is required: the most tokens the answer may have."
            raise Refusal(INVALID_REQUEST, message, param="max_tokens")
        ask.output_field = "max_tokens"
        ask.max_output_tokens = max(1, limit)  # 0 only fills the prompt cache
        ask.thinking = thinking(body)
    return ask


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
                _media.add_image_data(ask, data)
            else:
                _media.add_image(ask, None, kind)
                ask.add_url(source.get("url"), "messages")
        elif kind == "document":
            content = source.get("content")
            if isinstance(content, list):
                _read_blocks(content, ask)
            elif content is None:
                ask.needs["files"] = "messages"
            if source.get("type") not in _INLINE:
                ask.add_unseen(kind)
                ask.packed(source.get("data"))
                ask.add_url(source.get("url"), "messages")
        elif kind == "tool_result":
            content = block.get("content")
            if isinstance(content, list):
                _read_blocks(content, ask)
        elif isinstance(kind, str) and kind in _HOSTED:
            ask.add_hosted(kind, "messages")
        elif not (isinstance(kind, str) and kind in _SAID):
            ask.add_unseen(kind, "content")


def _read_tools(tools: Any, ask: Ask) -> list[Any]:
    """The names of those that Anthropic runs."""
    hosted: list[Any] = []
    for tool in tools if isinstance(tools, list) else ():
        if _is_clients(tool):
            kind = tool.get("type") if isinstance(tool, dict) else None
            ask.added_tokens += _DEFINITION if kind not in (None, "custom") else 0
        else:
            ask.add_hosted(tool["type"], "tools")
            hosted.append(tool.get("name", ""))
    return hosted


def _is_clients(tool: Any) -> bool:
    """Whether the client runs it."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    return kind is None or kind == "custom" or (isinstance(kind, str) and kind.startswith(_CLIENT_TOOLS))


def without_hosted(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[str]]:
    """See `Dialect.without_hosted`."""
    dropped = ["mcp_servers"] if body.get("mcp_servers") else []
    made = {name: value for name, value in body.items() if name not in ("tools", "mcp_servers")}
    tools = body.get("tools")
    if isinstance(tools, list):
        dropped += [f"tools.{tool['type']}" for tool in tools if not _is_clients(tool)]
        if own := [tool for tool in tools if _is_clients(tool)]:
            made["tools"] = own
    messages = []
    for message in body["messages"]:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            kinds = [block.get("type") if isinstance(block, dict) else None for block in content]
            hosted = [isinstance(kind, str) and kind in _HOSTED for kind in kinds]
            dropped += [f"messages.{kind}" for kind, gone in zip(kinds, hosted, strict=True) if gone]
            own = [block for block, gone in zip(content, hosted, strict=True) if not gone]
            message = {**message, "content": own}  # noqa: PLW2901
        messages.append(message)
    made["messages"] = messages
    return made, list(dict.fromkeys(dropped))


def thinking(body: Mapping[str, Any]) -> int:
    """See `Dialect.thinking`."""
    level, settings = inner(body, "output_config", "effort"), body.get("thinking")
    if not isinstance(settings, dict):
        return asked(level)
    kind = settings.get("type")
    tokens = settings.get("budget_tokens") if kind == "enabled" else 0 if kind != "adaptive" else None
    return asked(level, tokens, adaptive=kind == "adaptive")


def conversation(body: Mapping[str, Any]) -> Conversation:
    """See `Dialect.conversation`."""
    messages, system = body.get("messages"), body.get("system")
    last, result = last_said(messages, _HOLD_TEXT, _is_result)
    effort = effort_of(inner(body, "output_config", "effort"))
    return Conversation(
        asked=last,
        turns=count(messages),
        result=result,
        system=pieces(first_instructions(messages) if system is None else system, _HOLD_TEXT),
        tools=count(body.get("tools")),
        shaped=isinstance(inner(body, "output_config", "format"), dict)
        or isinstance(body.get("output_format"), dict)
        or inner(body, "tool_choice", "type") == "tool",
        effort="high" if effort is None and inner(body, "thinking", "type") == "enabled" else effort,
    )


def _is_result(message: Mapping[str, Any]) -> bool:
    """True for the result of a tool: a message of the user's with such a block."""
    blocks = message.get("content")
    return isinstance(blocks, list) and any(
        isinstance(block, dict) and block.get("type") == "tool_result" for block in ends(blocks)
    )


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
