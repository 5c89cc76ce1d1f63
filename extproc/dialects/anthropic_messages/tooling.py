"""The tools of a request, for guardrails.

Source: https://platform.claude.com/docs/en/api/messages and
https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from extproc.dialects._conversation import inner
from extproc.dialects._tooling import kept, known, name_of, objects, turns
from extproc.words.tooling import Result, Tooling

_RESULT = "tool_result"


def tooling(body: Mapping[str, Any]) -> Tooling:
    """See `Dialect.tooling`. A thread that the provider keeps may hold the results of any tool."""
    wanted = inner(body, "output_config", "format") or body.get("output_format")
    found = Tooling(turns=turns(body.get("messages")))
    found.answer = wanted.get("schema") if isinstance(wanted, dict) else None
    for tool in objects(body.get("tools")):
        found.offered[name_of(tool.get("name"))] = tool.get("input_schema")
    if body.get("thread") is not None:
        found.results.append("")
    found.results += [result.tool for result in results(body)]
    return found


def results(body: Mapping[str, Any]) -> Iterator[Result]:
    """See `Dialect.results`. Results of Anthropic's own tools cannot be written anew."""
    names: dict[str, str] = {}
    for message in objects(body.get("messages")):
        content = message.get("content")
        for index, block in enumerate(content if isinstance(content, list) else ()):
            if not isinstance(block, dict):
                continue
            type = name_of(block.get("type"))
            if type.endswith("tool_use"):
                names[name_of(block.get("id"))] = name_of(block.get("name"))
            elif type.endswith(_RESULT):
                name = known(names, block.get("tool_use_id")) or type.removesuffix(_RESULT).removesuffix("_")
                written = partial(_written, block) if type == _RESULT else None
                yield Result(name, block.get("content"), content, index, written)


def _written(block: Mapping[str, Any], text: str) -> dict[str, Any]:
    found = kept(block, "type", "tool_use_id", "is_error") | {"content": text}
    if isinstance(marked := block.get("cache_control"), dict):  # the client's, for the prompt cache
        found["cache_control"] = kept(marked, "type", "ttl")
    return found
