"""A client's request, read into the neutral form.

Features that only Google has (its own tools and their results, cached content, files of the Files API) are refused by
name: another API would ignore them. A tool result without a call's id belongs to the first call of that tool without a
result.

Source: https://ai.google.dev/api/generate-content#request-body and https://ai.google.dev/api/caching#Content
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from extproc.dialects import MAX_TOKENS, safe_names
from extproc.dialects._effort import LEVELS
from extproc.dialects._refusals import optional_fields, optional_list, optional_string, unsupported, wrong
from extproc.dialects.gemini_generate_content.ask import CONFIG, SCHEMAS, modalities
from extproc.dialects.gemini_generate_content.media import FILES_API
from extproc.dialects.gemini_generate_content.provider_answer import add_text
from extproc.dialects.gemini_generate_content.schema import json_schema
from extproc.dialects.gemini_generate_content.shapes import MOST_CHOICES
from extproc.dialects.gemini_generate_content.signature import PACKED, unpack
from extproc.dialects.gemini_generate_content.spelling import spelled
from extproc.words.messages import (
    AudioPart,
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

_KNOWN = frozenset(
    ("model", "contents", "systemInstruction", "tools", "toolConfig", CONFIG, "cachedContent", "serviceTier")
)
_CONFIG = frozenset(
    (
        *("temperature", "topP", "topK", "candidateCount", "maxOutputTokens", "stopSequences", "seed"),
        *("presencePenalty", "frequencyPenalty", "responseLogprobs", "logprobs", "responseMimeType", *SCHEMAS),
        *("thinkingConfig", "responseModalities"),
    )
)
_DECLARATION = frozenset(("name", "description", "parameters", "parametersJsonSchema"))
_ROLES = {None: "user", "user": "user", "function": "user", "tool": "user", "model": "assistant"}
_ONLY_THERE = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
_AUDIO = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav"}
_TIERS = {"standard": "default", "flex": "flex", "priority": "priority"}
_MODES = {"AUTO": "auto", "ANY": "required", "NONE": "none", "VALIDATED": "auto", "MODE_UNSPECIFIED": "auto"}
_RESULTS = ("output", "result", "error")  # a response's only field with one of these names is the result
_SEEDS = 2**63
_encode = msgspec.json.encode

Json = Mapping[str, Any]


def decode_request(body: Json) -> Prompt:
    """The neutral form of a request without its model, which the path has. Raises Refusal (400) with the field's
    name.
    """
    body = spelled(dict(body))
    prompt = Prompt("", [])
    if body.get("cachedContent"):
        raise _only_there("'cachedContent'", "cachedContent")
    _read_system(body.get("systemInstruction"), prompt)
    _Dialogue(prompt).read(body.get("contents"))
    ignored = [name for name, value in body.items() if name not in _KNOWN and value not in (None, [], {})]
    _read_tools(body, prompt, ignored)
    _read_config(optional_fields(body.get(CONFIG), CONFIG), prompt, ignored)
    tier = optional_string(body.get("serviceTier"), "serviceTier").lower()
    prompt.service_tier = _TIERS.get(tier, tier)
    prompt.ignored = safe_names(ignored)
    return prompt


# --- the conversation


def _read_system(system: Any, prompt: Prompt) -> None:
    for index, part in enumerate(
        optional_list(optional_fields(system, "systemInstruction").get("parts"), "systemInstruction.parts")
    ):
        where = f"systemInstruction.parts[{index}]"
        text = optional_fields(part, where).get("text")
        if text is None:
            raise wrong(f"'{where}' must have a 'text'.", where)
        prompt.system.append(TextPart(optional_string(text, f"{where}.text")))


class _Dialogue:
    """Turns, and tool calls without a result so far."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._calls = 0
        self._open: dict[str, str] = {}  # id -> name of calls without a result

    def read(self, contents: Any) -> None:
        if not isinstance(contents, list) or not contents:
            raise wrong("'contents' must be a list with at least one turn.", "contents")
        for index, turn in enumerate(contents):
            where = f"contents[{index}]"
            role = optional_fields(turn, where).get("role")
            neutral = _ROLES.get(role) if role is None or isinstance(role, str) else None
            if neutral is None:
                raise wrong(f"'{where}.role' must be user or model.", f"{where}.role")
            parts: list[Part] = []
            for at, part in enumerate(optional_list(turn.get("parts"), f"{where}.parts")):
                self._add(optional_fields(part, f"{where}.parts[{at}]"), f"{where}.parts[{at}]", parts)
            if parts:
                self._prompt.messages.append(Message("assistant" if neutral == "assistant" else "user", parts))

    def _add(self, part: Json, where: str, parts: list[Part]) -> None:
        signature, redacted = _proof(part, where)
        if (text := part.get("text")) is not None:
            if redacted:
                parts.append(ThinkingPart(redacted=redacted))
            add_text(parts, optional_string(text, f"{where}.text"), signature, thought=part.get("thought") is True)
        elif (call := part.get("functionCall")) is not None:
            parts.append(self._call(optional_fields(call, f"{where}.functionCall"), where, part))
        elif (result := part.get("functionResponse")) is not None:
            parts.append(
                self._result(optional_fields(result, f"{where}.functionResponse"), f"{where}.functionResponse")
            )
        elif (media := _media(part, where)) is not None:
            parts.append(media)
        elif found := [name for name in _ONLY_THERE if name in part]:
            raise _only_there(f"'{found[0]}'", where)
        elif not (part.keys() <= {"thought", "thoughtSignature"}):
            raise wrong(f"'{where}' has no text, data, file, call or result.", where)

    def _call(self, call: Json, where: str, part: Json) -> ToolCall:
        name, arguments = (
            _name(call, f"{where}.functionCall"),
            optional_fields(call.get("args"), f"{where}.functionCall.args"),
        )
        id = optional_string(call.get("id"), f"{where}.functionCall.id") or f"call_{self._calls}"
        self._calls += 1
        self._open[id] = name
        signature = optional_string(part.get("thoughtSignature"), f"{where}.thoughtSignature")
        return ToolCall(
            id, name, _encode(arguments).decode(), signature="" if signature.startswith(PACKED) else signature
        )

    def _result(self, result: Json, where: str) -> ToolResult:
        name, response = _name(result, where), optional_fields(result.get("response"), f"{where}.response")
        id = optional_string(result.get("id"), f"{where}.id")
        if id not in self._open:
            id = next((waiting for waiting, called in self._open.items() if called == name), id or name)
        self._open.pop(id, None)
        parts: list[TextPart | ImagePart | FilePart] = [TextPart(_words(response))]
        for at, part in enumerate(optional_list(result.get("parts"), f"{where}.parts")):
            media = _media(optional_fields(part, f"{where}.parts[{at}]"), f"{where}.parts[{at}]")
            if media is None or isinstance(media, AudioPart):
                raise wrong(f"'{where}.parts[{at}]' must be an image or a file.", f"{where}.parts[{at}]")
            parts.append(media)
        return ToolResult(id, parts, error=[*response] == ["error"], name=name)


