"""A streamed answer of Converse: the events of the binary stream, by name.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html

Usage comes after the stop, and no event marks the end. So an answer is complete when the body ends after a stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from extproc.dialects.aws_converse.provider_answer import SERVER_TOOL, UNREADABLE, Stop
from extproc.dialects.aws_converse.usage import read_usage
from extproc.words.messages import Delta, Ended, Event, Failed, Finished, Started, Used

_EXCEPTIONS = {
    "throttlingException": "rate_limit_error",
    "validationException": "invalid_request_error",
    "serviceUnavailableException": "overloaded_error",
}


class _ToolStart(Struct, rename="camel"):
    type: str | None = None
    tool_use_id: str | None = None
    name: str | None = None


class _Start(Struct, rename="camel"):
    tool_use: _ToolStart | None = None


class _ToolDelta(Struct):
    input: str | None = None


class _ReasoningDelta(Struct, rename="camel"):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _BlockDelta(Struct, rename="camel"):
    text: str | None = None
    tool_use: _ToolDelta | None = None
    reasoning_content: _ReasoningDelta | None = None


class _Block(Struct, rename="camel"):
    content_block_index: int = 0
    start: _Start | None = None
    delta: _BlockDelta | None = None


class _Metadata(Struct):
    usage: Any = None


class _Exception(Struct):
    message: str | None = None


_decode_block = msgspec.json.Decoder(_Block).decode
_decode_stop = msgspec.json.Decoder(Stop).decode
_decode_metadata = msgspec.json.Decoder(_Metadata).decode
_decode_exception = msgspec.json.Decoder(_Exception).decode
_BLOCKS = frozenset(("contentBlockDelta", "contentBlockStart", "contentBlockStop"))


class ConverseDecoder:
    """Reads the events of one stream. The API numbers blocks; empty blocks are left out."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, str], int] = {}  # (API's block number, kind) -> neutral block number
        self._silent: dict[int, int] = {}  # calls without arguments so far: API's number -> neutral number
        self._started = self._called = self._finished = self._over = False

    def feed(self, data: bytes, name: str) -> Sequence[Event]:
        if self._over:
            return ()
        events: list[Event] = []
        try:
            if name in _BLOCKS:
                if not self._finished:
                    self._block(_decode_block(data), events, ends=name == "contentBlockStop")
            elif name == "messageStop":
                self._stop(_decode_stop(data), events)
            elif name == "metadata":
                if (usage := read_usage(_decode_metadata(data).usage)) is not None:
                    events.append(Used(usage))
            elif name == "messageStart":
                if not self._started:
                    self._started = True
                    return (Started(),)
            elif name.startswith(("exception:", "error:")):
                self._over = True
                events.append(_failure(data, name.partition(":")[2]))
        except UNREADABLE:
            return ()
        if events and not self._started and not self._over:
            self._started = True
            events.insert(0, Started())
        return events

    def end(self) -> Sequence[Event]:
        if self._over or not self._finished:
            return ()
        self._over = True
        return (Ended(),)

    def _block(self, found: _Block, events: list[Event], *, ends: bool) -> None:
        index, start, delta = found.content_block_index, found.start, found.delta
        if ends:
            self._end_call(index, events)
        call = start.tool_use if start is not None else None
        if call is not None and call.type != SERVER_TOOL and (index, "tool_call") not in self._blocks:
            self._called = True
            block = self._silent[index] = self._number(index, "tool_call")
            events.append(Delta("tool_call", "", block, id=call.tool_use_id or "", name=call.name or ""))
        if delta is None:
            return
        if delta.text:
            events.append(Delta("text", delta.text, self._number(index, "text")))
        if delta.tool_use is not None and delta.tool_use.input and (index, "tool_call") in self._blocks:
            self._silent.pop(index, None)
            events.append(Delta("tool_call", delta.tool_use.input, self._blocks[index, "tool_call"]))
        if (thought := delta.reasoning_content) is not None:
            if thought.text or thought.signature:
                block = self._number(index, "thinking")
                events.append(Delta("thinking", thought.text or "", block, signature=thought.signature or ""))
            if thought.redacted_content:
                block = self._number(index, "redacted")
                events.append(Delta("thinking", "", block, redacted=thought.redacted_content))

    def _stop(self, found: Stop, events: list[Event]) -> None:
        if self._finished:
            return
        self._finished = True
        for index in list(self._silent):
            self._end_call(index, events)
        events.append(Finished(found.reason(called=self._called), stop_sequence=found.sequence()))

    def _end_call(self, index: int, events: list[Event]) -> None:
        """End a call. A call without arguments gets an empty object."""
        if (block := self._silent.pop(index, None)) is not None:
            events.append(Delta("tool_call", "{}", block))

    def _number(self, index: int, kind: Literal["text", "thinking", "redacted", "tool_call"]) -> int:
        return self._blocks.setdefault((index, kind), len(self._blocks))


def _failure(data: bytes, kind: str) -> Failed:
    try:
        message = _decode_exception(data).message
    except UNREADABLE:
        message = ""
    return Failed(message or f"The provider broke off: {kind[:64]}.", _EXCEPTIONS.get(kind, "api_error"), kind[:64])
