"""Streamed answers, read from providers.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Sequence

from extproc.dialects.anthropic_messages import shapes
from extproc.dialects.anthropic_messages.problem import read_error
from extproc.dialects.anthropic_messages.shapes import FINISH, NO_INPUT, explanation
from extproc.dialects.anthropic_messages.usage import Tally
from extproc.wire.framing import UNREADABLE
from extproc.words import messages
from extproc.words.messages import Ended, Failed, Finished, Started, Used


class _Open:
    """An open tool call: its block number, and the input from its first event."""

    __slots__ = ("block", "input", "told")

    def __init__(self, block: int, input: bytes) -> None:
        self.block = block
        self.input = input
        self.told = False


class Decoder:
    """Reads Anthropic's stream events."""

    __slots__ = ("_blocks", "_calls", "_finished", "_next", "_over", "_started", "_tally")

    def __init__(self) -> None:
        self._tally = Tally()
        self._blocks: dict[tuple[int, str], int] = {}  # (provider's index, kind) -> neutral block number
        self._calls: dict[int, _Open] = {}  # open calls by the provider's index
        self._next = 0
        self._started = self._finished = self._over = False

    def feed(self, data: bytes, name: str) -> Sequence[messages.Event]:  # noqa: ARG002
        if self._over:
            return ()
        try:
            event = shapes.decode(data)
        except UNREADABLE:
            return ()
        kind = event.type
        out: list[messages.Event] = []
        if kind == "content_block_delta":
            if event.delta is not None:
                self._more(event.index, event.delta, out)
        elif kind == "content_block_start":
            if event.content_block is not None:
                self._start_block(event.index, event.content_block, out)
        elif kind == "content_block_stop":
            self._end_call(event.index, out)
        elif kind == "message_start":
            message = event.message or shapes.Message()
            usage = self._tally.add(message.usage)
            if not self._started:
                self._started = True
                return [Started(message.id or "", message.model or "", usage=usage)]
            return ()
        elif kind == "message_delta":
            if event.delta is not None:
                self._finish(event.delta, out)
        elif kind == "error":
            self._over = True
            problem = read_error(event.error)
            message_text = problem.message or "The provider broke off its answer."
            out.append(Failed(message_text, problem.type or "api_error", problem.code))
            return out
        elif kind == "message_stop":
            self._over = True
            for index in list(self._calls):
                self._end_call(index, out)
            if not self._finished:
                out.append(Finished())
        if event.usage is not None and (usage := self._tally.add(event.usage)) is not None:
            out.append(Used(usage))
        if kind == "message_stop":
            out.append(Ended())
        if out and not self._started:
            self._started = True
            out.insert(0, Started())
        return out

    def end(self) -> Sequence[messages.Event]:
        """No events: the API has an end marker of its own."""
        return ()

    def _block(self, index: int, kind: str) -> int:
        key = (index, kind)
        number = self._blocks.get(key)
        if number is None:
            number = self._blocks[key] = self._next
            self._next += 1
        return number

    def _start_block(self, index: int, block: shapes.Block, out: list[messages.Event]) -> None:
        kind = block.type
        if kind == "tool_use":
            self._end_call(index, out)
            number = self._next
            self._next += 1
            self._calls[index] = _Open(number, bytes(block.input))
            out.append(messages.Delta("tool_call", "", number, id=block.id or "", name=block.name or ""))
            return
        self._blocks.pop((index, "text"), None)
        self._blocks.pop((index, "thinking"), None)
        if kind == "text":
            if block.text:
                out.append(messages.Delta("text", block.text, self._block(index, "text")))
        elif kind == "thinking":
            if block.thinking or block.signature:
                number = self._block(index, "thinking")
                out.append(messages.Delta("thinking", block.thinking or "", number, signature=block.signature or ""))
        elif kind == "redacted_thinking" and block.data:
            number = self._next
            self._next += 1
            out.append(messages.Delta("thinking", "", number, redacted=block.data))

    def _more(self, index: int, delta: shapes.Delta, out: list[messages.Event]) -> None:
        kind = delta.type
        if kind == "text_delta":
            if delta.text:
                out.append(messages.Delta("text", delta.text, self._block(index, "text")))
        elif kind == "input_json_delta":
            call = self._calls.get(index)
            if call is not None and delta.partial_json:
                call.told = True
                out.append(messages.Delta("tool_call", delta.partial_json, call.block))
        elif kind == "thinking_delta":
            if delta.thinking:
                out.append(messages.Delta("thinking", delta.thinking, self._block(index, "thinking")))
        elif kind == "signature_delta" and delta.signature:
            out.append(messages.Delta("thinking", "", self._block(index, "thinking"), signature=delta.signature))

    def _end_call(self, index: int, out: list[messages.Event]) -> None:
        """End a call. Without input pieces, its input is that of its first event, or empty."""
        call = self._calls.pop(index, None)
        if call is not None and not call.told:
            text = "{}" if call.input in NO_INPUT else call.input.decode(errors="replace")
            out.append(messages.Delta("tool_call", text, call.block))

    def _finish(self, delta: shapes.Delta, out: list[messages.Event]) -> None:
        if delta.stop_reason is None or self._finished:
            return
        self._finished = True
        for index in list(self._calls):
            self._end_call(index, out)
        if words := explanation(delta.stop_details):
            out.append(messages.Delta("refusal", words, self._next))
            self._next += 1
        out.append(Finished(FINISH.get(delta.stop_reason, "stop"), stop_sequence=delta.stop_sequence or ""))
