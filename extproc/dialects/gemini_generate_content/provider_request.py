"""A conversation as a GenerateContentRequest.

Source: https://ai.google.dev/api/generate-content#request-body (the Gemini API) and
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference#request (Vertex AI); the form is the
same for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from extproc.dialects import _effort
from extproc.dialects._models import Gemini, gemini
from extproc.dialects.gemini_generate_content.conversation import Contents
from extproc.words.dialect import Destination
from extproc.words.errors import UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.messages import Prompt, Tool, ToolChoice

_MOST_STOPS = 5
_SEEDS = range(-(2**31), 2**31)
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH"}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}
_TIERS = {"flex": "flex", "priority": "priority", "auto": "", "default": "", "standard": "", "standard_only": ""}
_COLLECTIONS = ("models", "tunedModels", "publishers", "projects", "endpoints")
_SAYS_NOTHING = frozenset(("type", "properties", "required", "additionalProperties", "$schema", "title"))

Json = dict[str, Any]


def path(model: str, *, stream: bool) -> str:
    """Path of a request. `model` is a name, or a path such as `tunedModels/mine`."""
    segments = model.split("/")
    if len(segments) > 1 and segments[0] in _COLLECTIONS and not {"", ".", ".."}.intersection(segments):
        where = quote(model, safe="/@")
    else:
        where = "models/" + quote(model, safe="@")
    return f"/{where}:streamGenerateContent?alt=sse" if stream else f"/{where}:generateContent"


def encode_request(prompt: Prompt, destination: Destination) -> tuple[Json, Sequence[str]]:
    model = gemini(destination.model)
    contents = Contents(model)
    for message in prompt.messages:
        contents.add(message)
    turns, ignored = contents.finish(), contents.ignored
    system = [{"text": part.text} for part in prompt.system if part.text]
    if any(part.cache is not None for part in prompt.system):
        ignored["cache_control"] = None
    if not turns:  # the API requires a turn
        turns, system = [{"role": "user", "parts": system or [{"text": " "}]}], []
    body: Json = {"contents": turns}
    if system:
        body["systemInstruction"] = {"parts": system}
    if prompt.tools and prompt.format is not None and not model.json_beside_tools:
        text = "The target of this model takes no 'response_format' together with tools: leave one of them out."
        raise Refusal(UNSUPPORTED_BY_TARGETS, text, param="response_format")
    if prompt.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool, ignored) for tool in prompt.tools]}]
        if prompt.tool_choice is not None:
            body["toolConfig"] = {"functionCallingConfig": _calling(prompt.tool_choice)}
        if prompt.parallel_tools is False:
            ignored["parallel_tool_calls"] = None
    config = _config(prompt, model, ignored)
    _think(prompt, destination, model, config, ignored)
    if config:
        body["generationConfig"] = config
    tier = _TIERS.get(prompt.service_tier) if prompt.service_tier else ""
    if tier:
        body["serviceTier"] = tier
    elif tier is None:
        ignored["service_tier"] = None
    if prompt.user:
        ignored["user"] = None
    if prompt.metadata:
        ignored["metadata"] = None
    return body, list(ignored)


def _declaration(tool: Tool, ignored: dict[str, None]) -> Json:
    if tool.cache is not None:
        ignored["cache_control"] = None
    if tool.strict:
        ignored["strict"] = None
    out: Json = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    # A function without parameters gets no schema: the API has refused an object without properties.
    if tool.schema.get("properties") or not _SAYS_NOTHING.issuperset(tool.schema):
        out["parametersJsonSchema"] = tool.schema
    return out


def _calling(choice: ToolChoice) -> Json:
    out: Json = {"mode": _MODES[choice.mode]}
    if choice.mode == "tool":
        out["allowedFunctionNames"] = [choice.name]
    return out


def _config(prompt: Prompt, model: Gemini, ignored: dict[str, None]) -> Json:
    config: Json = {}
    if prompt.images:  # https://ai.google.dev/gemini-api/docs/image-generation
        config["responseModalities"] = ["TEXT", "IMAGE"]
    if prompt.temperature is not None:
        config["temperature"] = prompt.temperature
    if prompt.top_p is not None:
        config["topP"] = prompt.top_p
    if prompt.top_k is not None:
        config["topK"] = prompt.top_k
    if prompt.choices > 1:
        config["candidateCount"] = prompt.choices
    if stops := [stop for stop in prompt.stop if stop]:
        config["stopSequences"] = stops[:_MOST_STOPS]
        if len(stops) > _MOST_STOPS:
            ignored["stop"] = None
    if prompt.seed is not None:
        if prompt.seed in _SEEDS:
            config["seed"] = prompt.seed
        else:
            ignored["seed"] = None
    # Zero is every model's default. Models after Gemini 2.0 answer 400 to other values.
    if prompt.presence_penalty:
        if model.penalties:
            config["presencePenalty"] = prompt.presence_penalty
        else:
            ignored["presence_penalty"] = None
    if prompt.frequency_penalty:
        if model.penalties:
            config["frequencyPenalty"] = prompt.frequency_penalty
        else:
            ignored["frequency_penalty"] = None
    if prompt.logprobs is not None:
        config["responseLogprobs"] = True
        if prompt.logprobs:
            config["logprobs"] = prompt.logprobs
    if prompt.format is not None:
        config["responseMimeType"] = "application/json"
        if prompt.format.schema is not None:
            config["responseJsonSchema"] = prompt.format.schema
    return config


def _think(prompt: Prompt, destination: Destination, model: Gemini, config: Json, ignored: dict[str, None]) -> None:
    """Set `thinkingConfig`, and `maxOutputTokens`, which must leave room for an answer."""
    limit, most = prompt.max_tokens, destination.max_output_tokens
    thinking: Json = {}
    asked = prompt.effort is not None or prompt.thinking_budget is not None
    if model.thinking == "level":
        if asked:
            thinking["thinkingLevel"] = _level(prompt, model, ignored)
    elif model.thinking == "budget":
        if asked:
            budget, limit = _budget(prompt, model, most, ignored)
            thinking["thinkingBudget"] = budget
        elif prompt.thinking_adaptive:
            thinking["thinkingBudget"] = -1
    elif _wants_thinking(prompt) or (asked and not model.known):
        _ignore_thinking(prompt, ignored)
    if model.thinking and _shows(prompt):
        thinking["includeThoughts"] = True
    if thinking:
        config["thinkingConfig"] = thinking
    if limit is not None:
        config["maxOutputTokens"] = limit if most is None else min(limit, most)


def _level(prompt: Prompt, model: Gemini, ignored: dict[str, None]) -> str:
    wanted = prompt.effort if prompt.effort is not None else _effort.effort(prompt.thinking_budget or 0)
    if wanted not in ("none", "minimal"):
        return _LEVELS[wanted]
    if model.off:
        return "MINIMAL"
    if wanted == "none":
        _ignore_thinking(prompt, ignored)  # the model thinks in any case
    return "LOW"


def _budget(prompt: Prompt, model: Gemini, most: int | None, ignored: dict[str, None]) -> tuple[int, int | None]:
    """The budget, and the output limit with room for it."""
    limit = prompt.max_tokens
    wanted = prompt.thinking_budget
    if wanted is None:
        wanted = _effort.budget(prompt.effort or "none")
    if wanted <= 0:
        if model.off:
            return 0, limit
        _ignore_thinking(prompt, ignored)
    budget = min(max(wanted, model.least), model.most)
    if limit is not None and limit <= budget:
        limit += budget
    if most is not None and limit is not None and limit > most:
        limit = most
        if budget >= limit:
            budget = max(limit // 2, model.least)
    return budget, limit


def _shows(prompt: Prompt) -> bool:
    """True when thoughts must be shown: the client asks for them, or enables thinking in a way that shows it in its
    API.
    """
    if prompt.show_thinking is not None:
        return prompt.show_thinking
    return bool(prompt.thinking_budget) or prompt.thinking_adaptive


def _wants_thinking(prompt: Prompt) -> bool:
    return prompt.effort not in (None, "none") or bool(prompt.thinking_budget) or prompt.thinking_adaptive


def _ignore_thinking(prompt: Prompt, ignored: dict[str, None]) -> None:
    ignored["reasoning_effort" if prompt.effort is not None else "thinking"] = None
