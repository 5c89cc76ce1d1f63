"""A client's chat completion request in the neutral form.

Source: https://platform.openai.com/docs/api-reference/chat/create

Extensions of other gateways are read as well: `cache_control` marks, `thinking` and `reasoning` settings, `top_k`, and
on assistant messages the `reasoning_content` and `thinking_blocks` that `client_answer.py` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.dialects import safe_names
from extproc.dialects._effort import LEVELS
from extproc.dialects._refusals import convert, unsupported, wrong
from extproc.dialects.openai_chat import shapes
from extproc.dialects.openai_chat.media import data_url, file_type
from extproc.dialects.openai_chat.shapes import MODES
from extproc.words.messages import (
    AudioPart,
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

Cache = Mapping[str, Any] | None

_CARRIED = frozenset((*shapes.Request.__struct_fields__, "stream_options"))
_OF_A_MESSAGE = frozenset(shapes.Message.__struct_fields__) - {"name"}


def decode(body: Mapping[str, Any]) -> Prompt:
    """The neutral form of a request. Raises Refusal (400) with the field's name."""
    asked = convert(body, shapes.Request)
    if "audio" in (asked.modalities or ()):
        raise unsupported("The answer cannot be audio here: ask for text.", "modalities")
    if asked.web_search_options is not None:
        raise unsupported("The target of this model has no search of the web.", "web_search_options")
    tools = [_tool(tool, index) for index, tool in enumerate(asked.tools)] if asked.tools else []
    if asked.functions:
        tools += [_function(function, function.cache_control) for function in asked.functions]
    system, messages, late = _conversation(asked.messages)
    prompt = Prompt(
        model=asked.model,
        messages=messages,
        system=system,
        stream=asked.stream is True,
        tools=tools,
        parallel_tools=asked.parallel_tool_calls,
        format=_format(asked.response_format),
        max_tokens=asked.max_completion_tokens or asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        stop=_stops(asked.stop) if asked.stop else [],
        seed=asked.seed,
        choices=asked.n or 1,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        user=asked.safety_identifier or asked.user or "",
        metadata=asked.metadata or {},
        service_tier=asked.service_tier or "",
        ignored=_ignored(body),
        late=late,
    )
    prompt.images = "image" in (asked.modalities or ())
    if asked.functions and not asked.tools:
        prompt.one_call, prompt.parallel_tools = True, False
    _choose_tools(asked, prompt)
    _set_thinking(asked, prompt)
    return prompt


def _stops(stop: str | list[str]) -> list[str]:
    return [text for text in ([stop] if isinstance(stop, str) else stop) if text]


def _ignored(body: Mapping[str, Any]) -> list[str]:
    """Names of effective fields that the neutral form cannot express."""
    found: list[str] = []
    if not body.keys() <= _CARRIED:
        found = [name for name in body.keys() - _CARRIED if body[name] is not None and body[name] is not False]
    for message in body["messages"]:
        if not message.keys() <= _OF_A_MESSAGE:
            for name in message.keys() - _OF_A_MESSAGE:
                if message[name] and not (name == "name" and message["role"] in ("tool", "function")):
                    found.append(f"messages.{name}")
    return safe_names(sorted(found)) if found else found


# --- messages


def _conversation(said: list[shapes.Message]) -> tuple[list[TextPart], list[Message], int]:
    """System prompt, turns, and `Prompt.late`."""
    system: list[TextPart] = []
    late = 0
    messages: list[Message] = []
    pending: dict[str, str] = {}  # id of each function's last call; a result names only the function
    results: list[Part] | None = None  # results of the current turn: consecutive results are one turn of the user's
    for index, message in enumerate(said):
        where = f"messages[{index}]"
        role = message.role
        if message.content is None and role in ("user", "system", "developer", "tool"):
            raise wrong(f"'{where}.content' is missing.", f"{where}.content")
        if role in ("tool", "function"):
            result = _result(message, where, pending)
            if results is None:
                results = []
                messages.append(Message("user", results))
            results.append(result)
            late = 0
            continue
        results = None
        if role == "user":
            messages.append(Message("user", _parts(message, where)))
        elif role == "assistant":
            messages.append(Message("assistant", _assistant(message, where, index, pending)))
        elif role in ("system", "developer"):
            for part in _parts(message, where):
                if not isinstance(part, TextPart):
                    raise wrong(f"'{where}.content' can only be text.", f"{where}.content")
                system.append(part)
                late += 1
            continue
        else:
            raise wrong(f"'{where}.role' must be a role of this API.", f"{where}.role")
        late = 0
    return system, messages, late


