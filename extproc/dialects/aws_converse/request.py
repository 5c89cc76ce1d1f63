"""A request for Converse."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from extproc.dialects import Place
from extproc.effort import LEAST_BUDGET, budget
from extproc.errors import UNSUPPORTED_BY_TARGETS, Refusal
from extproc.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    Prompt,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)

_THINKING_ROOM = 4096  # tokens of answer beside the thinking, where the client sets no limit
_FORMATS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_NAME = re.compile(r"[^A-Za-z0-9 ()\[\]-]+")
_SPACES = re.compile(r"\s+")


def encode(prompt: Prompt, place: Place) -> tuple[dict[str, Any], Sequence[str]]:
    """The body of a request, and what of the prompt it cannot say."""
    ignored: list[str] = []
    body: dict[str, Any] = {"messages": _messages(prompt.messages)}
    if prompt.system:
        body["system"] = [block for part in prompt.system if part.text for block in _marked({"text": part.text}, part)]
    inference = {
        "maxTokens": prompt.max_tokens or place.max_output_tokens,
        "temperature": prompt.temperature,
        "topP": prompt.top_p,
        "stopSequences": [text for text in prompt.stop if text] or None,
    }
    _tools(prompt, body, ignored)
    _format(prompt, body, ignored)
    _thinking(prompt, place, body, inference, ignored)
    if inference := {name: value for name, value in inference.items() if value is not None}:
        body["inferenceConfig"] = inference
    if prompt.service_tier in ("priority", "default", "flex"):
        body["serviceTier"] = {"type": prompt.service_tier}
    elif prompt.service_tier not in ("", "auto"):
        ignored.append("service_tier")
    if metadata := {key: value for key, value in prompt.metadata.items() if isinstance(value, str)}:
        body["requestMetadata"] = metadata
    advice = ("seed", "presence_penalty", "frequency_penalty")
    ignored += [name for name in advice if getattr(prompt, name) is not None]
    if prompt.user:
        ignored.append("user")
    return body, ignored


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Roles take turns and no message is empty, or Bedrock refuses the request."""
    found: list[dict[str, Any]] = []
    for message in messages:
        blocks = [block for part in message.parts for block in _blocks(part)]
        if not blocks:
            continue
        if found and found[-1]["role"] == message.role:
            found[-1]["content"] += blocks
        else:
            found.append({"role": message.role, "content": blocks})
    return found


def _blocks(part: Part) -> Iterable[dict[str, Any]]:
    if isinstance(part, TextPart | RefusalPart):
        return _marked({"text": part.text}, part) if part.text else ()
    if isinstance(part, ImagePart):
        return _marked({"image": _image(part)}, part)
    if isinstance(part, FilePart):
        return _marked({"document": _document(part)}, part)
    if isinstance(part, AudioPart):
        return [{"audio": {"format": part.format, "source": {"bytes": part.data}}}]
    if isinstance(part, ToolCall):
        return _marked({"toolUse": {"toolUseId": part.id, "name": part.name, "input": _arguments(part)}}, part)
    if isinstance(part, ToolResult):
        return _marked({"toolResult": _result(part)}, part)
    return _reasoning(part)


def _marked(block: dict[str, Any], part: Any) -> list[dict[str, Any]]:
    """The block, and after it the cache point that the part asks for."""
    if getattr(part, "cache", None) is None:
        return [block]
    ttl = part.cache.get("ttl")
    point = {"type": "default", "ttl": ttl} if ttl in ("5m", "1h") else {"type": "default"}
    return [block, {"cachePoint": point}]


def _image(part: ImagePart) -> dict[str, Any]:
    if part.url.startswith("s3://"):
        kind = part.url.rpartition(".")[2].lower().replace("jpg", "jpeg")
        return {"format": kind, "source": {"s3Location": {"uri": part.url}}}
    if not part.data:
        message = "This provider reads no images from the web; send the image as base64 data."
        raise Refusal(UNSUPPORTED_BY_TARGETS, message, param="messages")
    kind = part.media_type.partition("/")[2].replace("jpg", "jpeg") or "png"
    return {"format": kind, "source": {"bytes": part.data}}


def _document(part: FilePart) -> dict[str, Any]:
    name = _SPACES.sub(" ", _NAME.sub(" ", part.name.rpartition(".")[0] or part.name)).strip() or "document"
    extension = part.name.rpartition(".")[2].lower()
    kind = _FORMATS.get(part.media_type) or (extension if extension in _FORMATS.values() else "txt")
    if part.url.startswith("s3://"):
        return {"format": kind, "name": name, "source": {"s3Location": {"uri": part.url}}}
    if not part.data:
        message = "This provider reads no files from elsewhere; send the file as base64 data."
        raise Refusal(UNSUPPORTED_BY_TARGETS, message, param="messages")
    return {"format": kind, "name": name, "source": {"bytes": part.data}}


