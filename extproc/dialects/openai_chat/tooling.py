"""The tools of a request, for guardrails.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.dialects._conversation import inner
from extproc.dialects._tooling import known, name_of, objects, turns
from extproc.words.tooling import Tooling


def tooling(body: Mapping[str, Any]) -> Tooling:
    """See `Dialect.tooling`."""
    found = Tooling(answer=_schema(body), turns=turns(body.get("messages")))
    functions = [tool["function"] for tool in objects(body.get("tools")) if isinstance(tool.get("function"), dict)]
    for function in (*functions, *objects(body.get("functions"))):
        found.offered[name_of(function.get("name"))] = function.get("parameters")
    names: dict[str, str] = {}
    for message in objects(body.get("messages")):
        for call in objects(message.get("tool_calls")):
            for kind in ("function", "custom"):
                if isinstance(call.get(kind), dict):
                    names[name_of(call.get("id"))] = name_of(call[kind].get("name"))
        if message.get("role") == "tool":
            found.results.append(known(names, message.get("tool_call_id")) or name_of(message.get("name")))
        elif message.get("role") == "function":
            found.results.append(name_of(message.get("name")))
    return found


def _schema(body: Mapping[str, Any]) -> Any:
    kind = inner(body, "response_format", "type")
    if kind == "json_object":
        return {}
    described = inner(body, "response_format", "json_schema")
    return described.get("schema") if kind == "json_schema" and isinstance(described, dict) else None
