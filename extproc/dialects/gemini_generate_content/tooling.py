"""The tools of a request, for guardrails.

Source: https://ai.google.dev/gemini-api/docs/function-calling and https://ai.google.dev/api/caching#FunctionResponse
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from extproc.dialects import _tooling
from extproc.dialects._conversation import inner
from extproc.dialects._tooling import kept, known, name_of, objects
from extproc.dialects.gemini_generate_content.ask import CONFIG, SCHEMAS
from extproc.dialects.gemini_generate_content.schema import json_schema
from extproc.dialects.gemini_generate_content.spelling import snake
from extproc.words.tooling import Result, Tooling

_FUNCTIONS = "functionDeclarations"
_CALLING, _ALLOWED = "functionCallingConfig", "allowedFunctionNames"
_HOSTED_RESULTS = {"codeExecutionResult": "code_execution", "toolResponse": ""}


def tooling(body: Mapping[str, Any]) -> Tooling:
    """See `Dialect.tooling`. Content that Google caches may hold the results of any tool."""
    found = Tooling(answer=_answer(body.get(CONFIG)))
    for tool in objects(body.get("tools")):
        for function in objects(tool.get(_FUNCTIONS)):
            found.offered[name_of(function.get("name"))] = _arguments(function)
    if body.get("cachedContent"):
        found.results.append("")
    found.turns = sum(turn.get("role", "user") != "model" for turn in objects(body.get("contents")))
    found.results += [result.tool for result in results(body)]
    return found


def results(body: Mapping[str, Any]) -> Iterator[Result]:
    """See `Dialect.results`. Results of Google's own tools cannot be written anew."""
    ids: dict[str, str] = {}
    names: set[str] = set()
    for turn in objects(body.get("contents")):
        parts = turn.get("parts")
        for index, part in enumerate(parts if isinstance(parts, list) else ()):
            if not isinstance(part, dict):
                continue
            hosted = [name for field, name in _HOSTED_RESULTS.items() if field in part]
            if isinstance(call := part.get("functionCall"), dict):
                ids[name_of(call.get("id"))] = name = name_of(call.get("name"))
                names.add(name)
            elif isinstance(result := part.get("functionResponse"), dict):
                name = name_of(result.get("name"))
                by_name = name if name in names else ""
                tool = known(ids, result["id"]) if result.get("id") else by_name
                media = result.get("parts")
                omitted = len(media) if isinstance(media, list) else 0
                yield Result(tool, result.get("response"), parts, index, partial(_written, result), omitted)
            for name in hosted:
                yield Result(name, None, parts, index, None)


def _written(result: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {"functionResponse": kept(result, "id", "name") | {"response": {"result": text}}}


def _answer(config: Any) -> Any:
    """The schema that the answer has to fit; None where it is free."""
    if not isinstance(config, dict):
        return None
    own, schema = (config.get(name) for name in SCHEMAS)
    if schema is not None:
        return schema
    if isinstance(own, dict):
        return json_schema(own)
    return {} if config.get("responseMimeType") == "application/json" else None


def _arguments(function: Mapping[str, Any]) -> Any:
    own = function.get("parameters")
    return json_schema(own) if isinstance(own, dict) else function.get("parametersJsonSchema")


def without_tools(body: Mapping[str, Any], withheld: Callable[[str], bool]) -> tuple[dict[str, Any], list[str]]:
    """See `Dialect.without_tools`. Google's own tools have the names of their fields, in OpenAI's spelling."""
    changed, names = _tooling.without_tools(body, withheld)
    tools = changed["tools"] if "tools" in changed else body.get("tools")
    if isinstance(tools, list) and (
        hosted := [name for tool in objects(tools) for name in tool if _gone(name, withheld)]
    ):
        left = [
            {name: value for name, value in tool.items() if name not in hosted} if isinstance(tool, dict) else tool
            for tool in tools
        ]
        changed["tools"] = [tool for tool in left if tool] or None
        names += [snake(name) for name in hosted]
    if names and isinstance(config := body.get("toolConfig"), dict):
        changed |= _without_choice(config, names, none_left=changed.get("tools") is None)
    return changed, names


def _gone(field: str, withheld: Callable[[str], bool]) -> bool:
    return field != _FUNCTIONS and withheld(snake(field))


def _without_choice(config: dict[str, Any], names: list[str], *, none_left: bool) -> dict[str, Any]:
    """The settings of calls without functions that are gone, and none at all where no tool is left."""
    allowed = inner(config, _CALLING, _ALLOWED)
    if not none_left and not (isinstance(allowed, list) and any(name in names for name in allowed)):
        return {}
    left = [name for name in allowed if name not in names] if isinstance(allowed, list) else []
    others = {name: value for name, value in config.items() if name != _CALLING}
    if left and not none_left:
        others[_CALLING] = {**config[_CALLING], _ALLOWED: left}
    return {"toolConfig": others or None}
