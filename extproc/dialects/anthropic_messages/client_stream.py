"""Streamed answers, written for clients.

The encoder closes a block when another one begins, because Anthropic's blocks are consecutive. A continued earlier text
or thinking begins a new block. A continued earlier tool call keeps its index, although its block has ended, because
SDKs collect the input by index.

A thinking signature behind the text (Gemini's) cannot be a block there, because clients take the last block for the
answer. It becomes the signature of an empty thinking block, which was begun in front of the text.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from extproc.dialects.anthropic_messages.client_answer import encode_tool_call, left_out, stop_reason
from extproc.dialects.anthropic_messages.problem import encode_error, type_of
from extproc.dialects.anthropic_messages.provider_request import new_id
from extproc.dialects.anthropic_messages.usage import write_usage
from extproc.dialects.gemini_generate_content.signature import mark_of_call
from extproc.wire.framing import UNREADABLE
from extproc.words import messages
from extproc.words.exchange import Usage
from extproc.words.messages import Ended, Failed, Finished, FinishReason, Started, Used

_encode = msgspec.json.Encoder().encode
_LAST = ("message_stop", "error")
_TEXT = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":%b}}\n\n'
_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_EMPTY: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "refusal": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}
_DELTAS = {
    "text": (b"text_delta", b"text"),
    "refusal": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "tool_call": (b"input_json_delta", b"partial_json"),
}


class _Typed(msgspec.Struct):
    type: str


_decode_type = msgspec.json.Decoder(_Typed).decode
_name = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}").fullmatch
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")  # replaces line breaks of JSON, which are only between values


def frame(data: bytes) -> tuple[bytes, bool]:
    """See `ClientTranslation.frame`."""
    try:
        kind = _decode_type(data).type
    except UNREADABLE:
        return b"", False
    if not _name(kind):
        return b"", False
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data.translate(_ONE_LINE)), kind in _LAST


class Encoder:
    """Writes Anthropic's stream events."""

    __slots__ = (
        "_calls",
        "_finish",
        "_held",
        "_late",
        "_next",
        "_number",
        "_open",
        "_refused",
        "_room",
        "_sequence",
        "_started",
        "_usage",
    )

    def __init__(self) -> None:
        self._started = self._refused = False
        self._usage = Usage()
        self._next = 0
        self._open = -1  # index of the open block
        self._number = -1  # number of the open block in the neutral events
        self._calls: dict[int, int] = {}  # index of each tool call, by block number
        self._finish: FinishReason = "stop"
        self._sequence = ""
        self._held: messages.Delta | None = None  # a signature without thinking, see client_answer._blocks
        self._late = False  # True: a signature without thinking may come behind the text
        self._room = -1  # index of the empty thinking block for that signature

    def feed(self, event: messages.Event) -> bytes:
        if isinstance(event, messages.Delta):
            return self._say(event) if event.choice == 0 else b""
        if isinstance(event, Started):
            return self._start(event)
        if isinstance(event, Used):
            self._usage = event.usage
        elif isinstance(event, Finished):
            if event.choice == 0:
                self._finish, self._sequence = event.reason, event.stop_sequence
        elif isinstance(event, Failed):
            return _frame(encode_error(event.message, type_of(500, event.type), event.code))
        elif isinstance(event, Ended):
            return self._end()
        return b""

    def _start(self, event: Started) -> bytes:
        if self._started:
            return b""
        self._started = True
        self._usage = event.usage or self._usage
        self._late = event.proves_late
        message: dict[str, Any] = {
            "id": event.id or new_id("msg"),
            "type": "message",
            "role": "assistant",
            "model": event.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": write_usage(self._usage),
        }
        return _frame({"type": "message_start", "message": message})

    def _say(self, event: messages.Delta) -> bytes:
        kind, text = event.kind, event.text
        head = b"" if self._started else self._start(Started())
        if kind == "image":
            event.kind, event.text = "text", left_out(event.media_type)
            kind, text = event.kind, event.text
        if (held := self._held) is not None:
            self._held = None
            if held.block == event.block:
                event.signature = event.signature or held.signature
            else:
                head += self._write(held)
        if kind == "thinking" and self._next and not text and not event.redacted and event.block != self._number:
            self._held = event
            return head
        return head + self._write(event)

    def _write(self, event: messages.Delta) -> bytes:
        kind, text, head = event.kind, event.text, b""
        if event.block == self._number:
            index = self._open
        elif kind == "tool_call" and event.block in self._calls:
            index = self._calls[event.block]
        else:
            head += self._start_block(event)
            index = self._open
        name, field = _DELTAS[kind]
        if text:
            head += _TEXT % (index, name, field, _encode(text))
        if event.signature and kind == "thinking":
            head += _signed(index, event.signature)
        elif event.signature and not event.name:
            self._next += 1  # the call's block has begun without its signature
            head += self._close() + _frame(_began(self._next - 1, _EMPTY["thinking"]))
            head += _signed(self._next - 1, mark_of_call(event.signature)) + _STOP % (self._next - 1)
        return head

    def _start_block(self, event: messages.Delta) -> bytes:
        head = self._close()
        if self._late and event.kind == "text":
            self._late, self._room = False, self._next
            self._next += 1
            head += _frame(_began(self._room, _EMPTY["thinking"])) + _STOP % self._room
        index = self._next
        self._next += 1
        if event.kind == "tool_call":
            block = encode_tool_call(event.id, event.name, event.signature, {})
            self._calls[event.block] = index
        elif event.redacted:
            block = {"type": "redacted_thinking", "data": event.redacted}
        else:
            block = _EMPTY[event.kind]
            self._refused |= event.kind == "refusal"
        self._open, self._number = index, event.block
        return head + _frame(_began(index, block))

    def _close(self) -> bytes:
        index, self._open, self._number = self._open, -1, -1
        return _STOP % index if index >= 0 else b""

    def _end(self) -> bytes:
        head = b"" if self._started else self._start(Started())
        delta = {
            "stop_reason": stop_reason(self._finish, refused=self._refused),
            "stop_sequence": self._sequence or None,
        }
        if self._held is not None and self._room >= 0:
            head += _signed(self._room, self._held.signature)
        last = _frame({"type": "message_delta", "delta": delta, "usage": write_usage(self._usage)})
        return head + self._close() + last + _frame({"type": "message_stop"})


def _began(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _signed(index: int, signature: str) -> bytes:
    return _TEXT % (index, b"signature_delta", b"signature", _encode(signature))


def _frame(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event))
