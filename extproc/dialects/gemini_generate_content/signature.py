"""Thought signatures: Google's opaque proof of what a model thought.

Source: https://ai.google.dev/gemini-api/docs/thought-signatures

Clients keep a signature beside the thinking it came with and send it back, perhaps to another provider's model after a
failover, and every provider refuses signatures that are not its own. So those in a `ThinkingPart` carry a mark. That of
a `ToolCall` needs none: the field is Google's.
"""

from __future__ import annotations

_MARK = "gemini:"

UNSIGNED = "skip_thought_signature_validator"
"""What a call of a tool carries whose signature is not known, because another model made it or the client lost it."""


def mark(signature: str) -> str:
    """As a `ThinkingPart` carries it."""
    return _MARK + signature if signature else ""


def own(signature: str) -> str:
    """As Google wrote it; empty when it is another provider's."""
    return signature[len(_MARK) :] if signature.startswith(_MARK) else ""
