"""The tools of a request, for guardrails.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from extproc.dialects._conversation import inner
from extproc.dialects._tooling import kept, known, name_of, objects, turns
from extproc.words.tooling import Result, Tooling


def tooling(body: Mapping[str, Any]) -> Tooling:
    """See `Dialect.tooling`."""
    found = Tooling(answer=_schema(body), turns=turns(body.get("messages")))
    functions = [tool["function"] for tool in objects(body.get("tools")) if isinstance(tool.get("function"), dict)]
    for function in (*functions, *objects(body.get("functions"))):
        found.offered[name_of(function.get("name"))] = function.get("parameters")
    found.results = [result.tool for result in results(body)]
    return found


def results(body: Mapping[str, Any]) -> Iterator[Result]:
    """See `Dialect.results`."""
    messages = body.get("messages")
    names: dict[str, str] = {}
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if not isinstance(message, dict):
            continue
        for call in objects(message.get("tool_calls")):
            for kind in ("function", "custom"):
                if isinstance(call.get(kind), dict):
                    names[name_of(call.get("id"))] = name_of(call[kind].get("name"))
        if (role := message.get("role")) in ("tool", "function"):
            called = known(names, message.get("tool_call_id")) if role == "tool" else ""
            name = called or name_of(message.get("name"))
            yield Result(name, message.get("content"), messages, index, partial(_written, message))


def _written(message: Mapping[str, Any], text: str) -> dict[str, Any]:
    return kept(message, "role", "tool_call_id", "name") | {"content": text}


def _schema(body: Mapping[str, Any]) -> Any:
    kind = inner(body, "response_format", "type")
    if kind == "json_object":
        return {}
    described = inner(body, "response_format", "json_schema")
    return described.get("schema") if kind == "json_schema" and isinstance(described, dict) else None
