"""Arguments of a call, streamed value by value with their JSON paths (Vertex AI).

Sources: `FunctionCall.partial_args` and `PartialArg` in google-genai's types; RFC 9535 for the paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,9})\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]""")
_ESCAPE = re.compile(r"\\(.)")
_DEPTH = 64  # most steps of a path
_KINDS = ("stringValue", "numberValue", "boolValue", "nullValue")


def steps(path: Any) -> tuple[str | int, ...]:
    """Names and indices of a path such as `$.files[0]['name']`. Another text is one name."""
    text = path if isinstance(path, str) else ""
    found: list[str | int] = []
    at = 1
    while text.startswith("$") and (match := _STEP.match(text, at)):
        name, index, single, double = match.groups()
        quoted = single if single is not None else double
        found.append(int(index) if index is not None else name if name is not None else _ESCAPE.sub(r"\1", quoted))
        at = match.end()
    whole = found and at == len(text) and len(found) <= _DEPTH and isinstance(found[0], str)
    return tuple(found) if whole else (text,)


def values(parts: Any) -> Iterator[tuple[tuple[str | int, ...], Any, dict[str, Any], str]]:
    """Values in a call's `partialArgs`: (path, value, holder, key)."""
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict):
            path = steps(part.get("jsonPath"))
            for kind in _KINDS:
                if kind in part:
                    yield path, None if kind == "nullValue" else part[kind], part, kind


def streamed(call: Mapping[str, Any]) -> bool:
    """True for a piece of a streamed call. The last piece may be empty."""
    return "partialArgs" in call or call.get("willContinue") is True or not call.get("name")
