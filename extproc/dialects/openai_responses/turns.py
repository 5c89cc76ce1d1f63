"""Turns of a conversation that the gateway keeps: items added by a request, items added by its answer, and the complete
conversation.

Source: https://developers.openai.com/api/docs/guides/conversation-state
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from extproc.dialects.openai_responses.ask import is_reference
from extproc.dialects.openai_responses.shapes import is_ours
from extproc.wire.framing import UNREADABLE

_ELSEWHERE = ("conversation", "prompt", "background")
_WHOLE = frozenset(
    (
        *("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"),
        *("computer_call_output", None),
    )
)
_ENDED = ("response.completed", "response.incomplete")


class _Response(msgspec.Struct):
    id: Any = None
    object: Any = None
    status: Any = None
    output: Any = None


class _Event(_Response):
    type: Any = None
    response: _Response | None = None


_decode = msgspec.json.Decoder(_Event).decode


class ResponsesTurns:
    """See `words.api.Turns`."""

    def previous(self, body: Mapping[str, Any]) -> str | None:
        id = body.get("previous_response_id")
        return id if isinstance(id, str) else None

    def references(self, body: Mapping[str, Any]) -> Sequence[str]:
        items = self.added(body)
        there = {item.get("id") for item in items if isinstance(item, dict) and not is_reference(item)}
        ids = [item.get("id") for item in items if isinstance(item, dict) and is_reference(item)]
        return list(dict.fromkeys(id for id in ids if isinstance(id, str) and id not in there))

    def keepable(self, body: Mapping[str, Any]) -> bool:
        return body.get("store") is not False and not any(body.get(name) for name in _ELSEWHERE)

    def added(self, body: Mapping[str, Any]) -> Sequence[Any]:
        items = body.get("input")
        if isinstance(items, str):
            return [{"type": "message", "role": "user", "content": items}]
        return items if isinstance(items, list) else []

    def resolved(self, items: Sequence[Any], found: Mapping[str, Any]) -> Sequence[Any]:
        return [
            found.get(item["id"], item) if isinstance(item, dict) and isinstance(item.get("id"), str) else item
            for item in items
        ]

    def written_out(self, earlier: Sequence[Any], added: Sequence[Any], *, goes_on: bool) -> Mapping[str, Any]:
        """See `Turns.written_out`. Removes ids of complete items, which another provider would look up, and reasoning
        that only its provider can read.
        """
        fields = {"input": [_bare(item) for item in (*earlier, *added) if not _is_kept_elsewhere(item)]}
        return {**fields, "previous_response_id": None} if goes_on else fields

    def answered(self, data: bytes) -> tuple[str, Sequence[Any]] | None:
        try:
            event = _decode(data)
        except UNREADABLE:
            return None
        said = event.response if event.type in _ENDED else event if event.object == "response" else None
        if said is None or said.status not in ("completed", "incomplete") or not isinstance(said.id, str):
            return None
        return said.id, said.output if isinstance(said.output, list) else []

    def deleted(self, id: str) -> Mapping[str, Any]:
        return {"id": id, "object": "response", "deleted": True}

    def ids(self, items: Sequence[Any]) -> Mapping[str, Any]:
        return {item["id"]: item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)}


def _bare(item: Any) -> Any:
    if not isinstance(item, dict) or item.get("type") not in _WHOLE:
        return item
    return {name: value for name, value in item.items() if name != "id"}


def _is_kept_elsewhere(item: Any) -> bool:
    if not isinstance(item, dict) or item.get("type") != "reasoning":
        return False
    return not (item.get("encrypted_content") or item.get("content") or is_ours(item.get("id")))
