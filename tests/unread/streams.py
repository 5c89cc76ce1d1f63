"""Streams of every API that clients speak, as the bytes of a provider's answer."""

from __future__ import annotations

from typing import Any

import msgspec

from extproc.dialects import client_apis
from extproc.words.exchange import Usage
from extproc.words.messages import Delta, Ended, Finished, Started, Used

USAGE = Usage(300, 77, cached_tokens=100, reasoning_tokens=20, cache_write_tokens=5)
APIS = ("anthropic_messages", "gemini_generate_content", "openai_chat", "openai_completions", "openai_responses")


def event(document: Any, name: str = "") -> bytes:
    line = f"event: {name}\n".encode() if name else b""
    return line + b"data: " + msgspec.json.encode(document) + b"\n\n"


def stream(api: str, words: int = 8, *, usage: bool = True, tool: bool = False) -> bytes:
    """An answer of so many words, with all that such an answer has."""
    if api == "openai_completions":
        return completions(words, usage=usage)
    encoder = client_apis()[api].translation.encoder()
    events = [Started("id-1", "model-1", 1_700_000_000, USAGE if usage else None)]
    events.append(Delta("thinking", "let me think – naïvely", 0))
    events += [Delta("text", f' "word" {number}\n', 1) for number in range(words)]
    if tool:
        events.append(Delta("tool_call", '{"usage":', 2, id="call_1", name="use"))
        events.append(Delta("tool_call", '{"input_tokens":1}}', 2))
    events.append(Finished("tool_calls" if tool else "stop"))
    if usage:
        events.append(Used(USAGE))
    events.append(Ended())
    return b"".join(map(encoder.feed, events))


def completions(words: int, *, usage: bool) -> bytes:
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1_700_000_000, "model": "model-1"}
    said = [{**head, "choices": [{"index": 0, "text": f" word {number}"}], "usage": None} for number in range(words)]
    said.append({**head, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}], "usage": None})
    if usage:
        counts = {"prompt_tokens": 300, "completion_tokens": 77, "total_tokens": 377}
        said.append({**head, "choices": [], "usage": counts})
    return b"".join(map(event, said)) + b"data: [DONE]\n\n"
