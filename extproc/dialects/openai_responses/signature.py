"""Reasoning items: any model's thinking, in a form that survives the way to a client and back.

Source: https://developers.openai.com/api/docs/guides/reasoning (encrypted reasoning items)

OpenAI's own reasoning is an item with an id, a summary and `encrypted_content`, and comes back whole. In the neutral
form its id and encrypted content are the signature `openai:<id>:<encrypted content>`, so that no other provider takes
it for its own; the summary is the text.

Thinking of other providers is a reasoning item too, as clients keep those. The signature or the redacted thinking,
which must come back unchanged, is its `encrypted_content`: `extproc:` and base64 of the JSON `{"signature": …,
"redacted": …, "calls": {call_id: signature}}`. `calls` are the signatures of tool calls (Gemini's), which have no place
of their own in this API; such an item stands beside the call.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from extproc.wire.framing import UNREADABLE

_MARK = "openai:"
_PREFIX = "extproc:"


class Proof(Struct, omit_defaults=True):
    """The parts of the thinking that must come back unchanged."""

    signature: str = ""
    redacted: str = ""
    calls: dict[str, str] = {}


_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Proof).decode


def mark(id: str, encrypted: str) -> str:
    """The signature of OpenAI's own reasoning; empty without encrypted content."""
    return f"{_MARK}{id}:{encrypted}" if encrypted else ""


def own(signature: str) -> tuple[str, str] | None:
    """Id and encrypted content of OpenAI's own reasoning; None when another provider signed it."""
    if not signature.startswith(_MARK):
        return None
    id, colon, encrypted = signature[len(_MARK) :].partition(":")
    return (id, encrypted) if colon and encrypted else None


def pack(signature: str = "", redacted: str = "", calls: Mapping[str, str] | None = None) -> str:
    """The `encrypted_content` that carries it. An empty proof still marks the item as unknown to OpenAI, which would
    refuse it.
    """
    return _PREFIX + base64.b64encode(_write(Proof(signature, redacted, dict(calls or {})))).decode()


def unpack(id: str, encrypted: str) -> Proof:
    """The proof in a reasoning item of a client's. Raises ValueError when this gateway wrote it and it is damaged."""
    if not encrypted.startswith(_PREFIX):
        return Proof(mark(id, encrypted))
    try:
        return _read(base64.b64decode(encrypted[len(_PREFIX) :], validate=True))
    except UNREADABLE as error:
        raise ValueError("damaged reasoning") from error
