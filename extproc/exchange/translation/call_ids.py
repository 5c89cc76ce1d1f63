"""Unique ids of tool calls: some providers number the calls of every answer from 0, and others refuse a repeated id."""

from __future__ import annotations

from extproc.words.messages import Prompt, ToolCall, ToolResult


def distinct_calls(prompt: Prompt) -> None:
    """Give a call with a repeated id a new id, also in its result."""
    ids = [part.id for message in prompt.messages for part in message.parts if isinstance(part, ToolCall)]
    if len(set(ids)) == len(ids):
        return
    taken, seen, count = set(ids), set[str](), 1
    waiting: dict[str, list[str]] = {}  # new ids of the latest turn's calls, by the ids in their results
    for message in prompt.messages:
        if message.role == "assistant":
            waiting = {}
        for part in message.parts:
            if isinstance(part, ToolCall):
                id = part.id
                while id in seen and part.id in taken:
                    count += 1
                    part.id = f"{id}_{count}"
                seen.add(id)
                taken.add(part.id)
                waiting.setdefault(id, []).append(part.id)
            elif isinstance(part, ToolResult) and (calls := waiting.get(part.id)):
                part.id = calls.pop(0) if len(calls) > 1 else calls[0]
