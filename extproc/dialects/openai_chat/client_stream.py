"""Streamed chat completions, written for clients.

Source: https://platform.openai.com/docs/api-reference/chat-streaming (chunk object)
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from extproc.dialects.openai_chat import client_answer, problem
from extproc.dialects.openai_chat.provider_request import thinking_block
from extproc.dialects.openai_chat.usage import write_usage
from extproc.words.exchange import Usage
from extproc.words.messages import Delta, Event, Failed, Finished, Problem, Started, ThinkingPart, Used

_write = msgspec.json.Encoder().encode


class _Writing:
    """State of one choice."""

    __slots__ = ("blocks", "calls", "images", "refused", "thinking")

    def __init__(self) -> None:
        self.calls: dict[int, int] = {}  # block -> index of the call
        self.thinking: dict[int, str] = {}  # block -> its thinking, until the signature comes
        self.images = 0  # count of images written
        self.blocks = 0  # count of thinking blocks written
        self.refused = False


class Encoder:
    """Writes one stream.

    Thinking is written as `reasoning_content`. When its signature comes, the complete block, which clients must send
    back, follows in `thinking_blocks`, with the index that OpenAI's SDK requires in lists.
    """

    def __init__(self) -> None:
        self._choices: dict[int, _Writing] = {}
        self._usage: Usage | None = None
        self._head: dict[str, Any] = {}
        self._one_call = False

    def feed(self, event: Event) -> bytes:
        if isinstance(event, Delta):
            begun, writing = self._choice(event.choice)
            delta = _delta(event, writing)
            if self._one_call and (calls := delta.pop("tool_calls", None)):
                if calls[0]["index"]:  # the form before tools has one call
                    return begun
                delta["function_call"] = calls[0]["function"]
            return begun + self._chunk(event.choice, delta, event.logprobs)
        if isinstance(event, Started):
            self._start(event)
            self._one_call = event.one_call
            return self._choice(0)[0]
        if isinstance(event, Finished):
            begun, writing = self._choice(event.choice)
            reason = client_answer.write_reason(event.reason, refused=writing.refused, one_call=self._one_call)
            return begun + self._chunk(event.choice, {}, reason=reason)
        if isinstance(event, Used):
            self._usage = event.usage
            return b""
        if isinstance(event, Failed):
            return _frame(problem.encode(Problem(event.message, event.type, event.code)))
        return self._end()

    def _start(self, event: Started) -> None:
        self._head = {
            "id": event.id or client_answer.new_id(),
            "object": "chat.completion.chunk",
            "created": event.created or int(time.time()),
            "model": event.model,
        }

    def _choice(self, index: int) -> tuple[bytes, _Writing]:
        """State of a choice, and the chunk that begins it; the chunk is empty if the choice has begun."""
        writing = self._choices.get(index)
        if writing is not None:
            return b"", writing
        writing = self._choices[index] = _Writing()
        return self._chunk(index, {"role": "assistant", "content": "", "refusal": None}), writing

    def _chunk(self, index: int, delta: dict[str, Any], logprobs: Any = None, reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._frame([choice])

    def _end(self) -> bytes:
        usage = b"" if self._usage is None else self._frame([], {"usage": write_usage(self._usage)})
        return usage + b"data: [DONE]\n\n"

    def _frame(self, choices: list[dict[str, Any]], more: dict[str, Any] | None = None) -> bytes:
        if not self._head:
            self._start(Started())
        return _frame({**self._head, "choices": choices, **(more or {})})


def _frame(payload: dict[str, Any]) -> bytes:
    return b"data: " + _write(payload) + b"\n\n"


def _delta(event: Delta, writing: _Writing) -> dict[str, Any]:
    if event.kind == "text":
        return {"content": event.text}
    if event.kind == "refusal":
        writing.refused = True
        return {"refusal": event.text}
    if event.kind == "image":
        url = f"data:{event.media_type};base64,{event.text}"
        writing.images += 1
        return {"images": [{"type": "image_url", "index": writing.images - 1, "image_url": {"url": url}}]}
    if event.kind == "tool_call":
        return {"tool_calls": [_call(event, writing)]}
    delta: dict[str, Any] = {}
    if event.redacted:
        part = ThinkingPart(redacted=event.redacted)
    else:
        if event.text:
            delta["reasoning_content"] = event.text
        text = writing.thinking.get(event.block, "") + event.text
        if not event.signature:
            writing.thinking[event.block] = text
            return delta
        writing.thinking.pop(event.block, None)
        part = ThinkingPart(text, event.signature)
    delta["thinking_blocks"] = [{"index": writing.blocks, **thinking_block(part)}]
    writing.blocks += 1
    return delta


def _call(event: Delta, writing: _Writing) -> dict[str, Any]:
    index = writing.calls.get(event.block)
    call: dict[str, Any]
    if index is None:
        index = writing.calls[event.block] = len(writing.calls)
        call = {"index": index, **client_answer.said_call(event.id, event.name, event.text, event.signature)}
    else:
        call = {"index": index, "function": {"arguments": event.text}}
        if event.signature:
            call["extra_content"] = {"google": {"thought_signature": event.signature}}
    return call
