"""The neutral form as a request for a provider, stateless.

Source: https://developers.openai.com/api/reference/resources/responses/methods/create and
https://developers.openai.com/api/docs/guides/reasoning (reasoning items that may be sent back)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from extproc.dialects import _effort, _json_mode, _limits
from extproc.dialects.openai_chat.schema import can_be_strict
from extproc.dialects.openai_responses import signature
from extproc.dialects.openai_responses.ask import LOGPROBS
from extproc.words.dialect import Destination
from extproc.words.messages import (
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Part,
    Prompt,
    RefusalPart,
    TextPart,
    ThinkingPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

_LONGEST_ID = 64  # most characters of a call's id at OpenAI
_LEAST_OUTPUT = 16  # lowest limit in tokens at OpenAI
_MOST_METADATA, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512
_DETAILS = frozenset(("auto", "low", "high", "original"))
_TIERS = {tier: tier for tier in ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")} | {
    "standard": "default",
    "standard_only": "default",
}


def encode(prompt: Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
    """The body, and names of advisory fields left out."""
    ignored: list[str] = []
    items: list[dict[str, Any]] = []
    reasoned = False
    for message in prompt.messages:
        if message.role == "assistant":
            reasoned |= _assistant(message.parts, items)
        else:
            _user(message, items)
    body: dict[str, Any] = {"model": destination.model, "input": items, "store": False}
    system = "\n\n".join(part.text for part in prompt.system if part.text)
    if system and items:
        body["instructions"] = system
    elif system:  # the API requires an input
        items.append(_message("developer", system))
    if prompt.stream:
        body["stream"] = True
    if prompt.tools:
        body["tools"] = _tools(prompt.tools)
        if prompt.tool_choice is not None:
            body["tool_choice"] = _tool_choice(prompt.tool_choice)
        if prompt.parallel_tools is not None:
            body["parallel_tool_calls"] = prompt.parallel_tools
    if prompt.format is not None:
        body["text"] = {"format": _format(prompt.format)}
        if prompt.format.schema is None:  # the word JSON must be in the input; `instructions` do not count
            _json_mode.add_word(items, "developer", type="message")
    if (limit := _limits.capped(prompt.max_tokens, destination.max_output_tokens)) is not None:
        body["max_output_tokens"] = max(limit, _LEAST_OUTPUT)
    fields = (
        ("temperature", prompt.temperature),
        ("top_p", prompt.top_p),
        ("user", _limits.short(prompt.user, _limits.LONGEST_USER) or None),
        ("metadata", _metadata(prompt.metadata)),
        ("service_tier", _TIERS.get(prompt.service_tier)),
    )
    body |= {name: value for name, value in fields if value is not None}
    include: list[str] = []
    if prompt.logprobs is not None:
        include.append(LOGPROBS)
        if prompt.logprobs:
            body["top_logprobs"] = prompt.logprobs
    reasoning = _reasoning(prompt, destination.model)
    if reasoning:
        body["reasoning"] = reasoning
    if reasoned or reasoning.get("effort", "none") != "none" or "summary" in reasoning or prompt.thinking_adaptive:
        include.append("reasoning.encrypted_content")  # models without reasoning refuse this value
    if include:
        body["include"] = include
    _name_ignored(prompt, body, ignored)
    return body, ignored


def _name_ignored(prompt: Prompt, body: Mapping[str, Any], ignored: list[str]) -> None:
    for name, value in (
        ("top_k", prompt.top_k),
        ("seed", prompt.seed),
        ("stop", prompt.stop or None),
        ("presence_penalty", prompt.presence_penalty),
        ("frequency_penalty", prompt.frequency_penalty),
        ("metadata", prompt.metadata or None),
        ("service_tier", prompt.service_tier or None),
    ):
        if value is not None and name not in body:
            ignored.append(name)
    if any(tool.strict and not can_be_strict(tool.schema) for tool in prompt.tools):
        ignored.append("strict")
    if prompt.is_marked:
        ignored.append("cache_control")  # OpenAI caches without marks


def _reasoning(prompt: Prompt, model: str) -> dict[str, Any]:
    """The `reasoning` field. Thinking is shown to a client with a token budget unless it declines, and to a client with
    an effort if it asks for it.
    """
    settings: dict[str, Any] = {}
    wanted = _effort.asked_effort(prompt)
    if wanted is not None and (effort := _effort.fitting(wanted, model)) is not None:
        settings["effort"] = effort
    shown = prompt.show_thinking
    if shown is None:
        shown = prompt.thinking_adaptive or bool(prompt.thinking_budget)
    if shown and settings.get("effort") != "none" and wanted != "none":
        settings["summary"] = "auto"
    return settings


def _metadata(metadata: Mapping[str, Any]) -> Mapping[str, str] | None:
    fits = 0 < len(metadata) <= _MOST_METADATA and all(
        isinstance(value, str) and len(value) <= _LONGEST_VALUE and len(key) <= _LONGEST_KEY
        for key, value in metadata.items()
    )
    return metadata if fits else None


# --- the input


def _message(role: str, content: str | list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def _user(message: Message, items: list[dict[str, Any]]) -> None:
    """A user's turn. Tool results come first, because they must follow the calls."""
    content: list[dict[str, Any]] = []
    found = False
    for part in message.parts:
        if isinstance(part, ToolResult):
            found = True
            items.append({"type": "function_call_output", "call_id": _id(part.id), "output": _output(part)})
        elif isinstance(part, TextPart | ImagePart | FilePart) and (piece := _piece(part)):
            content.append(piece)
    if content or not found:
        items.append(_message("user", _shortest(content)))


