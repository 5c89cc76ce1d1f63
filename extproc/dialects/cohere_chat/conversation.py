"""The conversation as `messages`: system, user, assistant and tool.

Source: https://docs.cohere.com/reference/chat#request.body.messages and https://docs.cohere.com/docs/tool-use-overview

Rules of the API: one system message comes first, no message is empty, results follow their calls, and an assistant's
text beside tool calls is a plan, not content.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from extproc.dialects.anthropic_messages.provider_request import arguments
from extproc.dialects.cohere_chat.names import escape
from extproc.words.errors import UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.messages import (
    FilePart,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)

_decode = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode
_DETAILS = frozenset(("auto", "low", "high"))

Json = dict[str, Any]


def conversation(system: Iterable[TextPart], messages: Iterable[Message], *, reasons: bool) -> list[Json]:
    """The messages. Raises Refusal for content that Cohere cannot read. `reasons`: the model accepts its earlier
    thinking.
    """
    found: list[Json] = []
    for message in messages:
        if message.role == "assistant":
            found += _assistant(message.parts, reasons=reasons)
        else:
            _add_user(message.parts, found)
    rules = "\n\n".join(part.text for part in system if part.text)
    if not found:  # Cohere refuses a system message alone
        return [{"role": "user", "content": rules or " "}]
    return [{"role": "system", "content": rules}, *found] if rules else found


def _assistant(parts: list[Part], *, reasons: bool) -> list[Json]:
    """One message; none if it would be empty."""
    thoughts: list[str] = []
    texts: list[str] = []
    calls: list[Json] = []
    for part in parts:
        if isinstance(part, TextPart | RefusalPart):
            if part.text:
                texts.append(part.text)
        elif isinstance(part, ThinkingPart):
            if part.text:
                thoughts.append(part.text)
        elif isinstance(part, ToolCall):
            function = {"name": escape(part.name), "arguments": _object(part.arguments)}
            calls.append({"id": part.id, "type": "function", "function": function})
    thinking = [{"type": "thinking", "thinking": text} for text in thoughts] if reasons else []
    said: Json = {"role": "assistant"}
    if calls:
        if thinking:
            said["content"] = thinking
        if plan := "\n\n".join(texts if reasons else [*thoughts, *texts]):
            said["tool_plan"] = plan
        said["tool_calls"] = calls
    elif thinking and texts:
        said["content"] = [*thinking, {"type": "text", "text": "".join(texts)}]
    elif texts:
        said["content"] = "".join(texts)
    else:  # thinking alone is not a turn
        return []
    return [said]


def _object(text: str) -> str:
    """Arguments as JSON of an object, which the API requires; another model may have written another value."""
    found = arguments(text)
    return _write(found).decode() if not found or found == {"arguments": text} else text


def _add_user(parts: list[Part], found: list[Json]) -> None:
    """Add tool results first, then other parts."""
    content: list[Json] = []
    for result in parts:
        if isinstance(result, ToolResult):
            texts = [part.text for part in result.parts if isinstance(part, TextPart)]
            documents = [_document(text, error=result.error) for text in texts or [""]]
            if len(texts) < len(result.parts):  # only texts can be documents
                content.append({"type": "text", "text": f"What came with the result of {result.id}:"})
                content += [_media(part) for part in result.parts if not isinstance(part, TextPart)]
            found.append({"role": "tool", "tool_call_id": result.id, "content": documents})
    for part in parts:
        if isinstance(part, TextPart | RefusalPart):
            if part.text:
                content.append({"type": "text", "text": part.text})
        elif not isinstance(part, ToolResult | ToolCall | ThinkingPart):
            content.append(_media(part))
    if content:
        alone = len(content) == 1 and content[0]["type"] == "text"
        found.append({"role": "user", "content": content[0]["text"] if alone else content})


def _document(text: str, *, error: bool) -> Json:
    """A result as a document, whose data is an object: the object in the text, or an object with the text."""
    data: Any = None
    if not error and text.lstrip()[:1] == "{":
        try:
            data = _decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            data = None
    return {"type": "document", "document": {"data": data or {"error" if error else "output": text}}}


def _media(part: Part) -> Json:
    if isinstance(part, ImagePart):
        url = f"data:{part.media_type or 'image/png'};base64,{part.data}" if part.data else part.url
        if not part.data and not url.startswith(("https://", "http://", "data:")):
            raise _unreadable("The image is at a URL that Cohere cannot read: send its data in base64 instead.")
        image = {"url": url}
        if part.detail in _DETAILS:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    what = "files" if isinstance(part, FilePart) else "audio"
    raise _unreadable(f"The target of this model takes no {what}: send text or images.")


def _unreadable(message: str) -> Refusal:
    return Refusal(UNSUPPORTED_BY_TARGETS, message, param="messages")
