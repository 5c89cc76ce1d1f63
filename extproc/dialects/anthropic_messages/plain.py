"""Requests that the neutral form expresses completely, see `dialects._plain`.

Source: https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from extproc.dialects._plain import many, one, read

ASIDES = frozenset(("stream", "metadata", "service_tier", "cache_control"))
"""Fields that never change an answer."""

_MARK = {"cache_control": dict[str, Any]}
_TEXT = one(("type", "text"), text=str, may=_MARK)
_ONLY_TEXT = one(type=Literal["text"], text=str, may=_MARK)  # a text in a list of texts only
_RESULT = one(
    ("type", "tool_result"), tool_use_id=str, may={"content": str | many(_ONLY_TEXT), "is_error": bool, **_MARK}
)
_CALL = one(("type", "tool_use"), id=str, name=str, input=dict[str, Any], may=_MARK)
_MESSAGE = one(("role", "user"), content=str | many(_TEXT | _RESULT)) | one(
    ("role", "assistant"), content=str | many(_TEXT | _CALL)
)
_TOOL = one(
    name=str,
    input_schema=dict[str, Any],
    may={"description": str, "type": Literal["custom"], "strict": bool, **_MARK},
)
_ALONE = {"disable_parallel_tool_use": bool}
_CHOICE = (
    one(("type", "auto"), may=_ALONE)
    | one(("type", "any"), may=_ALONE)
    | one(("type", "none"))
    | one(("type", "tool"), name=str, may=_ALONE)
)
_REQUEST = one(
    model=str,
    messages=many(_MESSAGE, least=1),
    max_tokens=int,
    may={
        "system": str | many(_ONLY_TEXT, most=1),
        "temperature": float,
        "top_p": float,
        "top_k": int,
        "stop_sequences": list[str],
        "tools": many(_TOOL),
        "tool_choice": _CHOICE,
    },
)


def is_plain(body: Mapping[str, Any]) -> bool:
    """True when the neutral form of a request without `ASIDES` has its whole meaning. Never raises."""
    return read(body, _REQUEST) is not None
