"""A client's request, read into the neutral form.

Features that only Anthropic has (server tools, their results, containers, MCP servers, uploaded images) are refused by
name: another API would ignore them. System messages inside the conversation join the system prompt.

Source: https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from extproc.dialects import MAX_TOKENS, read_flag, read_integer, read_model
from extproc.dialects._effort import LEVELS
from extproc.dialects._refusals import fields, optional_fields, optional_list, optional_string, string
from extproc.words.errors import INVALID_REQUEST, UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.messages import (
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Part,
    Prompt,
    TextPart,
    ThinkingPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

Parts = list[TextPart | ImagePart | FilePart]

_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_KNOWN = frozenset(
    (
        *("model", "messages", "max_tokens", "stream", "system", "tools", "tool_choice", "thinking", "output_config"),
        *("output_format", "stop_sequences", "temperature", "top_p", "top_k", "metadata", "service_tier"),
        *("cache_control", "mcp_servers", "container"),
    )
)
_TOOL_FIELDS = frozenset(("type", "name", "description", "input_schema", "strict", "cache_control"))
_ONLY_THERE = (
    *("server_tool_use", "container_upload", "mcp_tool_use", "mcp_tool_result", "compaction"),
    *("web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result", "tool_search_tool_result"),
    *("bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "browser_state"),
)
_BILLING = "x-anthropic-billing-header:"
_NAME, _NAMES = 40, 20  # characters of a name in `ignored`, and most names
_encode = msgspec.json.encode


def decode_request(body: Mapping[str, Any]) -> Prompt:
    """The neutral form of a request. Raises Refusal (400) with the field's name."""
    prompt = Prompt(read_model(body), [], stream=read_flag(body, "stream"))
    prompt.max_tokens = read_integer(body, "max_tokens", 0, MAX_TOKENS)
    if prompt.max_tokens is None:
        raise _wrong("max_tokens", "is required: the most tokens to write")
    if prompt.max_tokens == 0:
        raise _unsupported("max_tokens", "A 'max_tokens' of 0, to fill the prompt cache,")
    _read_system(body.get("system"), "system", prompt)
    _read_messages(body.get("messages"), prompt)
    _read_tools(body, prompt)
    _read_thinking(body.get("thinking"), prompt)
    _read_output(body, prompt)
    prompt.temperature = _number(body, "temperature")
    prompt.top_p = _number(body, "top_p")
    prompt.top_k = read_integer(body, "top_k", 0, MAX_TOKENS)
    stop = optional_list(body.get("stop_sequences"), "stop_sequences")
    prompt.stop = [string(word, f"stop_sequences[{index}]") for index, word in enumerate(stop)]
    metadata = optional_fields(body.get("metadata"), "metadata")
    prompt.user = optional_string(metadata.get("user_id"), "metadata.user_id")
    _ignore(prompt, "metadata.", (name for name in metadata if name != "user_id"))
    tier = optional_string(body.get("service_tier"), "service_tier")
    prompt.service_tier = "default" if tier == "standard_only" else tier
    for name in ("mcp_servers", "container"):
        if body.get(name):
            raise _unsupported(name, f"'{name}'")
    cache = optional_fields(body.get("cache_control"), "cache_control")
    if cache and prompt.messages:
        last = prompt.messages[-1].parts[-1] if prompt.messages[-1].parts else None
        if isinstance(last, TextPart | ImagePart | FilePart | ToolCall | ToolResult) and last.cache is None:
            last.cache = cache
    _ignore(prompt, "", (name for name, value in body.items() if name not in _KNOWN and value is not None))
    return prompt


# --- the conversation


def _read_system(system: Any, where: str, prompt: Prompt) -> None:
    if isinstance(system, str):
        if text := _without_billing(system):
            prompt.system.append(TextPart(text))
    elif system is not None:
        prompt.system += [part for part in _texts(system, where) if _without_billing(part.text)]


