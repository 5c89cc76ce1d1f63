"""Thought signatures: Google's opaque proof of a model's thinking.

Source: https://ai.google.dev/gemini-api/docs/thought-signatures

Clients keep a signature with its thinking and send it back, possibly to another provider's model after a failover.
Every provider refuses foreign signatures, so a `ThinkingPart` has a mark in front of the signature. A `ToolCall` needs
no mark, because its field is only for Google's signatures.

Clients of this API get other providers' signatures in the same field, as base64: `PACKED` and the JSON `[signature,
redacted]`. A tool call without a signature gets an empty one, which distinguishes it from Google's own calls in a later
request to Google.
"""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64decode

import msgspec

_MARK = "gemini:"
_MARK_OF_CALL = "gemini-call:"
_PREFIX = b"extproc::"  # nine bytes, so that their base64 is a prefix of the whole base64
PACKED = b64encode(_PREFIX).decode()
"""Beginning of signatures that are not Google's."""

UNSIGNED = "skip_thought_signature_validator"
"""Signature for a tool call whose own is unknown, because another model made the call or the client lost it."""

_read = msgspec.json.Decoder(tuple[str, str]).decode


def mark(signature: str) -> str:
    """The signature with the mark of a `ThinkingPart`."""
    return _MARK + signature if signature else ""


def mark_of_call(signature: str) -> str:
    """The signature of the preceding call, marked for a `ThinkingPart`: for clients that have already received the
    call.
    """
    return _MARK_OF_CALL + signature


def of_call(signature: str) -> str:
    """Google's signature of the preceding call; empty without the mark."""
    return signature[len(_MARK_OF_CALL) :] if signature.startswith(_MARK_OF_CALL) else ""


def own(signature: str) -> str:
    """Google's signature without the mark; empty for another provider's signature."""
    return signature[len(_MARK) :] if signature.startswith(_MARK) else ""


def pack(signature: str, redacted: str = "") -> str:
    """`thoughtSignature` for a client: Google's own, or another provider's packed signature."""
    if google := own(signature):
        return google
    return b64encode(_PREFIX + msgspec.json.encode((signature, redacted))).decode()


def unpack(text: str) -> tuple[str, str]:
    """Signature and redacted thinking in a client's `thoughtSignature`. Raises ValueError for a damaged one."""
    if not text.startswith(PACKED):
        return mark(text), ""
    try:
        return _read(urlsafe_b64decode(text.translate(_URL_SAFE))[len(_PREFIX) :])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError("damaged proof") from error


_URL_SAFE = str.maketrans("+/", "-_")
