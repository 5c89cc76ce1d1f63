"""A streamed answer of Converse: the events of the binary stream, by name."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from extproc.dialects.aws_converse.answer import FINISH, Usage
from extproc.messages import Delta, Ended, Event, Failed, Finished, FinishReason, Started, Used

_EXCEPTIONS = {
    "throttlingException": "rate_limit_error",
    "validationException": "invalid_request_error",
    "serviceUnavailableException": "overloaded_error",
}


class _ToolStart(Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""


class _Start(Struct, rename="camel"):
    tool_use: _ToolStart | None = None


class _ToolDelta(Struct):
    input: str = ""


class _ReasoningDelta(Struct, rename="camel"):
    text: str = ""
    signature: str = ""
    redacted_content: str = ""


class _BlockDelta(Struct, rename="camel"):
    text: str | None = None
    tool_use: _ToolDelta | None = None
    reasoning_content: _ReasoningDelta | None = None


class _Block(Struct, rename="camel"):
    content_block_index: int = 0
    start: _Start | None = None
    delta: _BlockDelta | None = None


class _Stop(Struct, rename="camel"):
    stop_reason: str = "end_turn"


class _Metadata(Struct):
    usage: Usage | None = None


class _Exception(Struct):
    message: str = ""


_decode_block = msgspec.json.Decoder(_Block).decode
_decode_stop = msgspec.json.Decoder(_Stop).decode
_decode_metadata = msgspec.json.Decoder(_Metadata).decode
_decode_exception = msgspec.json.Decoder(_Exception).decode


class ConverseDecoder:
    """Blocks come one after the other and are numbered by the API; empty ones leave no part."""

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}  # the API's numbers -> ours
        self._finish: FinishReason | None = None
        self._failed = False

    def feed(self, data: bytes, name: str) -> Sequence[Event]:
        if name.startswith(("exception:", "error:")):
            self._failed = True
            return [_failure(data, name.partition(":")[2])]
        try:
            if name in ("contentBlockDelta", "contentBlockStart"):
                return self._block(_decode_block(data))
            if name == "messageStart":
                return [Started()]
            if name == "messageStop":
                self._finish = FINISH.get(_decode_stop(data).stop_reason, "stop")
                return [Finished(self._finish)]
            if name == "metadata":
                usage = _decode_metadata(data).usage
                counts = usage.counts() if usage is not None else None
                return [] if counts is None else [Used(counts)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        return []

    def end(self) -> Sequence[Event]:
        """The usage comes after the stop, and nothing marks the end."""
        return [Ended()] if self._finish is not None and not self._failed else []

    def _block(self, found: _Block) -> Sequence[Event]:
        start, delta = found.start, found.delta
        if start is not None and start.tool_use is not None:
            block = self._number(found)
            return [Delta("tool_call", "", block, id=start.tool_use.tool_use_id, name=start.tool_use.name)]
        if delta is None:
            return []
        if delta.text:
            return [Delta("text", delta.text, self._number(found))]
        if delta.tool_use is not None and delta.tool_use.input:
            return [Delta("tool_call", delta.tool_use.input, self._number(found))]
        thought = delta.reasoning_content
        if thought is not None and (thought.text or thought.signature or thought.redacted_content):
            block = self._number(found)
            return [
                Delta("thinking", thought.text, block, signature=thought.signature, redacted=thought.redacted_content)
            ]
        return []

    def _number(self, found: _Block) -> int:
        return self._blocks.setdefault(found.content_block_index, len(self._blocks))


def _failure(data: bytes, kind: str) -> Failed:
    try:
        message = _decode_exception(data).message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = ""
    return Failed(message or f"The provider broke off: {kind[:64]}.", _EXCEPTIONS.get(kind, "api_error"), kind[:64])
