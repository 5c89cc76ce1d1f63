"""Text of an answer, piece by piece.

Source: https://developers.openai.com/api/reference/resources/responses/streaming-events

Most events behind the pieces repeat the text: the end of a part, of an item, and of the response.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extproc.words.dialect import Closed, Piece, loose

QUIET = frozenset(
    (
        *("id", "type", "object", "model", "status", "role", "phase", "obfuscation", "usage", "logprobs", "format"),
        *("item_id", "call_id", "response_id", "approval_request_id", "encrypted_content", "partial_image_b64"),
        *("result", "file_id", "container_id", "sequence_number"),
    )
)
"""Fields that hold no words of the model; `logprobs` goes with the text that it belongs to."""

_JSON = frozenset(("response.function_call_arguments", "response.mcp_call_arguments"))
_CALLS = _JSON | {"response.custom_tool_call_input"}
_SOUND = "response.audio"
_WORDS = ("output", "error", "incomplete_details")
"""Fields of a response that hold words of the model. Others repeat the request."""


def said(event: Any) -> Iterator[Piece | Closed]:
    """See `Dialect.said`."""
    if not isinstance(event, dict):
        return
    type = event.get("type")
    if not isinstance(type, str):
        yield from _response(event, again=False)
        return
    kind, _, stage = type.rpartition(".")
    channel = (event.get("item_id", event.get("output_index")), kind)
    if stage == "delta" and isinstance(event.get("delta"), str):
        if kind != _SOUND:
            part = event.get("content_index", event.get("summary_index"))
            beside: tuple[Any, str, Any] | None = (event, "logprobs", []) if event.get("logprobs") else None
            call = kind in _CALLS
            yield Piece(kind, event, "delta", (*channel, part), call=call, json=kind in _JSON, beside=beside)
        return
    response = event.get("response")
    if isinstance(response, dict):
        yield from _response(response, again=True)
        return
    if stage == "done":
        yield Closed(channel)
    yield from _loose(event, kind, again=stage in ("done", "added"))


def _response(response: dict[str, Any], *, again: bool) -> Iterator[Piece]:
    for name in _WORDS:
        if name in response:
            yield from _loose(response[name], name, again=again)


def _loose(value: Any, where: str, *, again: bool) -> Iterator[Piece]:
    for piece in loose(value, where, QUIET, again=again):
        if piece.key == "arguments":
            piece.call = piece.json = True
        elif piece.key == "input":
            piece.call = True
        elif piece.key == "name" and isinstance(piece.holder, dict) and piece.holder.get("call_id") is not None:
            piece.call = piece.name = True
        if isinstance(piece.holder, dict) and piece.holder.get("logprobs"):
            piece.beside = (piece.holder, "logprobs", [])
        yield piece
