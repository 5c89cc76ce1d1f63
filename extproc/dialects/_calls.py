"""Billed calls of hosted tools: the most that a request allows.

Sources: https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool (`max_uses`),
https://developers.openai.com/api/reference/resources/responses/methods/create (`max_tool_calls`, containers)
"""

from __future__ import annotations

import re
from typing import Any

from extproc.dialects import token_count
from extproc.words.dialect import Ask

_VERSION = re.compile(r"(_preview)?(_[0-9]+)*$")
_SEARCHES = ("web_search", "web_search_options", "x_search", "google_search", "google_search_retrieval")
_BILLED = {
    **dict.fromkeys((*_SEARCHES, "enterprise_web_search"), "searches"),
    **dict.fromkeys(("web_fetch", "url_context"), "fetches"),
    **dict.fromkeys(("code_interpreter", "code_execution"), "sessions"),
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
        most = container_size(tool.get("container") if isinstance(tool, dict) else None)
    before = ask.calls.get(kind, 0)
    ask.calls[kind] = None if most is None or before is None else before + most


def container_size(container: Any) -> int:
    """Gigabytes of a container that a tool starts; 0 for a named container, which is already paid."""
    if isinstance(container, dict):
        return GIGABYTES.get(str(container.get("memory_limit")), 1)
    return int(container is None)
