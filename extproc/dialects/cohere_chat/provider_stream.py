"""A streamed answer.

Source: https://docs.cohere.com/reference/chat-stream and https://docs.cohere.com/docs/streaming (order of the events)

Events have a `type`. `message-end` is the last; `[DONE]` after it adds nothing. Citations are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from extproc.dialects.cohere_chat.names import unescape
from extproc.dialects.cohere_chat.shapes import (
    BROKEN_OFF,
    UNREADABLE,
    Content,
    FunctionCall,
    Message,
    arguments,
    call_id,
    finish_reason,
    logprobs,
)
from extproc.dialects.cohere_chat.usage import read_usage
from extproc.words.messages import Delta, Ended, Event, Failed, Finished, Started, Used


class _Delta(Struct):
    message: Message | None = None
    finish_reason: Any = None
    usage: Any = None
    error: Any = None


class _Event(Struct):
    type: str = ""
    index: int | None = None
    id: str | None = None
    delta: _Delta | None = None
    logprobs: Any = None
    usage: Any = None
    message: Any = None
    error: Any = None


FIELDS = frozenset(_Event.__struct_encode_fields__)
_decode = msgspec.json.Decoder(_Event).decode
_BEFORE_NULL = ("", "n", "nu", "nul", "null")


class _Writing:
    """An open call. Its arguments are held while they may still be `null`, which is not a JSON object."""

    __slots__ = ("begun", "block", "held")

    def __init__(self, block: int) -> None:
        self.block = block
        self.held = ""
        self.begun = False

    def more(self, text: str, events: list[Event]) -> None:
        if not self.begun:
            text = self.held + text
            if text.strip() in _BEFORE_NULL:
                self.held = text
                return
            self.begun = True
        if text:
            events.append(Delta("tool_call", text, self.block))

    def end(self, events: list[Event]) -> None:
        if not self.begun:
            self.begun = True
            events.append(Delta("tool_call", arguments(self.held), self.block))


class Decoder:
    """Reads the events of one stream."""

    def __init__(self) -> None:
        # Neutral block numbers of texts and thoughts, by kind and Cohere's index.
        self._blocks: dict[tuple[str, int | None], int] = {}
        self._calls: dict[int | None, _Writing] = {}
        self._called = False
        self._next = 0
        self._started = self._over = False

    def feed(self, data: bytes, name: str) -> Sequence[Event]:  # noqa: ARG002 - the payload names its event
        if self._over:
            return ()
        try:
            said = _decode(data)
        except UNREADABLE:
            return ()
        events: list[Event] = []
        kind, delta = said.type, said.delta
        message = delta.message if delta is not None else None
        if kind in ("content-delta", "content-start"):
            if message is not None and isinstance(message.content, Content):
                self._content(message.content, said, events)
        elif kind == "tool-call-delta":
            self._arguments(message, said.index, events)
        elif kind == "tool-plan-delta":
            if message is not None and message.plan:
                self._start(events)
                events.append(Delta("thinking", message.plan, self._block("plan", None)))
        elif kind == "tool-call-start":
            self._call(message, said.index, events)
        elif kind == "tool-call-end":
            if (writing := self._calls.pop(said.index, None)) is not None:
                writing.end(events)
        elif kind == "message-start":
            self._start(events, said.id or "")
        elif kind == "message-end":
            self._finish(said, delta or _Delta(), events)
        elif kind in ("", "error") and (said.error is not None or isinstance(said.message, str)):
            self._fail(said.error if said.error is not None else said.message, events)
        return events

    def end(self) -> Sequence[Event]:
        """No events: an answer without `message-end` was cut off."""
        return ()

    def _start(self, events: list[Event], id: str = "") -> None:
        if not self._started:
            self._started = True
            events.append(Started(id))

    def _block(self, kind: str, index: int | None) -> int:
        block = self._blocks.get((kind, index))
        if block is None:
            block = self._blocks[kind, index] = self._next
            self._next += 1
        return block

    def _content(self, content: Content, said: _Event, events: list[Event]) -> None:
        kinds: tuple[tuple[Literal["thinking", "text"], str | None], ...] = (
            ("thinking", content.thinking),
            ("text", content.text),
        )
        for kind, text in kinds:
            if text:
                self._start(events)
                likely = logprobs([said.logprobs]) if said.logprobs is not None and kind == "text" else None
                events.append(Delta(kind, text, self._block(kind, said.index), logprobs=likely))

    def _call(self, message: Message | None, index: int | None, events: list[Event]) -> None:
        for call in _in(message):
            self._start(events)
            if (before := self._calls.get(index)) is not None:  # the earlier call was not ended
                before.end(events)
            writing = self._calls[index] = _Writing(self._next)
            self._called = True
            self._next += 1
            events.append(
                Delta("tool_call", "", writing.block, id=call_id(call.id), name=unescape(call.function.name or "")),
            )
            writing.more(call.function.arguments or "", events)

    def _arguments(self, message: Message | None, index: int | None, events: list[Event]) -> None:
        if (writing := self._calls.get(index)) is not None:
            for call in _in(message):
                writing.more(call.function.arguments or "", events)

    def _finish(self, said: _Event, delta: _Delta, events: list[Event]) -> None:
        self._start(events, said.id or "")
        usage = read_usage(delta.usage)
        if usage is None:
            usage = read_usage(said.usage)
        broken = isinstance(delta.finish_reason, str) and delta.finish_reason in BROKEN_OFF
        if delta.error or broken:
            if usage is not None:
                events.append(Used(usage))
            self._fail(delta.error, events)
            return
        for writing in self._calls.values():
            writing.end(events)
        events.append(Finished(finish_reason(delta.finish_reason, called=self._called)))
        if usage is not None:
            events.append(Used(usage))
        events.append(Ended())
        self._over = True

    def _fail(self, error: Any, events: list[Event]) -> None:
        self._over = True
        if isinstance(error, dict):
            error = error.get("message")
        events.append(Failed(error if isinstance(error, str) and error else "The provider broke off."))


def _in(message: Message | None) -> Sequence[FunctionCall]:
    calls = message.calls if message is not None else None
    return [calls] if isinstance(calls, FunctionCall) else calls or ()