def _assistant(message: shapes.Message, where: str, index: int, pending: dict[str, str]) -> list[Part]:
    if message.audio is not None:
        raise unsupported("An earlier answer in audio can only be read by the provider that gave it.", f"{where}.audio")
    parts: list[Part] = []
    if message.thinking_blocks:
        for block in message.thinking_blocks:
            if block.type == "thinking":
                parts.append(ThinkingPart(block.thinking or "", block.signature or ""))
            elif block.type == "redacted_thinking":
                parts.append(ThinkingPart(redacted=block.data or ""))
            else:
                raise wrong(f"'{where}.thinking_blocks' holds an unknown type.", f"{where}.thinking_blocks")
    elif message.reasoning_content:
        parts.append(ThinkingPart(message.reasoning_content))
    if message.content:
        parts += _parts(message, where)
    for number, image in enumerate(message.images or ()):
        if image.image_url is not None:
            parts.append(_image(image.image_url, f"{where}.images[{number}]", None))
    if message.refusal:
        parts.append(RefusalPart(message.refusal))
    for number, call in enumerate(message.tool_calls or ()):
        if call.function is None or call.type not in (None, "function"):
            at = f"{where}.tool_calls[{number}]"
            raise unsupported(f"'{at}': only calls of functions can be translated.", at)
        parts.append(
            ToolCall(
                call.id,
                call.function.name,
                call.function.arguments or "",
                _signature(call.extra_content),
                call.cache_control,
            )
        )
    if message.function_call is not None:
        made = f"call_{index}"  # the same in every request, otherwise the provider's prompt cache would miss
        pending[message.function_call.name] = made
        parts.append(ToolCall(made, message.function_call.name, message.function_call.arguments or ""))
    return parts


def _signature(extra: Any) -> str:
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else ""


def _result(message: shapes.Message, where: str, pending: Mapping[str, str]) -> ToolResult:
    parts: list[TextPart | ImagePart | FilePart] = []
    for part in _parts(message, where, marked=False):
        if not isinstance(part, TextPart | ImagePart | FilePart):
            raise wrong(f"'{where}.content' can only be text, images and files.", f"{where}.content")
        parts.append(part)
    if message.role == "tool":
        if not message.tool_call_id:
            raise wrong(f"'{where}.tool_call_id' must name the call that this answers.", f"{where}.tool_call_id")
        return ToolResult(message.tool_call_id, parts, name=message.name or "", cache=_mark(message))
    if not message.name:
        raise wrong(f"'{where}.name' must name the function that this answers.", f"{where}.name")
    call = pending.get(message.name)
    if call is None:
        raise wrong(f"'{where}' answers a function that was not called.", f"{where}.name")
    return ToolResult(call, parts, name=message.name, cache=_mark(message))


def _parts(message: shapes.Message, where: str, *, marked: bool = True) -> list[Part]:
    """Parts of the content. `marked`: the message's cache mark goes to its last part."""
    content = message.content
    if isinstance(content, str):
        return [TextPart(content, _mark(message) if marked else None)]
    parts = [_part(part, f"{where}.content[{number}]", message.role) for number, part in enumerate(content or ())]
    if marked and parts and (mark := _mark(message)) is not None:
        last = parts[-1]
        if isinstance(last, TextPart | ImagePart | FilePart):
            last.cache = mark
    return parts


def _part(part: shapes.Part, where: str, role: str) -> Part:
    if part.type == "text" and part.text is not None:
        return TextPart(part.text, _mark(part))
    if part.type == "refusal" and part.refusal is not None and role == "assistant":
        return RefusalPart(part.refusal)
    if part.type == "image_url" and part.image_url is not None:
        return _image(part.image_url, where, _mark(part))
    if part.type == "file" and part.file is not None:
        return _file(part.file, where, _mark(part))
    if part.type == "document_url" and part.document_url is not None:
        return _file(shapes.File(part.document_url, filename=part.document_name), where, _mark(part))
    if part.type == "input_audio" and part.input_audio is not None:
        return AudioPart(part.input_audio.data, part.input_audio.format)
    raise wrong(f"'{where}' must be a part of this API.", where)


