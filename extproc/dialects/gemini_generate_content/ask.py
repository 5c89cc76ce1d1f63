"""The gateway's reading of a request, in the spelling of `spelling.py`.

Source: https://ai.google.dev/api/generate-content#request-body
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extproc.dialects import ADDED_TOKENS, MAX_TOKENS, _media
from extproc.dialects._conversation import count, effort_of, ends, inner, last_said, pieces
from extproc.dialects._effort import asked
from extproc.dialects._refusals import wrong
from extproc.dialects.gemini_generate_content import spelling
from extproc.dialects.gemini_generate_content.media import FILES_API
from extproc.dialects.gemini_generate_content.shapes import MOST_CHOICES
from extproc.words.dialect import IMAGE_OUTPUT, SAFETY, Ask, Conversation, Endpoint, Fields, Text, strings
from extproc.words.objects import Objects

CONFIG = "generationConfig"
LIMIT = f"{CONFIG}.maxOutputTokens"
_CHOICES = f"{CONFIG}.candidateCount"
_MODALITIES = f"{CONFIG}.responseModalities"

OBJECTS = Objects(
    at={"tools.retrieval.vertexAiSearch.engine": "search engine"},
    clients=frozenset(("contents.parts.functionResponse.response",)),
)

FIELDS = Fields(
    model=None,
    fixed=("contents", _CHOICES, _MODALITIES),
    output_limits=(LIMIT,),
    needs={
        **dict.fromkeys(("images", "files"), ("contents",)),
        "audio": ("contents", CONFIG),
        "tools": ("tools",),
        "json_schema": (CONFIG,),
        "choices": (CONFIG,),
        "logprobs": (CONFIG,),
        IMAGE_OUTPUT: (CONFIG,),
        "hosted_tools": ("tools", "contents"),
        "state": ("cachedContent", "contents"),
        SAFETY: ("safetySettings", "modelArmorConfig"),
    },
    spoken=frozenset(("contents", "systemInstruction")),
    files=frozenset(("data",)),
    opaque=frozenset(("data", "thoughtSignature")),
    options=("serviceTier",),
    also=("model", CONFIG, "cachedContent", "toolConfig", "generateContentRequest"),
    inside=frozenset(
        (
            *("role", "parts", "text", "thought", "inlineData", "fileData", "fileUri", "mimeType", "data"),
            *("functionCall", "functionResponse", "functionDeclarations", "name"),
        )
    ),
    data=frozenset(
        (
            "args",
            "response",
            "parameters",
            "parametersJsonSchema",
            "labels",
            "partMetadata",
            "responseSchema",
            "responseJsonSchema",
        )
    ),
)

_READ = frozenset(("maxOutputTokens", "candidateCount", "responseModalities", "thinkingConfig", "responseLogprobs"))
_BUDGET = frozenset(("thinkingBudget", "thinkingLevel"))
_HOLD_TEXT = ("parts", "text", "functionResponse", "response", "output", "result", "error", "content")
_HOSTED = frozenset(("executableCode", "codeExecutionResult", "toolCall", "toolResponse"))
"""Parts that Google's own tools leave in the conversation."""
_BLOCKS_NOTHING = ("BLOCK_NONE", "OFF", "HARM_BLOCK_THRESHOLD_UNSPECIFIED", None)
_ROLES = frozenset(("user", "model", "function"))
SCHEMAS = ("responseSchema", "responseJsonSchema")


def varies(body: Mapping[str, Any]) -> bool:
    """As `_variety.varies`. Never raises."""
    config = body.get(CONFIG)
    config = config if isinstance(config, dict) else {}
    sampled = config.get("temperature") not in (None, 0) and config.get("seed") is None
    return sampled or config.get("candidateCount") not in (None, 1) or bool(body.get("tools"))


def read(body: Mapping[str, Any], endpoint: Endpoint) -> Ask:
    if not endpoint.model:
        raise wrong("Name a model in the path: /v1beta/models/{model}:generateContent.", "model")
    ask = Ask(endpoint.model, endpoint.pattern.endswith(":streamGenerateContent"))
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise wrong("'contents' must be a list with at least one turn.", "contents")
    for index, turn in enumerate(contents):
        if not isinstance(turn, dict):
            raise wrong(f"'contents[{index}]' must be an object.", f"contents[{index}]")
        _read_parts(turn.get("parts"), ask)
    _read_parts(inner(body, "systemInstruction", "parts"), ask)
    if body.get("cachedContent"):
        ask.needs["state"] = "cachedContent"
        ask.add_unseen("cached_content")
    _read_tools(body.get("tools"), ask)
    _read_config(body.get(CONFIG), ask)
    _read_safety(body, ask)
    ask.thinking = thinking(body)
    return ask