def _output(result: ToolResult) -> str | list[dict[str, Any]]:
    content = [piece for part in result.parts if (piece := _piece(part))]
    if all(piece["type"] == "input_text" for piece in content):  # every provider accepts a text
        text = "\n".join(piece["text"] for piece in content)
        return f"Error: {text}" if result.error else text
    return [{"type": "input_text", "text": "Error:"}, *content] if result.error else content


def _shortest(content: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """The shortest form of content: a text alone is a string."""
    if not content:
        return ""
    if len(content) == 1 and content[0]["type"] == "input_text":
        return content[0]["text"]  # type: ignore[no-any-return]
    return content


def _piece(part: TextPart | ImagePart | FilePart) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text} if part.text else None
    if isinstance(part, ImagePart):
        url = f"data:{part.media_type or 'image/png'};base64,{part.data}" if part.data else part.url
        return {"type": "input_image", "image_url": url, "detail": part.detail if part.detail in _DETAILS else "auto"}
    if part.id:
        return {"type": "input_file", "file_id": part.id}
    if not part.data:
        return {"type": "input_file", "file_url": part.url}
    media_type = part.media_type or "application/pdf"
    name = part.name or f"file.{_suffix(media_type)}"
    return {"type": "input_file", "filename": name, "file_data": f"data:{media_type};base64,{part.data}"}


def _suffix(media_type: str) -> str:
    return {"text/plain": "txt", "text/markdown": "md"}.get(media_type) or media_type.rpartition("/")[2]


def _assistant(parts: Sequence[Part], items: list[dict[str, Any]]) -> bool:
    """Add the parts in order. Only OpenAI's own thinking is sent back, and only in front of the text or call that
    followed it.

    True when any thinking is sent back.
    """
    thoughts: list[dict[str, Any]] = []  # thinking held for the following text or call
    content: list[dict[str, Any]] | None = None  # content of the open message
    said: list[dict[str, Any]] = []  # messages of the turn
    reasoned = False
    for part in parts:
        if isinstance(part, ThinkingPart):
            if (own := signature.own(part.signature)) is not None:
                thoughts.append(_thought(own, part.text))
                content = None
            continue
        item: dict[str, Any] | None = None
        if isinstance(part, ToolCall):
            item, content = _call(part), None
        elif isinstance(part, TextPart | RefusalPart) and part.text:
            if content is None:
                content = []
                item = _message("assistant", content)
                said.append(item)
            kind, key = ("output_text", "text") if isinstance(part, TextPart) else ("refusal", "refusal")
            content.append({"type": kind, key: part.text})
        if item is not None:
            reasoned = reasoned or bool(thoughts)
            items += thoughts
            items.append(item)
            thoughts.clear()
    for message in said:
        pieces = message["content"]
        if all(piece["type"] == "output_text" for piece in pieces):
            message["content"] = "".join(piece["text"] for piece in pieces)
    return reasoned


def _thought(own: tuple[str, str], text: str) -> dict[str, Any]:
    id, encrypted = own
    item: dict[str, Any] = {"type": "reasoning"}
    if id:
        item["id"] = id
    item["summary"] = [{"type": "summary_text", "text": text}] if text else []
    item["encrypted_content"] = encrypted
    return item


def _call(call: ToolCall) -> dict[str, Any]:
    said = {
        "type": "function_call",
        "call_id": _id(call.id),
        "name": call.name,
        "arguments": call.arguments or "{}",
    }
    return said | {"namespace": call.namespace} if call.namespace else said


def _id(id: str) -> str:
    """A call's id. A long id of another API is always shortened alike."""
    if len(id) <= _LONGEST_ID:
        return id
    return "call_" + hashlib.blake2s(id.encode(errors="replace"), digest_size=16).hexdigest()


# --- tools and format


def _tools(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Tools, including those of a group."""
    said: list[dict[str, Any]] = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for tool in tools:
        if not tool.namespace:
            said.append(_tool(tool))
            continue
        if tool.namespace not in groups:
            inner = groups[tool.namespace] = []
            said.append({"type": "namespace", "name": tool.namespace, "description": tool.about, "tools": inner})
        groups[tool.namespace].append(_tool(tool))
    return said


def _tool(tool: Tool) -> dict[str, Any]:
    """A function tool. It is strict only if the client asks for it: the API's default is strict, and refuses many
    schemas.
    """
    said: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description:
        said["description"] = tool.description
    said["parameters"] = tool.schema or {"type": "object", "properties": {}}
    said["strict"] = tool.strict is True and can_be_strict(tool.schema)
    return said


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    return {"type": "function", "name": choice.name} if choice.mode == "tool" else choice.mode


def _format(wanted: OutputFormat) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    said: dict[str, Any] = {"type": "json_schema", "name": wanted.name or "answer", "schema": wanted.schema}
    if wanted.description:
        said["description"] = wanted.description
    if wanted.strict is not None:
        said["strict"] = wanted.strict
    return said
