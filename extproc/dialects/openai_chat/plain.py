"""Requests that the neutral form expresses completely, see `dialects._plain`.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from extproc.dialects._plain import EFFORTS, MODES, OBJECT_FORM, TEXT_FORM, WORD, many, one, read

ASIDES = frozenset(
    (
        *("stream", "stream_options", "user", "safety_identifier", "metadata", "store", "service_tier"),
        *("prompt_cache_key", "prompt_cache_retention"),
    )
)
"""Fields that never change an answer."""

_TEXT = one(type=Literal["text"], text=str)
_CALL = one(id=str, type=Literal["function"], function=one(name=str, arguments=str))
_SYSTEM = one(("role", "system"), content=str)
_MESSAGE = (
    _SYSTEM
    | one(("role", "user"), content=str | many(_TEXT, least=1))
    | one(("role", "assistant"), may={"content": str, "tool_calls": many(_CALL)})
    | one(("role", "tool"), tool_call_id=WORD, content=str)
)
_TOOL = one(
    type=Literal["function"],
    function=one(name=str, may={"description": str, "parameters": dict[str, Any], "strict": bool}),
)
_SCHEMA = one(name=str, schema=dict[str, Any], may={"description": str, "strict": bool})
_REQUEST = one(
    model=str,
    messages=many(_MESSAGE, least=1),
    may={
        **dict.fromkeys(("max_completion_tokens", "max_tokens", "seed", "n"), int),
        **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty"), float),
        "stop": WORD | list[WORD],
        "tools": many(_TOOL),
        "tool_choice": MODES | one(type=Literal["function"], function=one(name=str)),
        "parallel_tool_calls": bool,
        "response_format": TEXT_FORM | OBJECT_FORM | one(("type", "json_schema"), json_schema=_SCHEMA),
        "reasoning_effort": EFFORTS,
    },
)


def is_plain(body: Mapping[str, Any]) -> bool:
    """True when the neutral form of a request without `ASIDES` has its whole meaning. Never raises."""
    asked = read(body, _REQUEST)
    if asked is None or (asked.max_tokens is not None and asked.max_completion_tokens is not None):
        return False
    return (asked.n or 1) == 1 and not any(isinstance(message, _SYSTEM) for message in asked.messages[1:])