def _read_parts(parts: Any, ask: Ask) -> None:
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, dict):
            continue
        if (data := part.get("inlineData")) is not None:
            _read_inline(data, ask)
        if (file := part.get("fileData")) is not None:
            _read_file(file, ask)
        if isinstance(result := part.get("functionResponse"), dict) and "parts" in result:
            _read_parts(result["parts"], ask)
        for name in _HOSTED.intersection(part):
            ask.add_hosted(spelling.snake(name), "contents")


def _read_inline(held: Any, ask: Ask) -> None:
    kind, data = _kind(held), held.get("data") if isinstance(held, dict) else None
    if not isinstance(data, str):
        ask.add_unseen("inline_data")
    elif kind.startswith("image/"):
        ask.needs["images"] = "contents"
        _media.add_image_data(ask, data)
    elif kind.startswith("audio/"):
        ask.needs["audio"] = "contents"
        ask.packed(data)
        if not _media.is_audio_of_its_size(data):
            ask.add_unseen("inline_data")
    else:
        ask.needs["files"] = "contents"
        if not _media.is_text(f"data:{kind};base64,{data[:64]}"):
            ask.add_unseen("inline_data")
            ask.packed(data)


def _read_file(held: Any, ask: Ask) -> None:
    kind, uri = _kind(held), held.get("fileUri") if isinstance(held, dict) else None
    ask.add_url(uri, "contents")
    if isinstance(uri, str) and uri.startswith((FILES_API, "gs://", "files/")):
        ask.needs["state"] = "contents"  # Google alone can read it
    if kind.startswith("image/"):
        ask.needs["images"] = "contents"
        _media.add_image(ask, None, "image")
    else:
        ask.needs["audio" if kind.startswith("audio/") else "files"] = "contents"
        ask.add_unseen("file_data")


def _kind(held: Any) -> str:
    kind = held.get("mimeType") if isinstance(held, dict) else None
    return kind.lower() if isinstance(kind, str) else ""


def _read_tools(tools: Any, ask: Ask) -> None:
    if not tools:
        return
    ask.needs["tools"] = "tools"
    ask.added_tokens = ADDED_TOKENS
    for tool in tools if isinstance(tools, list) else ():
        for name in tool if isinstance(tool, dict) else ():
            if name != "functionDeclarations":
                ask.add_hosted(spelling.snake(name), "tools")


def _read_safety(body: Mapping[str, Any], ask: Ask) -> None:
    """Source: https://ai.google.dev/api/generate-content#v1beta.SafetySetting."""
    settings = body.get("safetySettings")
    wanted = (
        item.get("threshold") for item in (settings if isinstance(settings, list) else ()) if isinstance(item, dict)
    )
    if any(threshold not in _BLOCKS_NOTHING for threshold in wanted):
        ask.needs[SAFETY] = "safetySettings"
    elif body.get("modelArmorConfig"):
        ask.needs[SAFETY] = "modelArmorConfig"


def _read_config(config: Any, ask: Ask) -> None:
    ask.output_field = LIMIT
    if config is None:
        return
    if not isinstance(config, dict):
        raise wrong(f"'{CONFIG}' must be an object.", CONFIG)
    spelling.check(config, _READ, CONFIG)
    ask.max_output_tokens = _whole(config, "maxOutputTokens", MAX_TOKENS)
    ask.choices = _whole(config, "candidateCount", MOST_CHOICES) or 1
    if ask.choices > 1:
        ask.needs["choices"] = CONFIG
    if config.get("responseLogprobs") is True:
        ask.needs["logprobs"] = CONFIG
    if any(config.get(name) for name in SCHEMAS):
        ask.needs["json_schema"] = CONFIG
        ask.added_tokens = ADDED_TOKENS
    wanted = modalities(config)
    if "AUDIO" in wanted:
        ask.needs.setdefault("audio", CONFIG)
        ask.speaks = True
    if "IMAGE" in wanted:
        ask.needs[IMAGE_OUTPUT] = CONFIG
    if isinstance(settings := config.get("thinkingConfig"), dict):
        spelling.check(settings, _BUDGET, f"{CONFIG}.thinkingConfig")


def modalities(config: Mapping[str, Any]) -> list[str]:
    """The kinds of content that the answer may have, in capitals."""
    given = config.get("responseModalities")
    return [one.upper() for one in (given if isinstance(given, list) else ()) if isinstance(one, str)]