def _without_billing(text: str) -> str:
    """The system prompt without Claude Code's first line, which is billing data for Anthropic.

    That line differs in each request, so other providers could not cache the prompt:
    github.com/sgl-project/sglang/pull/29169.
    """
    return text.lstrip().partition("\n")[2] if text.lstrip().startswith(_BILLING) else text


def _read_messages(messages: Any, prompt: Prompt) -> None:
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "must be a list with at least one message")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise _wrong(where, "must be an object")
        role, content = message.get("role"), message.get("content")
        if role == "system":
            if content is None:
                raise _wrong(f"{where}.content", "must be a string or a list")
            _read_system(content, f"{where}.content", prompt)
        elif role in ("user", "assistant"):
            parts: list[Part]
            if isinstance(content, str):
                parts = [TextPart(content)] if content else []
            elif isinstance(content, list):
                parts = []
                read = _USER if role == "user" else _ASSISTANT
                for at, block in enumerate(content):
                    _read_block(block, f"{where}.content[{at}]", read, parts, prompt)
            else:
                raise _wrong(f"{where}.content", "must be a string or a list")
            prompt.messages.append(Message(role, parts))
        else:
            raise _wrong(f"{where}.role", "must be user, assistant or system")


def _read_block(block: Any, where: str, known: Mapping[str, Any], parts: list[Any], prompt: Prompt) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str):
        raise _wrong(where, "must be an object with a 'type'")
    read = known.get(kind)
    if read is None:
        if kind in _ONLY_THERE:
            raise _unsupported(where, f"Content of the type '{kind}'")
        raise _wrong(f"{where}.type", f"cannot be '{kind[:64]}' here")
    read(block, where, parts, prompt)


def _read_text(block: Mapping[str, Any], where: str, parts: list[Any], _prompt: Prompt) -> None:
    parts.append(TextPart(string(block.get("text"), f"{where}.text"), _cache(block, where)))


def _read_image(block: Mapping[str, Any], where: str, parts: list[Any], _prompt: Prompt) -> None:
    source = fields(block.get("source"), f"{where}.source")
    kind = source.get("type")
    if kind == "base64":
        data = string(source.get("data"), f"{where}.source.data")
        media_type = string(source.get("media_type"), f"{where}.source.media_type")
        parts.append(ImagePart(data, media_type, cache=_cache(block, where)))
    elif kind == "url":
        parts.append(ImagePart(url=string(source.get("url"), f"{where}.source.url"), cache=_cache(block, where)))
    elif kind == "file":
        raise _unsupported(where, "An uploaded image", "send it as base64 data")
    else:
        raise _wrong(f"{where}.source.type", "must be base64, url or file")


def _read_document(block: Mapping[str, Any], where: str, parts: list[Any], prompt: Prompt) -> None:
    source = fields(block.get("source"), f"{where}.source")
    name = optional_string(block.get("title"), f"{where}.title")
    part = FilePart(name=name, cache=_cache(block, where))
    kind, at = source.get("type"), f"{where}.source"
    if kind == "base64":
        part.data = string(source.get("data"), f"{at}.data")
        part.media_type = string(source.get("media_type"), f"{at}.media_type")
    elif kind == "text":
        part.data = b64encode(string(source.get("data"), f"{at}.data").encode()).decode()
        part.media_type = "text/plain"
    elif kind == "url":
        part.url = string(source.get("url"), f"{at}.url")
    elif kind == "file":
        part.id = string(source.get("file_id"), f"{at}.file_id")
    elif kind == "content":
        _read_content(source.get("content"), f"{at}.content", _DOCUMENT, parts, prompt)
    else:
        raise _wrong(f"{at}.type", "must be base64, text, url, file or content")
    if kind != "content":
        parts.append(part)
    _ignore_in(prompt, block, "context", "citations")


def _read_search_result(block: Mapping[str, Any], where: str, parts: list[Any], prompt: Prompt) -> None:
    """The client's search result as text, with title and source."""
    title = string(block.get("title"), f"{where}.title")
    source = string(block.get("source"), f"{where}.source")
    found = _texts(block.get("content"), f"{where}.content")
    parts.append(TextPart("\n".join([f"{title} ({source})", *(part.text for part in found)]), _cache(block, where)))
    _ignore_in(prompt, block, "citations")


