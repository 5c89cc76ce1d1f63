"""Thought signatures: Google's opaque proof of a model's thinking.

Source: https://ai.google.dev/gemini-api/docs/thought-signatures

Clients keep a signature beside the thinking it came with and send it back, perhaps to another provider's model after a
failover, and every provider refuses signatures that are not its own. So those in a `ThinkingPart` carry a mark. The
signature of a `ToolCall` needs none: the field is Google's.

Clients of this API get proofs of other providers in the same field, which holds base64: `PACKED` and the JSON
`[signature, redacted]`. A call of a tool without a signature gets an empty proof, so that a later request to Google can
be told from one with calls of Google's own.
"""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64decode

import msgspec

_MARK = "gemini:"
_MARK_OF_CALL = "gemini-call:"
_PREFIX = b"extproc::"  # nine bytes: its base64 is the beginning of the whole
PACKED = b64encode(_PREFIX).decode()
"""Beginning of proofs that are not Google's."""

UNSIGNED = "skip_thought_signature_validator"
"""The signature for a call of a tool whose own is not known, because another model made it or the client lost it."""

_read = msgspec.json.Decoder(tuple[str, str]).decode


def mark(signature: str) -> str:
    """The signature as a `ThinkingPart` carries it."""
    return _MARK + signature if signature else ""


def mark_of_call(signature: str) -> str:
    """The signature of the call in front, as a `ThinkingPart` carries it for clients whose calls have gone already."""
    return _MARK_OF_CALL + signature


def of_call(signature: str) -> str:
    """The signature of the call in front as Google wrote it; empty when it is none."""
    return signature[len(_MARK_OF_CALL) :] if signature.startswith(_MARK_OF_CALL) else ""


def own(signature: str) -> str:
    """The signature as Google wrote it; empty when it is another provider's."""
    return signature[len(_MARK) :] if signature.startswith(_MARK) else ""


def pack(signature: str, redacted: str = "") -> str:
    """The `thoughtSignature` for a client: Google's own, or the proof of another provider."""
    if google := own(signature):
        return google
    return b64encode(_PREFIX + msgspec.json.encode((signature, redacted))).decode()


def unpack(text: str) -> tuple[str, str]:
    """Signature and redacted thinking of a `thoughtSignature` of a client's. Raises ValueError for a damaged proof."""
    if not text.startswith(PACKED):
        return mark(text), ""
    try:
        return _read(urlsafe_b64decode(text.translate(_URL_SAFE))[len(_PREFIX) :])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError("damaged proof") from error


_URL_SAFE = str.maketrans("+/", "-_")
