"""The gateway's reading of a request, in the spelling of `spelling.py`.

Source: https://ai.google.dev/api/generate-content#request-body
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from extproc.dialects import ADDED_TOKENS, MAX_TOKENS, _media
from extproc.dialects._conversation import count, effort_of, ends, inner
from extproc.dialects._effort import asked
from extproc.dialects._refusals import wrong
from extproc.dialects._tooling import known, name_of, objects, plain_fields
from extproc.dialects._view import Answered, Call, Node, View
from extproc.dialects.gemini_generate_content import spelling, tooling
from extproc.dialects.gemini_generate_content.media import FILES_API
from extproc.dialects.gemini_generate_content.schema import json_schema
from extproc.dialects.gemini_generate_content.shapes import MOST_CHOICES
from extproc.words.api import Objects
from extproc.words.dialect import IMAGE_OUTPUT, NO_ENDPOINT, SAFETY, Ask, Endpoint, Fields, Withheld, Without
from extproc.words.messages import Effort

CONFIG = "generationConfig"
LIMIT = f"{CONFIG}.maxOutputTokens"
_CHOICES = f"{CONFIG}.candidateCount"
_MODALITIES = f"{CONFIG}.responseModalities"

OBJECTS = Objects(
    at={"tools.retrieval.vertexAiSearch.engine": "search engine"},
    clients=frozenset(("contents.parts.functionResponse.response",)),
    address=f"{FILES_API}v1beta/",
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
_HOSTED = frozenset(("executableCode", "codeExecutionResult", "toolCall", "toolResponse"))
"""Parts that Google's own tools add to the conversation."""
_BLOCKS_NOTHING = ("BLOCK_NONE", "OFF", "HARM_BLOCK_THRESHOLD_UNSPECIFIED", None)
_HOSTED_RESULTS = {"codeExecutionResult": "code_execution", "toolResponse": ""}
_FUNCTIONS = "functionDeclarations"
SCHEMAS = ("responseSchema", "responseJsonSchema")


