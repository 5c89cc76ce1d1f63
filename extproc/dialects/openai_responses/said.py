"""Texts of an answer, for guardrails.

Source: https://developers.openai.com/api/reference/resources/responses/streaming-events

Most events behind the deltas repeat the text: the end of a part, of an item, and of the response.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extproc.words.said import ANSWER, CALL, Called, Closed, Piece, apart, loose

QUIET = frozenset(
    (
        *("id", "type", "object", "model", "status", "role", "phase", "obfuscation", "usage", "logprobs", "format"),
        *("item_id", "call_id", "response_id", "approval_request_id", "encrypted_content", "partial_image_b64"),
        *("result", "file_id", "container_id", "sequence_number"),
    )
)
"""Fields without a model's words; `logprobs` is read with its text."""

_JSON = frozenset(("response.function_call_arguments", "response.mcp_call_arguments"))
_CALLS = _JSON | {"response.custom_tool_call_input"}
_SOUND = "response.audio"
_ACTIONS = ("action", "actions", "operation")
"""Fields with the arguments of calls without a tool's name: `shell_call`, `computer_call`, `apply_patch_call`."""
_CALL = frozenset(("call_id", "arguments"))
"""Fields beside the name of a called tool, of the client or of the provider (MCP)."""
_WORDS = ("output", "error", "incomplete_details")
"""Fields of a response with a model's words. Other fields repeat the request."""


def said(event: Any) -> Iterator[Piece | Closed | Called]:
    """See `ClientAPI.said`."""
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
            if beside is not None and not event["delta"]:
                yield from apart(event, "logprobs", kind, channel)
            yield Piece(
                kind,
                event,
                "delta",
                (*channel, part),
                call=call,
                json=kind in _JSON,
                beside=beside,
                of=channel[:1] if call else None,
                whole=CALL if call else ANSWER if kind == "response.output_text" else "",
            )
        return
    if isinstance(event.get("delta"), str | dict | list):  # a delta of an unknown type
        yield from loose(event, kind, QUIET, channel=(*channel, type))
        return
    response = event.get("response")
    if isinstance(response, dict):
        yield from _response(response, again=True)
        return
    if stage == "done":
        yield Closed(channel)
    for piece in _loose(event, kind, again=stage in ("done", "added")):
        if piece.call:
            item = event.get("item")
            piece.of = (item.get("id", event.get("output_index")),) if isinstance(item, dict) else channel[:1]
        if piece.holder is event and kind == "response.output_text":
            piece.whole = ANSWER
        yield piece
    yield from _action(event.get("item"), kind)
    if stage in ("added", "done"):
        yield from _result(event.get("item"), kind, again=stage == "added")


def _response(response: dict[str, Any], *, again: bool) -> Iterator[Piece | Called]:
    for name in _WORDS:
        if name in response:
            yield from _loose(response[name], name, again=again)
    output = response.get("output")
    for index, item in enumerate(output if isinstance(output, list) else ()):
        yield from _action(item, f"output[{index}]")
        yield from _result(item, f"output[{index}]", again=again)


def _result(item: Any, where: str, *, again: bool) -> Iterator[Piece]:
    """Output of a program that the provider ran. Results of other items are images."""
    if isinstance(item, dict) and item.get("type") == "program_output" and isinstance(item.get("result"), str):
        yield Piece(f"{where}.result", item, "result", again=again)


def _action(item: Any, where: str) -> Iterator[Called]:
    """Call of a client's tool without a name: a shell, a computer, a patch."""
    if isinstance(item, dict) and "call_id" in item and "name" not in item and isinstance(item.get("type"), str):
        for name in _ACTIONS:
            if name in item:
                yield Called(f"{where}.{name}", item["type"].removesuffix("_call"), item[name], named=False)


def _loose(value: Any, where: str, *, again: bool) -> Iterator[Piece]:
    for piece in loose(value, where, QUIET, again=again):
        if piece.key == "arguments":
            piece.call = piece.json = True
            piece.whole = CALL
        elif piece.key == "input":
            piece.call, piece.whole = True, CALL
        elif piece.key == "name" and isinstance(piece.holder, dict) and not _CALL.isdisjoint(piece.holder):
            piece.call = piece.name = True
        if isinstance(piece.holder, dict):
            if piece.holder.get("logprobs"):
                piece.beside = (piece.holder, "logprobs", [])
            if piece.key == "text" and piece.holder.get("type") == "output_text":
                piece.whole = ANSWER
        yield piece