def _read_thinking_block(block: Mapping[str, Any], where: str, parts: list[Any], _prompt: Prompt) -> None:
    text = optional_string(block.get("thinking"), f"{where}.thinking")
    parts.append(ThinkingPart(text, optional_string(block.get("signature"), f"{where}.signature")))


def _read_redacted(block: Mapping[str, Any], where: str, parts: list[Any], _prompt: Prompt) -> None:
    parts.append(ThinkingPart(redacted=string(block.get("data"), f"{where}.data")))


def _read_tool_use(block: Mapping[str, Any], where: str, parts: list[Any], _prompt: Prompt) -> None:
    name, id = string(block.get("name"), f"{where}.name"), string(block.get("id"), f"{where}.id")
    arguments = _encode(fields(block.get("input"), f"{where}.input")).decode()
    signature = block.get("extra_content")  # see client_answer.py
    for key in ("google", "thought_signature"):
        signature = signature.get(key) if isinstance(signature, dict) else None
    parts.append(ToolCall(id, name, arguments, signature if isinstance(signature, str) else "", _cache(block, where)))


def _read_tool_result(block: Mapping[str, Any], where: str, parts: list[Any], prompt: Prompt) -> None:
    found: Parts = []
    if block.get("content") is not None:
        _read_content(block["content"], f"{where}.content", _RESULT, found, prompt)
    id = string(block.get("tool_use_id"), f"{where}.tool_use_id")
    parts.append(ToolResult(id, found, error=_flag(block, "is_error", where), cache=_cache(block, where)))


def _read_reference(block: Mapping[str, Any], where: str, parts: list[Any], _prompt: Prompt) -> None:
    """A tool found by the client's own search. Other APIs offer every tool at once."""
    name = string(block.get("tool_name"), f"{where}.tool_name")
    parts.append(TextPart(f"The tool {name} can be called.", _cache(block, where)))


def _read_content(content: Any, where: str, known: Mapping[str, Any], parts: list[Any], prompt: Prompt) -> None:
    if isinstance(content, str):
        parts.append(TextPart(content))
        return
    if not isinstance(content, list):
        raise _wrong(where, "must be a string or a list")
    for index, block in enumerate(content):
        _read_block(block, f"{where}[{index}]", known, parts, prompt)


_DOCUMENT = {"text": _read_text, "image": _read_image}
_USER = _DOCUMENT | {"document": _read_document, "search_result": _read_search_result}
_RESULT = _USER | {"tool_reference": _read_reference}
_USER = _USER | {"tool_result": _read_tool_result}
_ASSISTANT = {
    "text": _read_text,
    "thinking": _read_thinking_block,
    "redacted_thinking": _read_redacted,
    "tool_use": _read_tool_use,
}


def _texts(blocks: Any, where: str) -> list[TextPart]:
    parts = []
    for index, block in enumerate(optional_list(blocks, where)):
        at = f"{where}[{index}]"
        if not isinstance(block, dict) or block.get("type") != "text":
            raise _wrong(at, "must be a text block")
        parts.append(TextPart(string(block.get("text"), f"{at}.text"), _cache(block, at)))
    return parts


# --- the settings


