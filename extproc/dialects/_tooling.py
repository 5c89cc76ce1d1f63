"""Tools in requests, for `Tools.tooling`, `Tools.results` and `Tools.without`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Objects of a list; none for another value."""
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            yield item


def name_of(value: Any) -> str:
    """A name; empty for another value."""
    return value if isinstance(value, str) else ""


def known(names: Mapping[str, str], id: Any) -> str:
    """A call's tool name by the call's id; empty for an id without a call in the conversation."""
    return names.get(id, "") if isinstance(id, str) else ""


def plain_fields(node: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Named fields that are a text or a boolean: they may stay beside a replaced result."""
    return {name: node[name] for name in names if isinstance(node.get(name), str | bool)}


_LISTS = ("tools", "functions")
_GROUPS = ("tools", "functionDeclarations", "function_declarations")
_CHOICES = ("tool_choice", "function_call")


def without_tools(body: Mapping[str, Any], withheld: Callable[[str], bool]) -> tuple[dict[str, Any], list[str]]:
    """See `Tools.without`. A choice of a removed tool is removed; without tools, any choice is."""
    names: list[str] = []
    changed: dict[str, Any] = {}
    for field in _LISTS:
        if isinstance(body.get(field), list):
            before = len(names)
            left = _allowed(body[field], withheld, names)
            if len(names) > before:
                changed[field] = left or None
    if changed:
        none_left = not any(changed.get(field, body.get(field)) for field in _LISTS)
        for field in (*_CHOICES, "parallel_tool_calls"):
            if field in body and (none_left or (field in _CHOICES and _names(body[field]) & {*names})):
                changed[field] = None
    return changed, names


def _allowed(tools: list[Any], withheld: Callable[[str], bool], names: list[str]) -> list[Any]:
    """Tools that stay. Names of removed tools are added to `names`."""
    kept = []
    for tool in tools:
        if isinstance(tool, dict):
            group = next((field for field in _GROUPS if isinstance(tool.get(field), list)), None)
            if group is not None:
                if left := _allowed(tool[group], withheld, names):
                    kept.append({**tool, group: left})
                continue
            about = next((tool[field] for field in ("function", "custom") if isinstance(tool.get(field), dict)), tool)
            name = about.get("name", tool.get("type"))
            if isinstance(name, str) and withheld(name):
                names.append(name)
                continue
        kept.append(tool)
    return kept


def _names(choice: Any) -> set[str]:
    """All strings of a tool choice: tool names are among them."""
    found, waiting = set[str](), [choice]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            found.add(node)
        else:
            waiting += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return found
