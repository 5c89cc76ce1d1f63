"""Marks of long stable parts in a prompt, for providers that cache only marked parts.

Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching: at most four marks, each for everything
before it, and nothing below about a thousand tokens is kept. The order there is tools, system, messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from extproc.words.messages import EmbeddingPrompt, Message, Prompt, TextPart, Tool, ToolResult

LEAST = 4096
"""Fewest bytes worth a mark: about a thousand tokens."""

_MARK: Mapping[str, Any] = {"type": "ephemeral"}


def mark_stable(prompt: Prompt | EmbeddingPrompt) -> None:
    """Mark the end of the tools, of the system prompt, and of the last two turns: later requests begin with them.

    A prompt with the client's own marks gets no more.
    """
    if isinstance(prompt, EmbeddingPrompt) or prompt.is_marked:
        return
    size = 0
    if prompt.tools:
        size += sum(map(_tool_size, prompt.tools))
        if size >= LEAST:
            prompt.tools[-1].cache = _MARK
    if prompt.system:
        size += sum(len(part.text) for part in prompt.system)
        if size >= LEAST:
            prompt.system[-1].cache = _MARK
    turns: list[Message] = []
    for message in prompt.messages:
        size += _size(message)
        if message.role == "user" and size >= LEAST:
            turns.append(message)
    for turn in turns[-2:]:
        last = next((part for part in reversed(turn.parts) if isinstance(part, TextPart | ToolResult)), None)
        if last is not None:
            last.cache = _MARK


def _tool_size(tool: Tool) -> int:
    return len(tool.name) + len(tool.description) + len(msgspec.json.encode(tool.schema))


def _size(message: Message) -> int:
    found = 0
    for part in message.parts:
        if isinstance(part, TextPart):
            found += len(part.text)
        elif isinstance(part, ToolResult):
            found += sum(len(inner.text) for inner in part.parts if isinstance(inner, TextPart))
    return found
