"""The tools of a request, for guardrails.

Source: https://developers.openai.com/api/reference/resources/responses/methods/create
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from extproc.dialects._conversation import inner
from extproc.dialects._tooling import kept, known, name_of, objects, turns
from extproc.words.tooling import Result, Tooling

_ELSEWHERE = ("previous_response_id", "conversation")
_OURS = ("function_call", "custom_tool_call")
_TEXTS = tuple(f"{call}_output" for call in _OURS)


def tooling(body: Mapping[str, Any]) -> Tooling:
    """See `Dialect.tooling`. A conversation that the provider keeps may hold the results of any tool."""
    found = Tooling(answer=_schema(body), turns=turns(body.get("input")))
    for tool in _tools(body.get("tools")):
        if tool.get("type") in ("function", "custom"):
            found.offered[name_of(tool.get("name"))] = tool.get("parameters")
    if any(body.get(name) is not None for name in _ELSEWHERE):
        found.results.append("")
    found.results += [result.tool for result in results(body)]
    found.results += ["" for item in objects(body.get("input")) if _is_reference(item)]
    return found


def _is_reference(item: Mapping[str, Any]) -> bool:
    type = name_of(item.get("type"))
    return type == "item_reference" or (not type and "role" not in item)


def results(body: Mapping[str, Any]) -> Iterator[Result]:
    """See `Dialect.results`. Items of the provider's own tools hold their results, and cannot be written anew."""
    items = body.get("input")
    names: dict[str, str] = {}
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if not isinstance(item, dict):
            continue
        type = name_of(item.get("type"))
        if type.endswith("_call"):
            name = name_of(item.get("name")) or type.removesuffix("_call")
            names[name_of(item.get("call_id"))] = name
            if "call_id" not in item:
                yield Result(name, None, items, index, None)
        elif type.endswith("_output"):
            written = partial(_written, item) if type in _TEXTS else None
            yield Result(known(names, item.get("call_id")), item.get("output"), items, index, written)


def _written(item: Mapping[str, Any], text: str) -> dict[str, Any]:
    return kept(item, "type", "id", "call_id", "name") | {"output": text}


def _tools(tools: Any) -> Iterator[dict[str, Any]]:
    """Tools, also those in groups."""
    for tool in objects(tools):
        yield tool
        yield from objects(tool.get("tools"))


def _schema(body: Mapping[str, Any]) -> Any:
    wanted = inner(body, "text", "format")
    if not isinstance(wanted, dict):
        return None
    return {} if wanted.get("type") == "json_object" else wanted.get("schema")
