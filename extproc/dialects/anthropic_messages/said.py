"""Texts of an answer, for guardrails.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extproc.words.said import ANSWER, CALL, Called, Closed, Piece, loose

QUIET = frozenset(
    (
        *("id", "type", "role", "model", "usage", "stop_reason", "index", "tool_use_id", "container"),
        *("signature", "data", "encrypted_content", "encrypted_index", "file_id", "media_type"),
    )
)
"""Fields without a model's words."""

_TEXTS = ("text", "thinking", "partial_json")
_WHOLE = frozenset(("citation", "citations"))
"""Fields of a delta with complete values."""


def said(event: Any) -> Iterator[Piece | Closed | Called]:
    """See `ClientAPI.said`."""
    if not isinstance(event, dict):
        return
    kind, index = event.get("type"), event.get("index")
    if kind == "content_block_delta" and isinstance(event.get("delta"), dict):
        yield from _block(event["delta"], f"content[{index}]", index)
    elif kind == "content_block_start" and isinstance(event.get("content_block"), dict):
        yield from _block(event["content_block"], f"content[{index}]", index)
    elif kind == "content_block_stop":
        yield Closed((index,))
    else:
        message = event.get("message") if kind == "message_start" else event
        blocks = message.get("content") if isinstance(message, dict) else None
        for number, block in enumerate(blocks if isinstance(blocks, list) else ()):
            if isinstance(block, dict):
                yield from _block(block, f"content[{number}]", None)
        if message is not event and isinstance(message, dict):
            yield from loose(message, "message", QUIET, without=("content",))
        yield from loose(event, "answer", QUIET, without=("content", "message"))


def _block(block: dict[str, Any], where: str, index: Any) -> Iterator[Piece | Called]:
    """Texts of a block, or of a piece of it. `index` is the block's number in a stream; None: the block is complete."""
    of = None if index is None else (index,)
    for name, value in block.items():
        at = f"{where}.{name}"
        if name in _TEXTS and isinstance(value, str):
            call = name == "partial_json"
            channel = None if index is None else (index, name)
            whole = CALL if call else ANSWER if name == "text" else ""
            signed = name == "thinking"
            yield Piece(at, block, name, channel, call=call, json=call, of=of, whole=whole, signed=signed)
        elif name == "input":
            if isinstance(value, str):
                yield Piece(at, block, name, call=True, of=of, whole=CALL)
            else:
                if value or index is None:  # a stream begins a call with an empty input
                    yield Called(at, block.get("name"), value)
                yield from loose(value, at, frozenset(), call=True, numbers=True)
        elif isinstance(value, str) and name not in QUIET:
            called = name == "name"
            channel = None if of is None or called else (*of, name)
            yield Piece(at, block, name, channel, call=called, name=called, of=of, unknown=True)
        elif isinstance(value, dict | list) and name not in QUIET:
            yield from loose(value, at, QUIET, channel=None if of is None or name in _WHOLE else (*of, name))
            yield from _documents(value, at)


def _documents(value: Any, where: str) -> Iterator[Piece]:
    """Texts of documents that a hosted tool fetched; in other documents `data` holds bytes."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict) and node.get("type") == "text" and isinstance(node.get("data"), str):
            yield Piece(f"{where}.data", node, "data")
        if isinstance(node, dict | list):
            waiting += node.values() if isinstance(node, dict) else node
