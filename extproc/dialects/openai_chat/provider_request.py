"""The neutral form as a chat completion request for a provider.

Source: https://platform.openai.com/docs/api-reference/chat/create

OpenAI refuses unknown fields. So do some other providers of its API, while others have additional fields. `more` names
a provider's extensions: "thinking" (`reasoning_content`, `thinking_blocks` and thought signatures on assistant
messages), "cache_control" (marks on parts and tools), "top_k".
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from extproc.dialects import _effort, _json_mode, _limits
from extproc.dialects.openai_chat.schema import can_be_strict
from extproc.words.dialect import Destination
from extproc.words.errors import UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    RefusalPart,
    TextPart,
    ThinkingPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

_LONGEST_ID = 40  # most characters of a tool call's id at OpenAI
_DETAILS = frozenset(("auto", "low", "high", "original"))
_TIERS = {tier: tier for tier in ("auto", "default", "flex", "scale", "priority", "fast")} | {
    "standard": "default",
    "standard_only": "default",
}


def encode(
    prompt: Prompt, destination: Destination, more: Collection[str] = ()
) -> tuple[dict[str, Any], Sequence[str]]:
    """The body, and names of advisory fields left out. Raises Refusal (400) for files by address."""
    marks, thinking = "cache_control" in more, "thinking" in more
    ignored: list[str] = []
    messages: list[dict[str, Any]] = []
    if system := _system(prompt.system, marks=marks):
        messages.append({"role": "system", "content": system})
    for message in prompt.messages:
        if message.role == "assistant":
            messages += _assistant(message, thinking=thinking, marks=marks)
        else:
            messages += _user(message, marks=marks)
    body: dict[str, Any] = {"model": destination.model, "messages": messages}
    if prompt.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    if prompt.tools:
        body["tools"] = [_tool(tool, marks=marks) for tool in prompt.tools]
        if any(tool.strict and not can_be_strict(tool.schema) for tool in prompt.tools):
            ignored.append("strict")
        if prompt.tool_choice is not None:
            body["tool_choice"] = _tool_choice(prompt.tool_choice)
        if prompt.parallel_tools is not None:
            body["parallel_tool_calls"] = prompt.parallel_tools
    if prompt.format is not None:
        body["response_format"] = _format(prompt.format)
        if prompt.format.schema is None:
            _json_mode.add_word(messages)
    if (limit := _limits.capped(prompt.max_tokens, destination.max_output_tokens)) is not None:
        body["max_tokens" if "max_tokens" in more else "max_completion_tokens"] = limit
    body |= {
        name: value
        for name, value in (
            ("temperature", prompt.temperature),
            ("top_p", prompt.top_p),
            ("seed", prompt.seed),
            ("presence_penalty", prompt.presence_penalty),
            ("frequency_penalty", prompt.frequency_penalty),
            ("stop", prompt.stop or None),
            ("n", prompt.choices if prompt.choices > 1 else None),
            ("user", _limits.short(prompt.user, _limits.LONGEST_USER) or None),
        )
        if value is not None
    }
    if prompt.images:  # https://openrouter.ai/docs/features/multimodal/image-generation
        body["modalities"] = ["image", "text"]
    if prompt.logprobs is not None:
        body["logprobs"] = True
        if prompt.logprobs:
            body["top_logprobs"] = prompt.logprobs
    if (wanted := _effort.asked_effort(prompt)) is not None:
        if (effort := _effort.fitting(wanted, destination.model)) is not None:
            body["reasoning_effort"] = effort
        elif wanted != "none":
            ignored.append("reasoning_effort")
    if prompt.top_k is not None:
        if "top_k" in more:
            body["top_k"] = prompt.top_k
        else:
            ignored.append("top_k")
    if prompt.service_tier:
        if (tier := _TIERS.get(prompt.service_tier)) is not None:
            body["service_tier"] = tier
        else:
            ignored.append("service_tier")
    if prompt.metadata:
        ignored.append("metadata")  # OpenAI accepts metadata only with `store`, which the request does not set
    if prompt.show_thinking is not None:
        ignored.append("show_thinking")
    if not marks and prompt.is_marked:
        ignored.append("cache_control")
    return body, ignored


# --- messages


def _system(parts: Sequence[TextPart], *, marks: bool) -> str | list[dict[str, Any]]:
    """The system prompt as one text, which every provider accepts; as parts only for cache marks."""
    if marks and any(part.cache for part in parts):
        return [_text(part.text, part.cache) for part in parts if part.text]
    return "\n\n".join(part.text for part in parts if part.text)


def _user(message: Message, *, marks: bool) -> list[dict[str, Any]]:
    """A user's turn. Tool results come first, because they must follow the calls; their images and files follow all
    results.
    """
    results: list[dict[str, Any]] = []
    attached: list[dict[str, Any]] = []
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            if part.text:
                content.append(_text(part.text, part.cache if marks else None))
        elif isinstance(part, ToolResult):
            results.append(_result(part, attached, marks=marks))
        elif isinstance(part, AudioPart):
            content.append({"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}})
        elif isinstance(part, ImagePart | FilePart):
            sent = _file_or_image(part)
            if marks and part.cache:
                sent["cache_control"] = part.cache
            content.append(sent)
    if attached or content or not results:
        results.append({"role": "user", "content": _plain(attached + content)})
    return results


def _result(result: ToolResult, attached: list[dict[str, Any]], *, marks: bool) -> dict[str, Any]:
    texts = [part.text for part in result.parts if isinstance(part, TextPart)]
    if len(texts) < len(result.parts):
        attached.append(_text(f"What came with the result of {_id(result.id)}:"))
        attached += [_file_or_image(part) for part in result.parts if not isinstance(part, TextPart)]
    text = "\n".join(texts)
    if result.error:
        text = f"Error: {text}"
    cache = (result.cache or next((part.cache for part in result.parts if part.cache), None)) if marks else None
    content = [_text(text, cache)] if cache else text
    return {"role": "tool", "tool_call_id": _id(result.id), "content": content}


def _assistant(message: Message, *, thinking: bool, marks: bool) -> list[dict[str, Any]]:
    """One message; none if it would be empty."""
    parts = message.parts
    texts = [part for part in parts if isinstance(part, TextPart) and part.text]
    refusal = "".join(part.text for part in parts if isinstance(part, RefusalPart))
    calls = [_call(part, thinking=thinking, marks=marks) for part in parts if isinstance(part, ToolCall)]
    said: dict[str, Any] = {"role": "assistant", "content": None}
    if marks and any(part.cache for part in texts):
        said["content"] = [_text(part.text, part.cache) for part in texts]
    elif texts:
        said["content"] = "".join(part.text for part in texts)
    if refusal and texts:
        said["refusal"] = refusal
    elif refusal:
        said["content"] = [{"type": "refusal", "refusal": refusal}]
    if calls:
        said["tool_calls"] = calls
    if thinking:
        said |= thoughts([part for part in parts if isinstance(part, ThinkingPart)])
    if len(said) == 2 and said["content"] is None:
        return []
    if said["content"] is None and not calls:
        said["content"] = ""
    return [said]


def thoughts(parts: Sequence[ThinkingPart]) -> dict[str, Any]:
    """Fields of an assistant message for its thinking: blocks if signatures must be sent back."""
    fields: dict[str, Any] = {}
    if text := "".join(part.text for part in parts):
        fields["reasoning_content"] = text
    if any(part.signature or part.redacted for part in parts):
        fields["thinking_blocks"] = [thinking_block(part) for part in parts]
    return fields


def thinking_block(part: ThinkingPart) -> dict[str, Any]:
    if part.redacted:
        return {"type": "redacted_thinking", "data": part.redacted}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _call(call: ToolCall, *, thinking: bool, marks: bool) -> dict[str, Any]:
    said: dict[str, Any] = {
        "id": _id(call.id),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments or "{}"},
    }
    if thinking and call.signature:
        said["extra_content"] = {"google": {"thought_signature": call.signature}}
    if marks and call.cache:
        said["cache_control"] = call.cache
    return said


def _id(id: str) -> str:
    """A call's id. A long id of another API is always shortened alike."""
    if len(id) <= _LONGEST_ID:
        return id
    return "call_" + hashlib.blake2s(id.encode(errors="replace"), digest_size=12).hexdigest()