def _proof(part: Json, where: str) -> tuple[str, str]:
    """Signature and redacted thinking of a part."""
    try:
        return unpack(optional_string(part.get("thoughtSignature"), f"{where}.thoughtSignature"))
    except ValueError:
        raise wrong(f"'{where}.thoughtSignature' is damaged.", f"{where}.thoughtSignature") from None


def _words(response: Json) -> str:
    """A tool result as text: the only field if it has a usual name, otherwise the whole object as JSON."""
    only = next(iter(response.values())) if len(response) == 1 and next(iter(response)) in _RESULTS else response
    return only if isinstance(only, str) else _encode(only).decode()


def _media(part: Json, where: str) -> ImagePart | FilePart | AudioPart | None:
    """Data or file of a part; None without either."""
    if (held := part.get("inlineData")) is not None:
        at = f"{where}.inlineData"
        data, kind = (
            optional_string(optional_fields(held, at).get("data"), f"{at}.data"),
            optional_string(held.get("mimeType"), at),
        )
        if kind.startswith("image/"):
            return ImagePart(data, kind)
        if kind.startswith("audio/"):
            sound = kind.partition(";")[0].removeprefix("audio/")
            return AudioPart(data, _AUDIO.get(sound, sound))
        return FilePart(data, kind, name=optional_string(held.get("displayName"), f"{at}.displayName"))
    if (held := part.get("fileData")) is not None:
        at = f"{where}.fileData"
        uri, kind = (
            optional_string(optional_fields(held, at).get("fileUri"), f"{at}.fileUri"),
            optional_string(held.get("mimeType"), at),
        )
        if uri.startswith((FILES_API, "gs://", "files/")):
            raise _only_there("A file of Google's", where)
        if kind.startswith("image/"):
            return ImagePart(url=uri, media_type=kind)
        return FilePart(url=uri, media_type=kind, name=optional_string(held.get("displayName"), f"{at}.displayName"))
    return None


# --- the settings


def _read_tools(body: Json, prompt: Prompt, ignored: list[str]) -> None:
    for index, entry in enumerate(optional_list(body.get("tools"), "tools")):
        where = f"tools[{index}]"
        tool = optional_fields(entry, where)
        for name in tool:
            if name != "functionDeclarations" and tool[name] is not None:
                raise _only_there(f"The tool '{name[:64]}'", where)
        for at, given in enumerate(optional_list(tool.get("functionDeclarations"), f"{where}.functionDeclarations")):
            prompt.tools.append(_tool(given, f"{where}.functionDeclarations[{at}]", ignored))
    config = optional_fields(body.get("toolConfig"), "toolConfig")
    ignored += [f"toolConfig.{name}" for name in config if name != "functionCallingConfig"]
    calling = optional_fields(config.get("functionCallingConfig"), "toolConfig.functionCallingConfig")
    if not calling:
        return
    mode = calling.get("mode", "AUTO")
    neutral = _MODES.get(mode.upper()) if isinstance(mode, str) else None
    if neutral is None:
        where = "toolConfig.functionCallingConfig.mode"
        raise wrong(f"'{where}' must be AUTO, ANY, NONE or VALIDATED.", where)
    allowed = optional_list(
        calling.get("allowedFunctionNames"), "toolConfig.functionCallingConfig.allowedFunctionNames"
    )
    if allowed:
        prompt.tools = [tool for tool in prompt.tools if tool.name in allowed] or prompt.tools
    if neutral == "required" and len(allowed) == 1 and isinstance(allowed[0], str):
        prompt.tool_choice = ToolChoice("tool", allowed[0])
    else:
        prompt.tool_choice = ToolChoice(neutral)  # type: ignore[arg-type]


