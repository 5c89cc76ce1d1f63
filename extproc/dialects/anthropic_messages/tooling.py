"""The tools of a request, for guardrails.

Source: https://platform.claude.com/docs/en/api/messages and
https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.dialects._conversation import inner
from extproc.dialects._tooling import known, name_of, objects, turns
from extproc.words.tooling import Tooling

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
    names: dict[str, str] = {}
    for message in objects(body.get("messages")):
        for block in objects(message.get("content")):
            type = name_of(block.get("type"))
            if type.endswith("tool_use"):
                names[name_of(block.get("id"))] = name_of(block.get("name"))
            elif type.endswith(_RESULT):
                found.results.append(
                    known(names, block.get("tool_use_id")) or type.removesuffix(_RESULT).removesuffix("_")
                )
    return found