class GeminiView(View):
    """See `View`."""

    fields = FIELDS
    objects = OBJECTS
    turns_at = "contents"
    turns_first = False
    parts_at = "parts"
    system_at = "systemInstruction"
    settings_at = CONFIG
    kept_at = ("cachedContent",)
    hold_text = ("parts", "text", "functionResponse", "response", "output", "result", "error", "content")
    roles = frozenset(("user", "model", "function"))
    speakers = {"systemInstruction": "system"}  # noqa: RUF012

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
        """See `ClientAPI.read`."""
        if not endpoint.model:
            raise wrong("Name a model in the path: /v1beta/models/{model}:generateContent.", "model")
        ask = Ask(endpoint.model, endpoint.pattern.endswith(":streamGenerateContent"))
        for turn in self.turns(body):
            self.read_parts(turn.get("parts"), ask)
        self.read_parts(inner(body, "systemInstruction", "parts"), ask)
        if body.get("cachedContent"):
            ask.needs["state"] = "cachedContent"
            ask.add_unseen("cached_content")
        if tools := body.get("tools"):
            ask.needs["tools"] = "tools"
            ask.added_tokens = ADDED_TOKENS
            self.read_tools(tools, "tools", ask)
        _read_config(body.get(CONFIG), ask)
        _read_safety(body, ask)
        ask.thinking = self.thinking(body)
        return ask

    def read_part(self, part: Node, ask: Ask) -> None:
        if (data := part.get("inlineData")) is not None:
            _read_inline(data, ask)
        if (file := part.get("fileData")) is not None:
            _read_file(file, ask)
        self.read_parts(inner(part, "functionResponse", "parts"), ask)
        for name in self.hosted_in(part):
            ask.add_hosted(self.hosted_name(name), "contents")

    def speaker(self, turn: Node) -> str:
        return "assistant" if turn.get("role") == "model" else "user"

    def hosted_name(self, name: Any) -> Any:
        return spelling.snake(name)

    def own_tool(self, tool: Any) -> tuple[Sequence[Any], Sequence[Any]]:
        """An entry without Google's own tools, which are fields beside the client's functions; and their names."""
        if not isinstance(tool, dict):
            return (), ()
        own = [{_FUNCTIONS: tool[_FUNCTIONS]}] if _FUNCTIONS in tool else ()
        return own, [name for name in tool if name != _FUNCTIONS]

    def hosted_in(self, node: Node) -> Sequence[str]:
        return () if _HOSTED.isdisjoint(node) else [name for name in node if name in _HOSTED]

    def without_tools(self, body: Mapping[str, Any], withheld: Withheld) -> Without:
        """See `Tools.without`."""
        return tooling.without_tools(body, withheld)

    def thinking(self, body: Mapping[str, Any]) -> int:
        """See `Offers.thinking`."""
        level, tokens = _thinking(body)
        return asked(level, None if tokens == -1 else tokens, adaptive=tokens == -1)

    def effort(self, body: Mapping[str, Any]) -> Effort | None:
        level, budget = _thinking(body)
        found = effort_of(level)
        return "high" if found is None and type(budget) is int and budget > 0 else found

    def is_shaped(self, body: Mapping[str, Any]) -> bool:
        calling = inner(body, "toolConfig", "functionCallingConfig")
        return (
            inner(body, CONFIG, "responseMimeType") == "application/json"
            or any(isinstance(inner(body, CONFIG, name), dict) for name in SCHEMAS)
            or (isinstance(calling, dict) and count(calling.get("allowedFunctionNames")) == 1)
        )

    def schema(self, body: Mapping[str, Any]) -> Any:
        own, schema = (inner(body, CONFIG, name) for name in SCHEMAS)
        if schema is not None:
            return schema
        if isinstance(own, dict):
            return json_schema(own)
        return {} if inner(body, CONFIG, "responseMimeType") == "application/json" else None

    def tool_count(self, tools: Any) -> int:
        return sum(count(tool.get(_FUNCTIONS)) for tool in objects(ends(tools) if isinstance(tools, list) else ()))

    def offered(self, body: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
        for tool in objects(body.get("tools")):
            for function in objects(tool.get(_FUNCTIONS)):
                own = function.get("parameters")
                arguments = json_schema(own) if isinstance(own, dict) else function.get("parametersJsonSchema")
                yield function.get("name"), arguments

    def is_result(self, node: Node) -> bool:
        return "functionResponse" in node

    def calls_in(self, node: Node) -> Sequence[Call]:
        """Calls in a part. A result names its call by id, or by the function's name alone."""
        if not isinstance(call := node.get("functionCall"), dict):
            return ()
        name = name_of(call.get("name"))
        return (Call(name, call.get("args"), (name_of(call.get("id")), (_FUNCTIONS, name))),)

    def results_in(self, node: Node, names: Mapping[Any, str]) -> Sequence[Answered]:
        """Results in a part. Results of Google's own tools cannot be replaced."""
        found = [Answered(name, None, None) for field, name in _HOSTED_RESULTS.items() if field in node]
        result = node.get("functionResponse")
        if isinstance(result, dict) and not isinstance(node.get("functionCall"), dict):
            by_name = names.get((_FUNCTIONS, name_of(result.get("name"))), "")
            tool = known(names, result["id"]) if result.get("id") else by_name
            written, omitted = partial(_written, result), count(result.get("parts"))
            found.insert(0, Answered(tool, result.get("response"), written, omitted))
        return found


def _written(result: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {"functionResponse": plain_fields(result, "id", "name") | {"response": {"result": text}}}


def _thinking(body: Mapping[str, Any]) -> tuple[str | None, Any]:
    """Level of thinking in lower case, and its budget."""
    settings = inner(body, CONFIG, "thinkingConfig")
    settings = settings if isinstance(settings, dict) else {}
    level = settings.get("thinkingLevel")
    return level.lower() if isinstance(level, str) else None, settings.get("thinkingBudget")


def _read_inline(held: Any, ask: Ask) -> None:
    kind, data = _kind(held), held.get("data") if isinstance(held, dict) else None
    if not isinstance(data, str):
        ask.add_unseen("inline_data")
    elif kind.startswith("image/"):
        ask.needs["images"] = "contents"
        _media.add_image_data(ask, data)
    elif kind.startswith("audio/"):
        ask.needs["audio"] = "contents"
        _media.add_audio(ask, data, "inline_data")
    else:
        ask.needs["files"] = "contents"
        _media.add_file(ask, data, "inline_data", text=_media.is_text(f"data:{kind};base64,{data[:64]}"))


def _read_file(held: Any, ask: Ask) -> None:
    kind, uri = _kind(held), held.get("fileUri") if isinstance(held, dict) else None
    ask.add_url(uri, "contents")
    if isinstance(uri, str) and uri.startswith((FILES_API, "gs://", "files/")):
        ask.needs["state"] = "contents"  # only Google can read the file
    if kind.startswith("image/"):
        ask.needs["images"] = "contents"
        _media.add_image(ask, None, "image")
    else:
        ask.needs["audio" if kind.startswith("audio/") else "files"] = "contents"
        ask.add_unseen("file_data")


def _kind(held: Any) -> str:
    kind = held.get("mimeType") if isinstance(held, dict) else None
    return kind.lower() if isinstance(kind, str) else ""


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
    """Kinds of content that the answer may have, in upper case."""
    given = config.get("responseModalities")
    return [one.upper() for one in (given if isinstance(given, list) else ()) if isinstance(one, str)]


def _whole(config: Mapping[str, Any], name: str, most: int) -> int | None:
    value = config.get(name)
    if value is not None and (type(value) is not int or not 1 <= value <= most):
        raise wrong(f"'{CONFIG}.{name}' must be a whole number from 1 to {most}.", f"{CONFIG}.{name}")
    return value