def _image(image: shapes.Image | str, where: str, cache: Cache) -> ImagePart:
    url, detail = (image, "") if isinstance(image, str) else (image.url, image.detail or "")
    if not url:
        raise wrong(f"'{where}.image_url' is empty.", where)
    if not url.startswith("data:"):
        return ImagePart(url=url, detail=detail, cache=cache)
    media_type, data = data_url(url, where)
    return ImagePart(data=data, media_type=media_type, detail=detail, cache=cache)


def _file(file: shapes.File, where: str, cache: Cache) -> FilePart:
    name, address = file.filename or "", file.file_data or file.file_id
    if not address:
        raise wrong(f"'{where}.file' needs file_data or file_id.", where)
    if address.startswith(("https://", "http://")):
        return FilePart(url=address, media_type=file.format or "", name=name, cache=cache)
    if not file.file_data:
        return FilePart(id=address, name=name, cache=cache)
    if address.startswith("data:"):
        media_type, data = data_url(address, where)
    else:
        media_type, data = file.format or file_type(name), address
    return FilePart(data=data, media_type=media_type, name=name, cache=cache)


def _mark(marked: shapes.Marked) -> Cache:
    """The cache mark in Anthropic's form. Its longer lifetime stands for OpenAI's longer one."""
    if marked.cache_control:
        return marked.cache_control
    if marked.prompt_cache_breakpoint:
        return (
            {"type": "ephemeral", "ttl": "1h"} if marked.prompt_cache_breakpoint.get("ttl") else {"type": "ephemeral"}
        )
    return None


# --- tools, format, thinking


def _tool(tool: shapes.Tool, index: int) -> Tool:
    where = f"tools[{index}]"
    if tool.type not in (None, "function"):
        raise unsupported(f"'{where}': only functions can be translated.", where)
    if tool.function is None:
        raise wrong(f"'{where}.function' is missing.", where)
    return _function(tool.function, tool.cache_control or tool.function.cache_control)


def _function(function: shapes.Function, cache: Cache) -> Tool:
    return Tool(function.name, function.description or "", function.parameters or {}, function.strict, cache)


def _choose_tools(asked: shapes.Request, prompt: Prompt) -> None:
    """Set the tools that the model may or must call. `allowed_tools` excludes all other tools."""
    choice = asked.tool_choice
    if choice is None:
        if isinstance(asked.function_call, shapes.Named):
            prompt.tool_choice = ToolChoice("tool", asked.function_call.name)
            return
        choice = asked.function_call
    if choice is None:
        return
    if isinstance(choice, shapes.ChosenTool):
        if choice.function is not None:
            prompt.tool_choice = ToolChoice("tool", choice.function.name)
            return
        if choice.allowed_tools is not None:
            allowed = {tool.function.name for tool in choice.allowed_tools.tools if tool.function is not None}
            prompt.tools = [tool for tool in prompt.tools if tool.name in allowed]
            prompt.tool_choice = ToolChoice(choice.allowed_tools.mode)
            return
        choice = choice.type
    mode = MODES.get(choice or "")
    if mode is None:
        raise wrong("'tool_choice' must be auto, none, required or name a function.", "tool_choice")
    prompt.tool_choice = ToolChoice(mode)


def _format(asked: shapes.Format | None) -> OutputFormat | None:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return OutputFormat()
    schema = asked.json_schema
    if schema is None:
        raise wrong("'response_format.json_schema' is missing.", "response_format")
    return OutputFormat(schema.schema, schema.name or "", schema.description or "", schema.strict)


def _set_thinking(asked: shapes.Request, prompt: Prompt) -> None:
    reasoning = asked.reasoning
    if reasoning is None:
        if asked.reasoning_effort is None and asked.thinking is None:
            return
        reasoning = shapes.Reasoning()
    effort = asked.reasoning_effort or reasoning.effort
    if effort is not None:
        prompt.effort = LEVELS.get(effort)
        if prompt.effort is None:  # an unknown level is ignored as advisory
            prompt.ignored.append("reasoning_effort")
    prompt.thinking_budget = reasoning.max_tokens
    if reasoning.exclude is not None:
        prompt.show_thinking = not reasoning.exclude
    if (thinking := asked.thinking) is not None:
        if thinking.type == "disabled":
            prompt.thinking_budget = 0
        elif thinking.type == "enabled" and thinking.budget_tokens is not None:
            prompt.thinking_budget = thinking.budget_tokens
        else:
            prompt.thinking_adaptive = True