def _plain(content: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """The shortest form of content: a text alone is a string."""
    if not content:
        return ""
    if len(content) == 1 and content[0].keys() == {"type", "text"}:
        return content[0]["text"]  # type: ignore[no-any-return]
    return content


def _text(text: str, cache: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "text", "text": text, "cache_control": cache} if cache else {"type": "text", "text": text}


def _file_or_image(part: ImagePart | FilePart | TextPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return _text(part.text)
    if isinstance(part, ImagePart):
        image = {"url": f"data:{part.media_type or 'image/png'};base64,{part.data}" if part.data else part.url}
        if part.detail in _DETAILS:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    if part.id:
        return {"type": "file", "file": {"file_id": part.id}}
    if not part.data:
        raise Refusal(
            UNSUPPORTED_BY_TARGETS,
            "The target takes no addresses of files: send the file itself as base64 data.",
            param="messages",
        )
    media_type = part.media_type or "application/pdf"
    if media_type.startswith("text/") and (text := _readable(part.data)) is not None:
        return _text(f"{part.name}:\n{text}" if part.name else text)
    file = {"filename": part.name or f"file.{media_type.rpartition('/')[2]}"}
    return {"type": "file", "file": file | {"file_data": f"data:{media_type};base64,{part.data}"}}


def _readable(data: str) -> str | None:
    try:
        return base64.b64decode(data).decode()
    except ValueError:
        return None


# --- tools and formats


def _tool(tool: Tool, *, marks: bool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.schema or {"type": "object", "properties": {}}
    if tool.strict is not None:
        function["strict"] = tool.strict and can_be_strict(tool.schema)
    said: dict[str, Any] = {"type": "function", "function": function}
    if marks and tool.cache:
        said["cache_control"] = tool.cache
    return said


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    return {"type": "function", "function": {"name": choice.name}} if choice.mode == "tool" else choice.mode


def _format(wanted: OutputFormat) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": wanted.name or "answer", "schema": wanted.schema}
    if wanted.description:
        schema["description"] = wanted.description
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": schema}
