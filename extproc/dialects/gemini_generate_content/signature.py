"""Thought signatures: Google's opaque proof of a model's thinking.

Source: https://ai.google.dev/gemini-api/docs/thought-signatures

Clients keep a signature beside the thinking it came with and send it back, perhaps to another provider's model after a
failover, and every provider refuses signatures that are not its own. So those in a `ThinkingPart` carry a mark. The
signature of a `ToolCall` needs none: the field is Google's.
"""

from __future__ import annotations

_MARK = "gemini:"

UNSIGNED = "skip_thought_signature_validator"
"""The signature for a call of a tool whose own is not known, because another model made it or the client lost it."""


def mark(signature: str) -> str:
    """The signature as a `ThinkingPart` carries it."""
    return _MARK + signature if signature else ""


def own(signature: str) -> str:
    """The signature as Google wrote it; empty when it is another provider's."""
    return signature[len(_MARK) :] if signature.startswith(_MARK) else ""
