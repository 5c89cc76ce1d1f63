"""Reasoning items: any model's thinking, in a form that clients keep and send back.

Source: https://developers.openai.com/api/docs/guides/reasoning (encrypted reasoning items)

OpenAI's own reasoning is an item with an id, a summary and `encrypted_content`; clients send it back unchanged. In the
neutral form the id and encrypted content are the signature `openai:<id>:<encrypted content>`, which no other provider
takes for its own. The summary is the text.

Thinking of other providers is a reasoning item, too, because clients keep these. Its `encrypted_content` has the
signature or the redacted thinking, which must be sent back unchanged: `extproc:` and base64 of the JSON `{"signature":
…, "redacted": …, "calls": {call_id: signature}}`. `calls` are signatures of tool calls (Gemini's), for which this API
has no field; such an item stands beside the call.
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
    """Parts of thinking that must be sent back unchanged."""

    signature: str = ""
    redacted: str = ""
    calls: dict[str, str] = {}


_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Proof).decode


def mark(id: str, encrypted: str) -> str:
    """Signature of OpenAI's own reasoning; empty without encrypted content."""
    return f"{_MARK}{id}:{encrypted}" if encrypted else ""


def own(signature: str) -> tuple[str, str] | None:
    """Id and encrypted content of OpenAI's own reasoning; None for another provider's signature."""
    if not signature.startswith(_MARK):
        return None
    id, colon, encrypted = signature[len(_MARK) :].partition(":")
    return (id, encrypted) if colon and encrypted else None


def pack(signature: str = "", redacted: str = "", calls: Mapping[str, str] | None = None) -> str:
    """`encrypted_content` with the proof. Even an empty proof marks the item as foreign: OpenAI would refuse it."""
    return _PREFIX + base64.b64encode(_write(Proof(signature, redacted, dict(calls or {})))).decode()


def unpack(id: str, encrypted: str) -> Proof:
    """The proof in a client's reasoning item. Raises ValueError for a damaged item of this gateway."""
    if not encrypted.startswith(_PREFIX):
        return Proof(mark(id, encrypted))
    try:
        return _read(base64.b64decode(encrypted[len(_PREFIX) :], validate=True))
    except UNREADABLE as error:
        raise ValueError("damaged reasoning") from error