def _whole(config: Mapping[str, Any], name: str, most: int) -> int | None:
    value = config.get(name)
    if value is not None and (type(value) is not int or not 1 <= value <= most):
        raise wrong(f"'{CONFIG}.{name}' must be a whole number from 1 to {most}.", f"{CONFIG}.{name}")
    return value


def thinking(body: Mapping[str, Any]) -> int:
    """See `Dialect.thinking`."""
    settings = inner(body, CONFIG, "thinkingConfig")
    if not isinstance(settings, dict):
        return 0
    level, tokens = settings.get("thinkingLevel"), settings.get("thinkingBudget")
    level = level.lower() if isinstance(level, str) else None
    return asked(level, None if tokens == -1 else tokens, adaptive=tokens == -1)


def conversation(body: Mapping[str, Any]) -> Conversation:
    """See `Dialect.conversation`."""
    contents, config, tools = body.get("contents"), body.get(CONFIG), body.get("tools")
    last, result = last_said(contents, _HOLD_TEXT, _is_result)
    config = config if isinstance(config, dict) else {}
    level, budget = (inner(config, "thinkingConfig", name) for name in ("thinkingLevel", "thinkingBudget"))
    effort = effort_of(level.lower() if isinstance(level, str) else None)
    calling = inner(body, "toolConfig", "functionCallingConfig")
    return Conversation(
        asked=last,
        turns=count(contents),
        result=result,
        system=pieces(body.get("systemInstruction"), _HOLD_TEXT),
        tools=sum(
            count(tool.get("functionDeclarations"))
            for tool in (ends(tools) if isinstance(tools, list) else ())
            if isinstance(tool, dict)
        ),
        shaped=config.get("responseMimeType") == "application/json"
        or any(isinstance(config.get(name), dict) for name in SCHEMAS)
        or (isinstance(calling, dict) and count(calling.get("allowedFunctionNames")) == 1),
        effort="high" if effort is None and type(budget) is int and budget > 0 else effort,
    )


def _is_result(turn: Mapping[str, Any]) -> bool:
    parts = turn.get("parts")
    return isinstance(parts, list) and any(
        isinstance(part, dict) and "functionResponse" in part for part in ends(parts)
    )


def texts(body: Mapping[str, Any]) -> Iterator[Text]:
    """See `Dialect.texts`."""
    for key, value in body.items():
        if key == "contents" and isinstance(value, list):
            for index, turn in enumerate(value):
                yield from _turn(turn, f"contents[{index}]")
        elif isinstance(value, str):
            yield Text("request", key, body, key)
        else:
            yield from strings(value, "system" if key == "systemInstruction" else "request", key)


def _turn(turn: dict[str, Any], where: str) -> Iterator[Text]:
    said = turn.get("role")
    role = "assistant" if said == "model" else "user"
    for key, value in turn.items():
        if key == "role" and isinstance(said, str) and said in _ROLES:
            continue
        if isinstance(value, str):
            yield Text(role, f"{where}.{key}", turn, key)
        elif key == "parts" and isinstance(value, list):
            for index, part in enumerate(value):
                at = f"{where}.parts[{index}]"
                if isinstance(part, str):
                    yield Text(role, at, value, index)
                elif isinstance(part, dict) and "functionResponse" in part:
                    yield from strings(part, "tool", at)
                else:
                    yield from strings(part, role, at)
        else:
            yield from strings(value, role, f"{where}.{key}")


def without_hosted(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[str]]:
    """See `Dialect.without_hosted`."""
    dropped: list[str] = []
    made = dict(body)
    if isinstance(tools := body.get("tools"), list):
        own = []
        for tool in tools:
            given = tool if isinstance(tool, dict) else {}
            dropped += [f"tools.{name}" for name in given if name != "functionDeclarations"]
            if "functionDeclarations" in given:
                own.append({"functionDeclarations": given["functionDeclarations"]})
        made["tools"] = own
    contents = []
    for turn in body["contents"]:
        parts = turn.get("parts")
        if isinstance(parts, list):
            hosted = [isinstance(part, dict) and not _HOSTED.isdisjoint(part) for part in parts]
            found = (part for part, gone in zip(parts, hosted, strict=True) if gone)
            dropped += [f"contents.{name}" for part in found for name in part if name in _HOSTED]
            own = [part for part, gone in zip(parts, hosted, strict=True) if not gone]
            if not own:
                continue
            turn = {**turn, "parts": own}  # noqa: PLW2901
        contents.append(turn)
    made["contents"] = contents
    return made, list(dict.fromkeys(dropped))
