"""Billed calls of hosted tools: the most that a request allows.

Sources: https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool (`max_uses`),
https://developers.openai.com/api/reference/resources/responses/methods/create (`max_tool_calls`, containers)
"""

from __future__ import annotations

import re
from typing import Any

from extproc.dialects import token_count
from extproc.words.dialect import Ask

SHELL = "shell"
"""Type of OpenAI's tool that runs commands, in a container or at the client."""
_LOCAL = {"type": "local"}
_ELSEWHERE = ("local", "container_reference")
_VERSION = re.compile(r"(_preview)?(_[0-9]+)*$")
_SEARCHES = (
    "web_search",
    "web_search_options",
    "browser_search",
    "x_search",
    "google_search",
    "google_search_retrieval",
)
_BILLED = {
    **dict.fromkeys((*_SEARCHES, "enterprise_web_search"), "searches"),
    **dict.fromkeys(("web_fetch", "url_context"), "fetches"),
    **dict.fromkeys(("code_interpreter", "code_execution", SHELL), "sessions"),
    "google_maps": "maps",
    "file_search": "file_searches",
}
GIGABYTES = {"1g": 1, "4g": 4, "16g": 16, "64g": 64}
"""Gigabytes by size of OpenAI's containers; the price is proportional."""


def add_calls(ask: Ask, name: Any, tool: Any) -> None:
    """Note a tool's billed calls. `name` may be the client's word, `tool` is the entry in the body."""
    kind = _BILLED.get(_VERSION.sub("", name)) if isinstance(name, str) else None
    if kind is None:
        return
    most = token_count(tool.get("max_uses")) if isinstance(tool, dict) else None
    if kind == "sessions" and most is None:
        given = tool if isinstance(tool, dict) else {}
        most = container_size(name, given.get("container"), given.get("environment"))
    before = ask.calls.get(kind, 0)
    ask.calls[kind] = None if most is None or before is None else before + most


def container_size(tool: Any, container: Any, environment: Any) -> int:
    """Gigabytes of a container that a tool starts: a code interpreter in its `container`, a shell in its `environment`.
    0 for a named container, which is already paid, and for a shell of the client.
    """
    place = (environment or _LOCAL) if tool == SHELL else container
    if isinstance(place, dict):
        return 0 if place.get("type") in _ELSEWHERE else GIGABYTES.get(str(place.get("memory_limit")), 1)
    return int(place is None)
