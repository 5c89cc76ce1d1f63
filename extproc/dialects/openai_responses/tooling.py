"""The tools of a request, for guardrails.

Source: https://developers.openai.com/api/reference/resources/responses/methods/create
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from extproc.dialects._conversation import inner
from extproc.dialects._tooling import known, name_of, objects, turns
from extproc.words.tooling import Tooling

_ELSEWHERE = ("previous_response_id", "conversation")
_OURS = ("function_call", "custom_tool_call")


def tooling(body: Mapping[str, Any]) -> Tooling:
    """See `Dialect.tooling`. A conversation that the provider keeps may hold the results of any tool."""
    found = Tooling(answer=_schema(body), turns=turns(body.get("input")))
    for tool in _tools(body.get("tools")):
        if tool.get("type") in ("function", "custom"):
            found.offered[name_of(tool.get("name"))] = tool.get("parameters")
    if any(body.get(name) is not None for name in _ELSEWHERE):
        found.results.append("")
    names: dict[str, str] = {}
    for item in objects(body.get("input")):
        type = name_of(item.get("type"))
        if type.endswith("_call"):
            name = name_of(item.get("name")) or type.removesuffix("_call")
            names[name_of(item.get("call_id"))] = name
            if "call_id" not in item:  # the provider ran it, and the item holds its result
                found.results.append(name)
        elif type.endswith("_output"):
            found.results.append(known(names, item.get("call_id")))
        elif type == "item_reference" or (not type and "role" not in item):
            found.results.append("")
    return found


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