def _read_tools(body: Mapping[str, Any], prompt: Prompt) -> None:
    for index, tool in enumerate(optional_list(body.get("tools"), "tools")):
        where = f"tools[{index}]"
        kind = fields(tool, where).get("type")
        if kind is not None and kind != "custom":
            raise _unsupported(where, f"The tool type '{string(kind, f'{where}.type')[:64]}'")
        strict = tool.get("strict")
        prompt.tools.append(
            Tool(
                string(tool.get("name"), f"{where}.name"),
                optional_string(tool.get("description"), f"{where}.description"),
                fields(tool.get("input_schema"), f"{where}.input_schema"),
                None if strict is None else _flag(tool, "strict", where),
                _cache(tool, where),
            )
        )
        if not tool.keys() <= _TOOL_FIELDS:
            _ignore(prompt, "tools.", (name for name in tool if name not in _TOOL_FIELDS and tool[name] is not None))
    choice = optional_fields(body.get("tool_choice"), "tool_choice")
    if not choice:
        return
    kind = choice.get("type")
    if kind == "tool":
        prompt.tool_choice = ToolChoice("tool", string(choice.get("name"), "tool_choice.name"))
    elif kind in ("auto", "any", "none"):
        prompt.tool_choice = ToolChoice("required" if kind == "any" else kind)
    else:
        raise _wrong("tool_choice.type", "must be auto, any, tool or none")
    if choice.get("disable_parallel_tool_use") is not None:
        prompt.parallel_tools = not _flag(choice, "disable_parallel_tool_use", "tool_choice")


def _read_thinking(value: Any, prompt: Prompt) -> None:
    thinking = optional_fields(value, "thinking")
    if not thinking:
        return
    kind = thinking.get("type")
    if kind in ("disabled", "between_tools"):
        prompt.thinking_budget = 0
        return
    if kind == "enabled":
        tokens = read_integer(thinking, "budget_tokens", 1, MAX_TOKENS)
        if tokens is None:
            raise _wrong("thinking.budget_tokens", "is required")
        prompt.thinking_budget = tokens
    elif kind == "adaptive":
        prompt.thinking_adaptive = True
    else:
        raise _wrong("thinking.type", "must be enabled, disabled, adaptive or between_tools")
    # Clients of this API that turn thinking on expect to see it.
    prompt.show_thinking = optional_string(thinking.get("display"), "thinking.display") != "omitted"


def _read_output(body: Mapping[str, Any], prompt: Prompt) -> None:
    config = optional_fields(body.get("output_config"), "output_config")
    level = optional_string(config.get("effort"), "output_config.effort")
    if level:
        if level not in _EFFORTS:
            raise _wrong("output_config.effort", "must be low, medium, high, xhigh or max")
        prompt.effort = LEVELS[level]
    for where, value in (("output_config.format", config.get("format")), ("output_format", body.get("output_format"))):
        form = optional_fields(value, where)
        if not form:
            continue
        if form.get("type") != "json_schema":
            raise _wrong(f"{where}.type", "must be json_schema")
        prompt.format = OutputFormat(fields(form.get("schema"), f"{where}.schema"))
        break
    _ignore(prompt, "output_config.", (name for name in config if name not in ("effort", "format")))


# --- values


def _wrong(where: str, what: str) -> Refusal:
    return Refusal(INVALID_REQUEST, f"'{where}' {what}.", param=where)


def _unsupported(where: str, what: str, instead: str = "leave it out, or use a model at Anthropic") -> Refusal:
    message = f"{what} works only at Anthropic, and this model is served through another API; {instead}."
    return Refusal(UNSUPPORTED_BY_TARGETS, message, param=where)


def _flag(holder: Mapping[str, Any], name: str, where: str) -> bool:
    value = holder.get(name)
    if value is None:
        return False
    if type(value) is not bool:
        raise _wrong(f"{where}.{name}", "must be true or false")
    return value


def _number(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise _wrong(name, "must be a number from 0 to 1")
    return float(value)


def _cache(block: Mapping[str, Any], where: str) -> Mapping[str, Any] | None:
    value = block.get("cache_control")
    return None if value is None else fields(value, f"{where}.cache_control")


def _ignore(prompt: Prompt, prefix: str, names: Iterable[str]) -> None:
    """Note names of ignored fields: distinct, only the first few, and only names that can be shown."""
    for name in names:
        shown = prefix + (name if name.isidentifier() and name.isascii() and len(name) <= _NAME else "?")
        if shown not in prompt.ignored and len(prompt.ignored) < _NAMES:
            prompt.ignored.append(shown)


def _ignore_in(prompt: Prompt, block: Mapping[str, Any], *names: str) -> None:
    _ignore(prompt, "", (name for name in names if block.get(name) is not None))
