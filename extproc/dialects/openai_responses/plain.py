"""Requests that the neutral form expresses completely, see `dialects._plain`.

A stored answer is specific to this API, because later requests may refer to its id.
Source: https://developers.openai.com/api/reference/resources/responses/methods/create
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from extproc.dialects._plain import EFFORTS, MODES, NOTHING, OBJECT_FORM, TEXT_FORM, many, one, read

ASIDES = frozenset(
    (
        *("stream", "stream_options", "user", "safety_identifier", "metadata", "service_tier"),
        *("prompt_cache_key", "prompt_cache_retention"),
    )
)
"""Fields that never change an answer."""

_ASKED = one(type=Literal["input_text"], text=str)
_SAID = one(type=Literal["output_text"], text=str, may={"annotations": NOTHING})
_ASSISTANT = one(("role", "assistant"), content=str | many(_SAID, least=1), may={"type": Literal["message"]})
_MESSAGE = _ASSISTANT | one(("role", "user"), content=str | many(_ASKED, least=1), may={"type": Literal["message"]})
_TOOL_ITEM = one(("type", "function_call"), call_id=str, name=str, arguments=str) | one(
    ("type", "function_call_output"), call_id=str, output=str
)
_TOOL = one(
    type=Literal["function"],
    name=str,
    strict=bool,  # required, because its default differs from other APIs
    may={"description": str, "parameters": dict[str, Any]},
)
_SHAPED = one(("type", "json_schema"), name=str, schema=dict[str, Any], may={"description": str, "strict": bool})
_REQUEST = one(
    model=str,
    input=str | many(dict[str, Any], least=1),
    store=bool,
    may={
        "instructions": str,
        "max_output_tokens": int,
        "temperature": float,
        "top_p": float,
        "tools": many(_TOOL),
        "tool_choice": MODES | one(type=Literal["function"], name=str),
        "parallel_tool_calls": bool,
        "text": one(may={"format": TEXT_FORM | OBJECT_FORM | _SHAPED}),
        "reasoning": one(may={"effort": EFFORTS}),
        "truncation": Literal["disabled"],
        "include": NOTHING,
    },
)


def is_plain(body: Mapping[str, Any]) -> bool:
    """True when the neutral form of a request without `ASIDES` has its whole meaning. Never raises."""
    asked = read(body, _REQUEST)
    if asked is None or asked.store is not False:
        return False
    given = () if isinstance(asked.input, str) else asked.input
    items = [read(item, _MESSAGE if "role" in item else _TOOL_ITEM) for item in given]
    # Consecutive answers are one turn in the neutral form.
    in_a_row = any(
        isinstance(former, _ASSISTANT) and isinstance(later, _ASSISTANT) for former, later in pairwise(items)
    )
    return None not in items and not in_a_row