def _arguments(call: ToolCall) -> Any:
    try:
        found = msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _result(part: ToolResult) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    for piece in part.parts:
        if isinstance(piece, TextPart):
            content.append({"text": piece.text})
        elif isinstance(piece, ImagePart):
            content.append({"image": _image(piece)})
        else:
            content.append({"document": _document(piece)})
    found: dict[str, Any] = {"toolUseId": part.id, "content": content or [{"text": ""}]}
    if part.error:
        found["status"] = "error"
    return found


def _reasoning(part: ThinkingPart) -> list[dict[str, Any]]:
    """Thinking without a signature, or with another provider's, would be refused."""
    if part.redacted:
        return [{"reasoningContent": {"redactedContent": part.redacted}}]
    if not part.signature or part.signature.startswith("gemini:"):
        return []
    return [{"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}]


def _tools(prompt: Prompt, body: dict[str, Any], ignored: list[str]) -> None:
    if not prompt.tools:
        return
    choice = prompt.tool_choice
    used = any(isinstance(part, ToolCall | ToolResult) for message in prompt.messages for part in message.parts)
    if choice is not None and choice.mode == "none" and not used:
        return  # there is no such choice, but without tools there is none to make
    tools: list[dict[str, Any]] = []
    for tool in prompt.tools:
        schema = tool.schema or {"type": "object", "properties": {}}
        spec: dict[str, Any] = {"name": tool.name, "inputSchema": {"json": schema}}
        if tool.description:
            spec["description"] = tool.description
        if tool.strict is not None:
            spec["strict"] = tool.strict
        tools += _marked({"toolSpec": spec}, tool)
    body["toolConfig"] = config = {"tools": tools}
    if choice is not None:
        if choice.mode == "none":
            ignored.append("tool_choice")
        elif choice.mode == "tool":
            config["toolChoice"] = {"tool": {"name": choice.name}}  # type: ignore[assignment]
        elif choice.mode == "required":
            config["toolChoice"] = {"any": {}}  # type: ignore[assignment]
        else:
            config["toolChoice"] = {"auto": {}}  # type: ignore[assignment]
    if prompt.parallel_tools is False:
        ignored.append("parallel_tool_calls")


def _format(prompt: Prompt, body: dict[str, Any], ignored: list[str]) -> None:
    wanted = prompt.format
    if wanted is None:
        return
    if wanted.schema is None:
        ignored.append("response_format")
        return
    schema: dict[str, Any] = {"schema": msgspec.json.encode(wanted.schema).decode(), "name": wanted.name or "answer"}
    if wanted.description:
        schema["description"] = wanted.description
    body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}


def _thinking(
    prompt: Prompt, place: Place, body: dict[str, Any], inference: dict[str, Any], ignored: list[str]
) -> None:
    """How much to think is said differently for each family of models."""
    more: dict[str, Any] = {}
    wanted = prompt.thinking_budget
    if wanted is None and prompt.effort is not None:
        wanted = budget(prompt.effort)
    if "anthropic." in place.model:
        if prompt.thinking_adaptive:
            more["thinking"] = {"type": "adaptive"}
        elif wanted:
            wanted = max(wanted, LEAST_BUDGET)
            limit = inference["maxTokens"]
            inference["maxTokens"] = wanted + (_THINKING_ROOM if limit is None else limit)
            if place.max_output_tokens is not None:
                inference["maxTokens"] = min(inference["maxTokens"], place.max_output_tokens)
                wanted = min(wanted, max(LEAST_BUDGET, inference["maxTokens"] - 1))
            more["thinking"] = {"type": "enabled", "budget_tokens": wanted}
        if "thinking" in more:
            for name, field in (("temperature", "temperature"), ("topP", "top_p")):
                if inference[name] is not None:
                    inference[name] = None
                    ignored.append(field)
        if prompt.top_k is not None:
            more["top_k"] = prompt.top_k
    else:
        if wanted is not None and "openai." in place.model and prompt.effort is not None:
            more["reasoning_effort"] = prompt.effort
        elif wanted:
            ignored.append("reasoning_effort")
        if prompt.top_k is not None:
            ignored.append("top_k")
    if more:
        body["additionalModelRequestFields"] = more