def _tool(given: Any, where: str, ignored: list[str]) -> Tool:
    name = _name(optional_fields(given, where), where)
    if (schema := given.get("parametersJsonSchema")) is None:
        schema = json_schema(optional_fields(given.get("parameters"), f"{where}.parameters"))
    ignored += [f"functionDeclarations.{field}" for field in given if field not in _DECLARATION]
    description = optional_string(given.get("description"), f"{where}.description")
    return Tool(name, description, optional_fields(schema, f"{where}.parametersJsonSchema"))


def _read_config(config: Json, prompt: Prompt, ignored: list[str]) -> None:
    ignored += [f"{CONFIG}.{name}" for name, value in config.items() if name not in _CONFIG and value is not None]
    prompt.temperature = _number(config, "temperature", 0, 2)
    prompt.top_p = _number(config, "topP", 0, 1)
    top_k = _number(config, "topK", 0, MAX_TOKENS)
    prompt.top_k = None if top_k is None else int(top_k)
    prompt.choices = _whole(config, "candidateCount", 1, MOST_CHOICES) or 1
    prompt.max_tokens = _whole(config, "maxOutputTokens", 1, MAX_TOKENS)
    stops = optional_list(config.get("stopSequences"), f"{CONFIG}.stopSequences")
    prompt.stop = [optional_string(stop, f"{CONFIG}.stopSequences[{index}]") for index, stop in enumerate(stops)]
    prompt.seed = _whole(config, "seed", -_SEEDS, _SEEDS)
    prompt.presence_penalty = _number(config, "presencePenalty", -2, 2)
    prompt.frequency_penalty = _number(config, "frequencyPenalty", -2, 2)
    if config.get("responseLogprobs") is True:
        prompt.logprobs = _whole(config, "logprobs", 0, 20) or 0
    _read_format(config, prompt)
    _read_thinking(optional_fields(config.get("thinkingConfig"), f"{CONFIG}.thinkingConfig"), prompt)
    wanted = modalities(config)
    if "AUDIO" in wanted:
        raise unsupported("The answer cannot be audio here: ask for text.", f"{CONFIG}.responseModalities")
    prompt.images = "IMAGE" in wanted


def _read_format(config: Json, prompt: Prompt) -> None:
    own, schema = (optional_fields(config.get(name), f"{CONFIG}.{name}") for name in SCHEMAS)
    found = schema or json_schema(own)
    kind = optional_string(config.get("responseMimeType"), f"{CONFIG}.responseMimeType")
    if kind in ("", "text/plain") and not found:
        return
    if kind not in ("", "text/plain", "application/json"):
        raise _only_there(f"The answer's type '{kind[:64]}'", f"{CONFIG}.responseMimeType")
    prompt.format = OutputFormat(found or None)


def _read_thinking(settings: Json, prompt: Prompt) -> None:
    if not settings:
        return
    where = f"{CONFIG}.thinkingConfig"
    prompt.show_thinking = settings.get("includeThoughts") is True
    budget = settings.get("thinkingBudget")
    if budget is not None:
        if type(budget) is not int or not -1 <= budget <= MAX_TOKENS:
            raise wrong(f"'{where}.thinkingBudget' must be a whole number from -1.", f"{where}.thinkingBudget")
        if budget < 0:
            prompt.thinking_adaptive = True
        else:
            prompt.thinking_budget = budget
    level = optional_string(settings.get("thinkingLevel"), f"{where}.thinkingLevel").lower()
    if level and level != "thinking_level_unspecified":
        if level not in LEVELS:
            raise wrong(f"'{where}.thinkingLevel' must be MINIMAL, LOW, MEDIUM or HIGH.", f"{where}.thinkingLevel")
        prompt.effort = LEVELS[level]


# --- values


def _only_there(what: str, where: str) -> Exception:
    text = f"{what} works only at Google, and this model is served through another API; leave it out."
    return unsupported(text, where)


def _name(holder: Json, where: str) -> str:
    name = optional_string(holder.get("name"), f"{where}.name")
    if not name:
        raise wrong(f"'{where}.name' is required.", f"{where}.name")
    return name


def _number(config: Json, name: str, least: float, most: float) -> float | None:
    value = config.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not least <= value <= most:
        raise wrong(f"'{CONFIG}.{name}' must be a number from {least} to {most}.", f"{CONFIG}.{name}")
    return float(value)


def _whole(config: Json, name: str, least: int, most: int) -> int | None:
    value = config.get(name)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise wrong(f"'{CONFIG}.{name}' must be a whole number from {least} to {most}.", f"{CONFIG}.{name}")
    return value
