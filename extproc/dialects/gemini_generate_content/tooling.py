"""Requests without some of their tools.

Source: https://ai.google.dev/gemini-api/docs/function-calling
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from extproc.dialects import _tooling
from extproc.dialects._conversation import inner
from extproc.dialects._tooling import objects
from extproc.dialects.gemini_generate_content.spelling import snake

_FUNCTIONS = "functionDeclarations"
_CALLING, _ALLOWED = "functionCallingConfig", "allowedFunctionNames"


def without_tools(body: Mapping[str, Any], withheld: Callable[[str], bool]) -> tuple[dict[str, Any], list[str]]:
    """See `Tools.without`. Google's own tools are named by their fields, in OpenAI's spelling."""
    changed, names = _tooling.without_tools(body, withheld)
    tools = changed["tools"] if "tools" in changed else body.get("tools")
    if isinstance(tools, list) and (
        hosted := [name for tool in objects(tools) for name in tool if _is_withheld(name, withheld)]
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


def _is_withheld(field: str, withheld: Callable[[str], bool]) -> bool:
    return field != _FUNCTIONS and withheld(snake(field))


def _without_choice(config: dict[str, Any], names: list[str], *, none_left: bool) -> dict[str, Any]:
    """Call settings without removed functions; none if no tool is left."""
    allowed = inner(config, _CALLING, _ALLOWED)
    if not none_left and not (isinstance(allowed, list) and any(name in names for name in allowed)):
        return {}
    left = [name for name in allowed if name not in names] if isinstance(allowed, list) else []
    others = {name: value for name, value in config.items() if name != _CALLING}
    if left and not none_left:
        others[_CALLING] = {**config[_CALLING], _ALLOWED: left}
    return {"toolConfig": others or None}
